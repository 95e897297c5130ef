"""What every attack keeps: budget, bounds, the network, its seed, its stated cost, and an image's independence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.attacks import (
    APGD,
    EOT,
    FGSM,
    FMN,
    PGD,
    SPSA,
    BestPGD,
    Count,
    ExamPGD,
    FeatureAttack,
    FewViews,
    Noise,
    Square,
    Through,
    Transfer,
    Universal,
    WorstOf,
    apgd,
    best_pgd,
    margin,
    noise,
    spsa,
    square,
)
from pipeline.attacks.balls import ball
from pipeline.attacks.streams import Streams, image_seeds
from tests.attacks.small import LABELS, Linear, convolutional, images


def attacks_of(budget: float, bounds: tuple[float, float] = (0.0, 1.0)) -> list:
    """Every attack on single images, small."""
    plain = PGD(budget=budget, steps=2, bounds=bounds)
    return [
        plain,
        FGSM(budget=budget, bounds=bounds),
        BestPGD(budget=budget, steps=3, restarts=2, bounds=bounds),
        BestPGD(budget=budget, steps=3, restarts=2, bounds=bounds, norm="l2"),
        APGD(budget=budget, steps=6, restarts=2, bounds=bounds),
        APGD(budget=budget, steps=6, restarts=2, bounds=bounds, norm="l2"),
        Noise(budget=budget, draws=3, bounds=bounds),
        Noise(budget=budget, draws=3, bounds=bounds, norm="l2"),
        Square(budget=budget, queries=12, bounds=bounds),
        SPSA(budget=budget, steps=3, samples=4, bounds=bounds),
        EOT(plain, draws=2),
        WorstOf([plain, APGD(budget=budget, steps=3, bounds=bounds)]),
        Through(plain, view=lambda network: network, name="through"),
        FeatureAttack(plain, layer="0", term=lambda features, _: features.abs().mean((1, 2, 3)), weight=0.1),
    ]


NAMES = [attack.attack_id for attack in attacks_of(0.1)]


class Stack(nn.Sequential):
    """Conv, batch normalisation, dropout and a frozen layer: what an attack may disturb."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 1)
        )
        self[0].requires_grad_(False)
        self.train()
        self[1].eval()


def lengths(change: Tensor, norm: str) -> Tensor:
    return change.abs().flatten(1).amax(1) if norm == "linf" else change.double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
@settings(max_examples=6, deadline=None)
@given(
    budget=st.sampled_from([0.0, 1e-4, 0.01, 0.3, 2.0]), low=st.sampled_from([0.0, -2.5]),
    high=st.sampled_from([1.0, 4.0]), seed=st.integers(0, 2**40),
)  # fmt: skip
def test_budget_and_bounds_hold(number, budget, low, high, seed):
    attack = attacks_of(budget, (low, high))[number]
    x = images(low=low, high=high)
    x[0] = low  # a black and a white image
    x[1] = high
    found = attack(Stack(), x, LABELS, seed=seed)
    assert found.shape == x.shape and found.dtype == x.dtype and not found.requires_grad
    assert found.min() >= low and found.max() <= high
    # float32 rounds a pixel of 4 by up to 2.4e-7, thirty of them by 1.3e-6 in length.
    assert (lengths(found - x, attack.norm) <= budget * (1 + 1e-5) + 2e-6).all()
    if budget == 0:
        assert torch.equal(found, x)


@pytest.mark.parametrize(
    ("attack", "others"),
    [
        (best_pgd, {"steps": 3, "restarts": 2}),
        (best_pgd, {"steps": 3, "restarts": 2, "norm": "l2"}),
        (apgd, {"steps": 5, "restarts": 2}),
        (apgd, {"steps": 5, "restarts": 2, "norm": "l2"}),
        (noise, {"draws": 3}),
        (noise, {"draws": 3, "norm": "l2"}),
        (square, {"queries": 20}),
        (spsa, {"steps": 3, "samples": 4}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or value.get("norm", "linf"),
)
@settings(max_examples=6, deadline=None)
@given(budget=st.lists(st.floats(0, 0.5), min_size=4, max_size=4))
def test_budgets_of_single_images_hold(attack, others, budget):
    x, budgets = images(low=0.3, high=0.6), torch.tensor(budget)
    found = attack(Linear(), x, LABELS, budget=budgets, seed=0, **others)
    assert (lengths(found - x, others.get("norm", "linf")) <= budgets * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_the_network_comes_back_as_it_was(number):
    network = Stack()
    network[5].weight.grad = torch.ones_like(network[5].weight)
    values = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    x = images()
    kept = x.clone()
    found = attacks_of(0.1)[number](network, x, LABELS, seed=0)
    assert all(torch.equal(values[name], value) for name, value in network.state_dict().items())
    assert modes == [module.training for module in network.modules()]
    assert flags == [parameter.requires_grad for parameter in network.parameters()]
    assert hooks == [len(module._forward_hooks) for module in network.modules()]
    assert torch.equal(network[5].weight.grad, torch.ones_like(network[5].weight)) and network[1].weight.grad is None
    assert torch.equal(x, kept) and not torch.equal(found, x)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_an_image_is_attacked_alike_in_every_batch(number):
    # In float64, so that sums of another batch size do not round a gradient to the other side of zero.
    network, x = convolutional(dtype=torch.float64), images(5, size=(16, 16)).double()
    labels, seeds = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]), [11, 12, 13, 14, 15]
    attack = attacks_of(0.1)[number]
    together = attack(network, x, labels, seed=seeds)
    again = attack(network, x, labels, seed=seeds)
    assert torch.equal(together, again)
    order = [3, 0, 4]
    others = attack(network, x[order], labels[order], seed=[seeds[row] for row in order])
    torch.testing.assert_close(others, together[order], rtol=0, atol=1e-9)
    if isinstance(attack, Square | Noise | SPSA):
        assert not torch.equal(attack(network, x, labels, seed=[1, 2, 3, 4, 5]), together)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_the_stated_cost_is_the_counted_one(number):
    attack = attacks_of(0.1)[number]
    network = Count(convolutional())
    if isinstance(attack, FeatureAttack):
        attack.layer = "score.0"
    attack(network, images(3, size=(16, 16)), LABELS[:3], seed=0)
    assert (network.forward_images, network.backward_images) == tuple(3 * count for count in attack.passes)


def test_the_stated_cost_of_distances_exams_and_cohorts_is_the_counted_one():
    network, x, y = Count(convolutional()), images(4, size=(16, 16)), torch.ones(4)
    exam = {"exams": torch.zeros(4).long(), "breasts": torch.tensor([0, 0, 1, 1])}

    def counted() -> tuple[int, int]:
        figures = network.forward_images // 4, network.backward_images // 4
        network.reset()
        return figures

    fmn = FMN(steps=4)
    fmn(network, x)
    assert counted() == fmn.passes
    for attack in (
        ExamPGD(budget=0.1, steps=3),
        ExamPGD(budget=0.1, steps=3, restarts=2, norm="l2"),
        FewViews(PGD(budget=0.1, steps=2), views=1),
    ):
        attack(network, x, y, seed=0, **exam)
        assert counted() == attack.passes
    fitted = Universal(budget=0.1, steps=3).fit(network, [(x[:3], y[:3]), (x[3:], y[3:])])
    assert counted() == fitted.passes
    transfer = Transfer(PGD(budget=0.1), surrogate=convolutional(4))
    transfer(network, x, y, seed=0)
    assert counted() == transfer.passes == (0, 0)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_attacks_work_inside_inference_mode_and_leave_the_global_random_state_alone(number):
    attack, network = attacks_of(0.1)[number], Stack()
    outside = attack(network, images(), LABELS, seed=0)
    before = torch.get_rng_state()
    with torch.inference_mode():
        inside = attack(network, images(), LABELS, seed=0)
    assert torch.equal(inside, outside)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "attack", [BestPGD(budget=0.1, steps=4, restarts=2, memory_gib=1e-4), APGD(budget=0.1, steps=4)]
)
def test_parts_of_a_batch_find_what_the_whole_batch_does(attack):
    network, x, y = convolutional(dtype=torch.float64), images(9, size=(16, 16)).double(), torch.arange(9) % 2
    whole = type(attack)(budget=0.1, steps=4, restarts=attack.restarts)(network, x, y, seed=list(range(9)))
    torch.testing.assert_close(attack(network, x, y, seed=list(range(9))), whole, rtol=0, atol=1e-9)


def test_the_network_comes_back_from_distances_exams_and_cohorts():
    network, x, y = Stack(), images(), torch.ones(4)
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    exam = {"exams": torch.zeros(4).long(), "breasts": torch.tensor([0, 0, 1, 1])}
    FMN(steps=2)(network, x)
    ExamPGD(budget=0.1, steps=2, norm="l2")(network, x, y, **exam)
    FewViews(PGD(budget=0.1, steps=2), views=1)(network, x, y, **exam)
    Universal(budget=0.1, steps=2).fit(network, [(x, y)])
    assert modes == [module.training for module in network.modules()]
    assert flags == [parameter.requires_grad for parameter in network.parameters()]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_attack_ids_differ_and_hold_what_the_table_needs():
    assert len(set(NAMES)) == len(NAMES)
    for attack in attacks_of(0.25):
        assert attack.attack_id.endswith("@0.25") and "," not in attack.attack_id
        assert attack.norm in ("linf", "l2") and attack.budget == 0.25 and attack.steps >= 1 and attack.restarts >= 1
    assert BestPGD(budget=0.01, steps=70, restarts=5, norm="l2").attack_id == "best-pgd-l2-70x5@0.01"
    assert PGD(budget=1e-4).attack_id == "pgd-7@0.0001"


def test_a_smaller_budget_is_a_scaled_attack():
    x = images(low=0.3, high=0.7)
    for attack in (
        BestPGD(budget=0.2, steps=3),
        APGD(budget=0.2, steps=3),
        BestPGD(budget=0.2, step_size=0.1, steps=3),
    ):
        half = attack.scaled(0.5)
        assert half.budget == 0.1 and attack.budget == 0.2
        assert (half(Linear(), x, LABELS, seed=0) - x).abs().max() == pytest.approx(0.1, rel=1e-5)


def test_streams_depend_on_their_seed_alone():
    x = images(3)
    together = Streams(x, [1, 2, 3])
    first, second = together.uniform(4), together.uniform(4)
    alone = Streams(x[1:2], [2])
    assert torch.equal(alone.uniform(4), first[1:2]) and torch.equal(alone.uniform(4), second[1:2])
    assert len(set(image_seeds(5, 100))) == 100 and image_seeds(5, 3) == image_seeds(5, 100)[:3]
    assert set(Streams(x, 0).signs(1000).unique().tolist()) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="2 seeds for 3 images"):
        Streams(x, [1, 2])


@pytest.mark.parametrize("groups", [None, torch.arange(3000) // 2])
def test_random_points_of_an_l2_budget_are_uniform_in_the_ball(groups):
    x = torch.full((3000, 1, 1, 3), 0.5)
    found = ball(x, 0.4, norm="l2", groups=groups).random_point(Streams(x, 0)) - x
    vectors = found.flatten(1) if groups is None else found.reshape(1500, 6)
    dimension = vectors.shape[1]
    # In a ball of dimension d, the length to the power d is uniform, and no direction is preferred.
    shares = (vectors.norm(dim=1) / 0.4) ** dimension
    assert shares.max() <= 1 + 1e-5
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03) and shares.var().item() == pytest.approx(
        1 / 12, abs=0.01
    )
    assert vectors.mean(0).abs().max() < 0.02
    assert vectors.T.cov() == pytest.approx(torch.eye(dimension) * 0.16 / (dimension + 2), abs=0.003)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BestPGD(budget=-1), "budget is -1"),
        (lambda: BestPGD(budget=1, restarts=0), "restarts is 0"),
        (lambda: APGD(budget=1, steps=0), "steps is 0"),
        (lambda: APGD(budget=1, norm="l1"), "norm is 'l1'; allowed are 'linf' and 'l2'"),
        (lambda: SPSA(budget=1, samples=3), "samples is 3; allowed are even"),
        (lambda: WorstOf([PGD(budget=0.1), PGD(budget=0.2)]), "2 attacks of several norms or budgets"),
        (lambda: WorstOf([]), "0 attacks"),
        (lambda: EOT(PGD(budget=1), draws=0)(Linear(), images(), LABELS), "draws is 0"),
        (lambda: Square(budget=1)(Linear(), images(), LABELS, objective=lambda z, y: z), "takes no objective"),
        (lambda: FeatureAttack(PGD(budget=1), layer="x", term=margin)(Linear(), images(), LABELS), "layer 'x' is not"),
        (lambda: best_pgd(Linear(), images() + 1, LABELS, budget=0.1, steps=1), "give the attack the bounds"),
        (lambda: apgd(Linear(), images(), LABELS, budget=torch.ones(3), steps=1), r"budget of shape \(3,\)"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_no_image_is_no_error(number):
    found = attacks_of(0.1)[number](Stack(), images()[:0], LABELS[:0], seed=[])
    assert found.shape == (0, 1, 6, 5)
