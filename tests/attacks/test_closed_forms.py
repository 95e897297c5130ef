"""White-box attacks and distances against closed forms on a linear score."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.attacks import APGD, FMN, PGD, SPSA, BestPGD, Square, apgd, as_logit, best_pgd, margin
from pipeline.attacks.balls import fit_l2
from tests.attacks.small import LABELS, Linear, along, images, worst_linear

SLOPES = {"best_pgd": best_pgd, "apgd": apgd}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("budget", [0.02, 0.3, 1.5])
@pytest.mark.parametrize("attack", SLOPES.values(), ids=SLOPES.keys())
def test_a_linear_score_reaches_its_optimum_inside_the_bounds(attack, norm, budget):
    score, x = Linear(), images()
    best = worst_linear(score, x, LABELS, budget, norm)
    found = attack(score, x, LABELS, budget=budget, steps=40, norm=norm, restarts=2, seed=0)
    gap = margin(score(best)[:, 0], LABELS) - margin(score(found)[:, 0], LABELS)
    assert gap.abs().max() < 1e-5
    torch.testing.assert_close(found, best, rtol=0, atol=2e-6 if norm == "linf" else 2e-4)  # flat at the optimum
    assert norm == "l2" and budget < 0.1 or ((found == 0) | (found == 1)).any(), "the case holds clipped pixels"


@pytest.mark.parametrize("attack", SLOPES.values(), ids=SLOPES.keys())
def test_without_clipping_the_margin_rises_by_budget_times_the_dual_norm(attack):
    score, x = Linear(), images(low=0.4, high=0.6)
    before = margin(score(x)[:, 0], LABELS)
    for norm, dual in (("linf", score.weights.abs().sum()), ("l2", score.weights.norm())):
        found = attack(score, x, LABELS, budget=0.1, steps=20, norm=norm)
        torch.testing.assert_close(
            margin(score(found)[:, 0], LABELS) - before, (0.1 * dual).expand(4), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", SLOPES.values(), ids=SLOPES.keys())
def test_every_image_keeps_its_own_budget(attack, norm):
    score, x, budget = Linear(), images(), torch.tensor([0.0, 0.01, 0.3, 1.0])
    found = attack(score, x, LABELS, budget=budget, steps=40, norm=norm)
    torch.testing.assert_close(found, worst_linear(score, x, LABELS, budget, norm), rtol=0, atol=2e-4)
    assert torch.equal(found[0], x[0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_misclassified_image_is_pushed_on(norm):
    score = Linear(bias=1000 * (1 - 2 * LABELS))  # every image wrong by about 1,000
    x = images()
    for attack in SLOPES.values():
        found = attack(score, x, LABELS, budget=0.3, steps=40, norm=norm)
        torch.testing.assert_close(found, worst_linear(score, x, LABELS, 0.3, norm), rtol=0, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), radius=st.floats(1e-4, 5), scale=st.floats(1e-3, 1e3), groups=st.booleans())
def test_the_projection_onto_ball_and_bounds_is_the_nearest_point(seed, radius, scale, groups):
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 1, 4, 4, generator=random)
    change = scale * torch.randn(3, 1, 4, 4, generator=random)
    owners = torch.zeros(3, dtype=torch.long) if groups else torch.arange(3)
    radii = torch.full((1 if groups else 3,), radius)
    found = fit_l2(change, -x, 1 - x, radii, owners)
    shape = (1, 1, 12, 4) if groups else (3, 1, 4, 4)
    lengths = found.reshape(len(radii), -1).norm(dim=1)
    assert (lengths <= radius * (1 + 1e-5)).all()
    assert (found >= -x - 1e-6).all() and (found <= 1 - x + 1e-6).all()
    clipped = change.clamp(-x, 1 - x)
    exact = along(change.reshape(shape), -x.reshape(shape), 1 - x.reshape(shape), radii).reshape(change.shape)
    inside = (clipped.reshape(len(radii), -1).norm(dim=1) <= radius)[owners].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found, torch.where(inside, clipped, exact.float()), rtol=1e-4, atol=1e-5)


def test_l2_steps_survive_a_gradient_whose_square_is_zero_in_float32():
    score, x = Linear(), images(low=0.4, high=0.6)
    found = best_pgd(lambda v: 1e-25 * score(v), x, LABELS, budget=0.1, steps=10, norm="l2")
    torch.testing.assert_close(found, worst_linear(score, x, LABELS, 0.1, "l2"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, -0.7, 1.3])
def test_distances_of_a_linear_score_are_its_logit_over_the_dual_norm(threshold):
    score, x = Linear(), images(low=0.35, high=0.65)
    logits = score(x)[:, 0].detach() - threshold
    for norm, dual in (("linf", score.weights.abs().sum()), ("l2", score.weights.norm())):
        exact = logits.abs() / dual.detach()
        assert (norm != "linf") or exact.max() < 0.35, "no bound is in the way"
        result = FMN(norm=norm, steps=30)(score, x, threshold=threshold)
        torch.testing.assert_close(result.distances, exact, rtol=1e-3, atol=1e-6)
        flipped = score(result.images)[:, 0] - threshold
        assert ((flipped > 0) != (logits > 0)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distances_inside_the_bounds_are_where_the_worst_image_crosses(norm):
    score, x = Linear(bias=-1.0), images()
    sides = (score(x)[:, 0] > 0).float()
    result = FMN(norm=norm, steps=60)(score, x)
    # The worst image at the distance lies on the threshold; nothing nearer has crossed.
    for share, crossed in ((1 + 2e-3, True), (1 - 2e-3, False)):
        worst = worst_linear(score, x, sides, share * result.distances, norm)
        assert ((score(worst)[:, 0] > 0).float() != sides).eq(crossed).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()


def test_a_threshold_out_of_reach_is_infinitely_far_and_the_image_stays():
    x = images()
    result = FMN(steps=30)(Linear(bias=1e4), x)
    assert torch.isinf(result.distances).all() and torch.equal(result.images, x)
    flat = FMN(steps=10)(Linear(bias=torch.tensor([1.0, 1e4, 1e4, 1e4])), x)
    assert torch.isfinite(flat.distances).tolist() == [True, False, False, False]


def test_a_score_without_gradient_is_out_of_reach_not_an_error():
    class Constant(Linear):
        def forward(self, x):
            return super().forward(x) * 0 + 1

    result = FMN(steps=5)(Constant(), images())
    assert torch.isinf(result.distances).all()


def test_a_logit_on_the_threshold_counts_as_negative():
    score = Linear()
    x = images(low=0.4, high=0.6)
    threshold = score(x[:1]).item()
    up = FMN(steps=20)(score, x[:1], threshold=threshold)
    assert 0 < up.distances[0] < 1e-3 and score(up.images).item() > threshold


@pytest.mark.parametrize("attack", [Square(budget=0.05, queries=4000), SPSA(budget=0.05, steps=60, samples=64)])
def test_attacks_on_scores_alone_come_near_the_linear_optimum(attack):
    score, x = Linear(), images(low=0.3, high=0.7)
    before = margin(score(x)[:, 0], LABELS)
    rise = margin(score(attack(score, x, LABELS, seed=0))[:, 0], LABELS) - before
    assert (rise > 0.9 * 0.05 * score.weights.abs().sum()).all()


def test_two_logits_give_what_one_does():
    score, x = Linear(), images()

    class Two(Linear):
        def forward(self, v):
            z = super().forward(v)[:, 0]
            return torch.stack([3 - z / 2, 3 + z / 2], 1)

    for attack in (BestPGD(budget=0.1, steps=5), APGD(budget=0.1, steps=5, norm="l2"), Square(budget=0.1, queries=50)):
        one, two = attack(score, x, LABELS, seed=1), attack(Two(), x, LABELS, seed=1)
        torch.testing.assert_close(as_logit(score(one)), as_logit(score(two)), rtol=0, atol=1e-4)


def test_best_iterate_is_never_worse_than_the_last_one_of_the_same_path():
    score, x = Linear(), images()
    plain = PGD(budget=0.1, steps=7, random_start=False)(score, x, LABELS)
    best = BestPGD(budget=0.1, steps=7)(score, x, LABELS)
    assert (margin(score(best)[:, 0], LABELS) >= margin(score(plain)[:, 0], LABELS)).all()
