"""PGD against closed forms: on a linear score every pixel ends at the edge of its budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.attacks import PGD, margin, pgd
from pipeline.attacks.shapes import start_noise

LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0])


def images(low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(4, 1, 6, 5, generator=torch.Generator().manual_seed(1)) * (high - low) + low


def direction(scale: float = 1.0) -> Tensor:
    weights = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(2))
    return scale * (weights + 0.1 * weights.sign())  # no weight near zero


def edge(x: Tensor, budget: float | Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Worst case of a linear score: against the label, so up for 0 and down for 1."""
    signs = (1 - 2 * LABELS).reshape(-1, 1, 1, 1)
    return (x + budget * signs * direction().sign()).clamp(low, high)


class LinearScore(nn.Module):
    """Logit <w, x> + bias in one of the three shapes that are allowed."""

    def __init__(self, shape: str = "(N, 1)", scale: float = 1.0, bias: Tensor | float = 0.0) -> None:
        super().__init__()
        self.weights = nn.Parameter(direction(scale))
        self.shape, self.bias, self.calls = shape, bias, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logit = (x * self.weights).sum(dim=(1, 2, 3)) + self.bias
        if self.shape == "(N,)":
            return logit
        return logit[:, None] if self.shape == "(N, 1)" else torch.stack([3 - logit / 2, 3 + logit / 2], dim=1)


@pytest.mark.parametrize("shape", ["(N,)", "(N, 1)", "(N, 2)"])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.long()], ids=["(N,)", "(N, 1)", "long"])
def test_linear_score_reaches_x_plus_budget_times_sign(shape: str, random_start: bool, labels: Tensor) -> None:
    x = images()
    found = PGD(budget=0.05, random_start=random_start)(LinearScore(shape), x, labels, seed=0)
    torch.testing.assert_close(found, edge(x, 0.05), rtol=0, atol=1e-6)
    assert ((found == 0) | (found == 1)).any(), "the case holds pixels that the bounds clip"


def test_a_margin_of_a_thousand_does_not_stop_the_attack() -> None:
    x = images()
    confident = (2 * LABELS - 1) * 1000  # every image right by 1,000, where cross-entropy has no gradient left
    z = LinearScore("(N,)", bias=confident)(x)
    assert margin(z, LABELS).max() < -900
    found = PGD(budget=0.05)(LinearScore("(N, 1)", bias=confident), x, LABELS, seed=0)
    torch.testing.assert_close(found, edge(x, 0.05), rtol=0, atol=1e-6)


def test_bounds_other_than_zero_to_one_clip_there() -> None:
    x = images(-2.5, 2.5)
    found = PGD(budget=0.4, bounds=(-2.5, 2.5))(LinearScore(), x, LABELS, seed=0)
    torch.testing.assert_close(found, edge(x, 0.4, -2.5, 2.5), rtol=0, atol=1e-6)
    assert found.min() == -2.5 and found.max() == 2.5


def test_every_image_keeps_its_own_budget() -> None:
    x, budget = images(), torch.tensor([0.0, 0.01, 0.05, 0.2])
    found = pgd(LinearScore(), x, LABELS, budget=budget, steps=5, step_size=budget / 2)
    torch.testing.assert_close(found, edge(x, budget.reshape(-1, 1, 1, 1)), rtol=0, atol=1e-6)
    assert torch.equal(found[0], x[0])


def test_step_size_is_what_one_step_adds() -> None:
    x = images(0.3, 0.7)
    found = pgd(LinearScore(), x, LABELS, budget=0.1, steps=1, step_size=0.03, random_start=False)
    torch.testing.assert_close(found, edge(x, 0.03), rtol=0, atol=1e-6)
    assert PGD(budget=0.01, steps=7).step_size == pytest.approx(2.5 * 0.01 / 7)


def test_random_start_is_uniform_in_the_budget_and_inside_the_bounds() -> None:
    x = torch.full((2, 1, 100, 100), 0.5)
    start = pgd(lambda v: v.sum((1, 2, 3)), x, torch.zeros(2), budget=0.1, steps=1, step_size=0.0)
    change = start - x
    assert change.abs().max() <= 0.1 + 1e-6
    assert change.abs().max() > 0.0999 and change.abs().mean() == pytest.approx(0.05, rel=0.03)
    assert change.mean() == pytest.approx(0.0, abs=0.002)
    black = pgd(lambda v: v.sum((1, 2, 3)), x - 0.5, torch.zeros(2), budget=0.1, steps=1, step_size=0.0)
    assert black.min() == 0 and black.max() > 0.09


def test_same_seed_same_start_other_seed_other_start() -> None:
    attack, x = PGD(budget=0.1, steps=1, step_size=0.0), images()
    first, again, other = (attack(LinearScore(), x, LABELS, seed=s) for s in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    generator = torch.Generator().manual_seed(9)
    drawn = [
        pgd(LinearScore(), x, LABELS, budget=0.1, steps=1, step_size=0.0, generator=generator.manual_seed(9))
        for _ in range(2)
    ]
    assert torch.equal(*drawn) and not torch.equal(drawn[0], first)


def test_a_seed_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    PGD(budget=0.1)(LinearScore(), images(), LABELS, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_per_image_seeds_make_a_start_independent_of_its_batch() -> None:
    attack, x = PGD(budget=0.1, steps=1, step_size=0.0), images()
    together = attack(LinearScore(), x, LABELS, seed=[11, 12, 13, 14])
    reversed_ = attack(LinearScore(), x.flip(0), LABELS.flip(0), seed=[14, 13, 12, 11]).flip(0)
    alone = torch.cat([attack(LinearScore(), x[i : i + 1], LABELS[i : i + 1], seed=[11 + i]) for i in range(4)])
    assert torch.equal(together, reversed_) and torch.equal(together, alone)
    noise = start_noise(x, [1, 1, 2, 3])
    assert torch.equal(noise[0], noise[1]) and not torch.equal(noise[0], noise[2])


@pytest.mark.parametrize("steps", [1, 7])
def test_the_score_is_called_once_a_step(steps: int) -> None:
    score = LinearScore()
    PGD(budget=0.1, steps=steps)(score, images(), LABELS, seed=0)
    assert score.calls == steps


def test_iterates_of_on_step_are_the_path_not_its_end() -> None:
    x, path = images(0.3, 0.7), []
    pgd(
        LinearScore(), x, LABELS, budget=0.1, steps=3, step_size=0.02, random_start=False,
        on_step=lambda step, iterate: path.append((step, iterate)),
    )  # fmt: skip
    assert [step for step, _ in path] == [0, 1, 2]
    for step, iterate in path:
        torch.testing.assert_close(iterate, edge(x, 0.02 * (step + 1)), rtol=0, atol=1e-6)
        assert not iterate.requires_grad


def test_the_attack_leaves_images_and_labels_as_they_were() -> None:
    x, labels = images(), LABELS.clone()
    kept = x.clone()
    found = PGD(budget=0.1)(LinearScore(), x, labels, seed=0)
    assert torch.equal(x, kept) and torch.equal(labels, LABELS)
    assert not x.requires_grad and not found.requires_grad and found.dtype == x.dtype and found.shape == x.shape


def test_another_objective_is_ascended() -> None:
    x = images()
    found = pgd(LinearScore(), x, LABELS, budget=0.05, steps=5, step_size=0.025, objective=lambda z, _: -z)
    torch.testing.assert_close(found, (x - 0.05 * direction().sign()).clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(3)}, r"labels of shape \(3,\) for 4 images"),
        ({"budget": -0.1}, "budget is -0.1; allowed are numbers from 0 on"),
        ({"budget": torch.tensor([0.1, 0.1, -0.1, 0.1])}, "budget is .*; allowed are numbers from 0 on"),
        ({"budget": torch.full((3,), 0.1)}, r"budget of shape \(3,\) for 4 images"),
        ({"steps": 0}, "steps is 0; at least 1"),
        ({"score": lambda x: x.flatten(1)[:, :3]}, r"the score gives shape \(4, 3\)"),
        ({"images": images(-1, 1)}, "hold values from -.* bounds are .*give the attack the bounds"),
        ({"images": images() * torch.nan}, "hold values from nan"),
    ],
)
def test_input_that_does_not_fit_is_refused(change: dict, message: str) -> None:
    given = {"score": LinearScore(), "images": images(), "labels": LABELS, "budget": 0.1, "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        pgd(
            given["score"], given["images"], given["labels"],
            budget=given["budget"], steps=given["steps"], step_size=0.1,
        )  # fmt: skip


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for bad in ({"budget": -1.0}, {"budget": 0.1, "steps": 0}, {"budget": 0.1, "bounds": (1.0, 0.0)}):
        with pytest.raises(ValueError, match="allowed|at least|below"):
            PGD(**bad)
    with pytest.raises(ValueError, match="3 seeds for 4 images"):
        PGD(budget=0.1)(LinearScore(), images(), LABELS, seed=[1, 2, 3])


def test_bf16_autocast_keeps_image_and_perturbation_float32() -> None:
    seen: list[torch.dtype] = []

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.dtype)
            features = self.convolution(x)
            seen.append(features.dtype)
            return self.head(features.relu().mean((2, 3)))

    torch.manual_seed(0)
    # Half an image's pixels lie at 1, where bfloat16 has steps of 2^-8, 40 times the budget.
    x = torch.cat([images()[:2], torch.full_like(images()[:2], 0.999)])
    found = PGD(budget=1e-4, steps=3, amp_dtype="bfloat16")(Network(), x, LABELS, seed=0)
    assert seen == [torch.float32, torch.bfloat16] * 3
    assert found.dtype == torch.float32
    change = (found - x).abs().amax(dim=(1, 2, 3))
    assert change.min() > 0.9e-4 and change.max() <= 1e-4 + 6e-8  # half a float32 unit at 1
