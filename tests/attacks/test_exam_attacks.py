"""Attacks on whole exams against closed forms on a linear score, and against attacks image by image."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.attacks import (
    BestPGD,
    ExamLayout,
    ExamPGD,
    ExamPooling,
    FewViews,
    Universal,
    best_pgd,
    exam_pgd,
    margin,
    universal,
    with_universal,
    worst_views,
)
from pipeline.attacks.exam_component import _whole_exams
from pipeline.statistics import pool_patients
from tests.attacks.small import Linear, convolutional, images

POOLINGS = [ExamPooling(within, across) for within in ("mean", "max") for across in ("mean", "max")]
POOLING_NAMES = [f"{pool.within_breast}-{pool.across_breasts}" for pool in POOLINGS]
# Three exams in mixed order: two breasts of two views, one breast of one view, two breasts of 3 and 1.
EXAMS = torch.tensor([7, 3, 7, 9, 7, 9, 7, 9, 9])
BREASTS = torch.tensor([0, 1, 1, 0, 0, 0, 1, 1, 0])
PATIENT = {3: 1.0, 7: 0.0, 9: 1.0}
LABELS = torch.tensor([PATIENT[int(exam)] for exam in EXAMS])
LAYOUT = ExamLayout.of(EXAMS, BREASTS)
EXAM_LABELS = torch.tensor([1.0, 0.0, 1.0])


def views(low: float = 0.3, high: float = 0.7, size: tuple[int, int] = (6, 5)) -> Tensor:
    return images(len(EXAMS), low=low, high=high, size=size)


def pooled_margin(score, x: Tensor, pool, layout: ExamLayout = LAYOUT, labels: Tensor = EXAM_LABELS) -> Tensor:
    return margin(pool(score(x)[:, 0], layout), labels).detach()


@pytest.mark.parametrize("pool", POOLINGS, ids=POOLING_NAMES)
def test_pooling_is_that_of_the_statistics(pool):
    logits = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = pd.DataFrame({
        "patient_id": EXAMS.numpy(), "laterality": BREASTS.numpy(), "patient_label": LABELS.numpy(),
        "attack_id": "clean", "logit": logits.numpy(),
    })  # fmt: skip
    expected = pool_patients(table, pool.within_breast, pool.across_breasts)["logit"].to_numpy()
    assert pool(logits, LAYOUT).numpy() == pytest.approx(expected, abs=1e-15)
    assert torch.autograd.gradcheck(lambda z: pool(z, LAYOUT), logits.requires_grad_(True))


@pytest.mark.parametrize("pool", POOLINGS, ids=POOLING_NAMES)
def test_a_budget_per_image_gives_the_images_that_single_attacks_give(pool):
    score, x = convolutional(), views(size=(16, 16))
    seeds = list(range(9))
    alone = best_pgd(score, x, LABELS, budget=0.03, steps=10, restarts=2, seed=seeds)
    exam = exam_pgd(score, x, LABELS, layout=LAYOUT, budget=0.03, steps=10, restarts=2, pool=pool, seed=seeds)
    assert torch.equal(exam, alone)


@pytest.mark.parametrize("pool", POOLINGS, ids=POOLING_NAMES)
def test_no_ascent_of_the_pooled_logit_itself_beats_the_attack_image_by_image(pool):
    score, x = convolutional(), views(size=(16, 16))
    settings = {"budget": 0.03, "steps": 30, "restarts": 2, "seed": 0, "layout": LAYOUT}
    reduced = exam_pgd(score, x, LABELS, pool=pool, **settings)
    joint = exam_pgd(score, x, LABELS, pool=lambda z, layout: pool(z, layout), **settings)  # not known to be monotone
    gain = pooled_margin(score, joint, pool) - pooled_margin(score, reduced, pool)
    assert (gain <= 1e-3).all()
    assert (pooled_margin(score, joint, pool) > pooled_margin(score, x, pool) + 0.01).all(), "it attacks, too"


def test_a_mean_ascended_jointly_walks_the_same_path_as_single_attacks():
    score, x, pool = Linear(), views(), ExamPooling("mean", "mean")
    joint = exam_pgd(score, x, LABELS, layout=LAYOUT, budget=0.03, steps=20, pool=lambda z, layout: pool(z, layout))
    torch.testing.assert_close(joint, best_pgd(score, x, LABELS, budget=0.03, steps=20), rtol=0, atol=1e-6)


def shared_optimum(score: Linear, x: Tensor, label: float, breasts: Tensor, budget: float, pool: ExamPooling) -> float:
    """Largest pooled margin of one exam of a linear score under one L2 budget, without bounds in the way."""
    norm, z = score.weights.detach().norm().item(), score(x)[:, 0].detach()
    units = []  # value of an alternative and by how much a unit of length moves it
    for breast in breasts.unique():
        rows = breasts == breast
        if pool.within_breast == "mean":
            units.append((z[rows].mean().item(), norm / int(rows.sum()) ** 0.5))
        else:
            units += [(value.item(), norm) for value in z[rows]]
    if label == 0:
        return max(value + slope * budget for value, slope in units)
    low, high = min(v for v, _ in units) - norm * budget, max(v for v, _ in units)
    for _ in range(200):  # the level below which all alternatives can be pressed
        level = (low + high) / 2
        needed = sum((max(0.0, value - level) / slope) ** 2 for value, slope in units)
        low, high = (level, high) if needed > budget**2 else (low, level)
    return -high


@pytest.mark.parametrize("pool", [ExamPooling("mean", "max"), ExamPooling("max", "max")], ids=["mean-max", "max-max"])
@pytest.mark.parametrize("budget", [0.05, 0.2, 0.6])
def test_a_shared_l2_budget_reaches_the_optimum_of_a_linear_score(pool, budget):
    score, x = Linear(), views(0.35, 0.65)
    found = exam_pgd(score, x, LABELS, layout=LAYOUT, budget=budget, steps=100, norm="l2", pool=pool)
    assert (found > 0).all() and (found < 1).all(), "no bound is in the way"
    values, before = pooled_margin(score, found, pool), pooled_margin(score, x, pool)
    for number, exam in enumerate((3, 7, 9)):
        rows = exam == EXAMS
        length = (found - x)[rows].norm().item()
        assert length <= budget * (1 + 1e-5)
        best = shared_optimum(score, x[rows], PATIENT[exam], BREASTS[rows], budget, pool)
        assert values[number] <= best + 1e-4
        assert (values[number] - before[number]) / (best - before[number]) > 0.99


def test_a_shared_l2_budget_under_means_is_the_joint_optimum():
    score, x, pool = Linear(), views(0.35, 0.65), ExamPooling("mean", "mean")
    found = exam_pgd(score, x, LABELS, layout=LAYOUT, budget=0.2, steps=30, norm="l2", pool=pool)
    logits = score(x)[:, 0].detach().requires_grad_(True)
    for number in range(3):
        (shares,) = torch.autograd.grad(pool(logits, LAYOUT)[number], logits)
        rise = 0.2 * shares.norm() * score.weights.norm()
        gained = pooled_margin(score, found, pool)[number] - pooled_margin(score, x, pool)[number]
        assert gained.item() == pytest.approx(rise.item(), rel=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_exams_keep_their_own_budgets_and_the_bounds(norm):
    score, x = convolutional(), views(0.0, 1.0, (16, 16))
    budgets = torch.tensor([0.0, 0.3, 2.0])
    given = budgets if norm == "l2" else budgets[LAYOUT.exams]
    pool = ExamPooling()
    found = exam_pgd(score, x, LABELS, layout=LAYOUT, budget=given, steps=5, restarts=2, norm=norm, pool=pool, seed=0)
    assert found.min() >= 0 and found.max() <= 1
    for number in range(3):
        change = (found - x)[LAYOUT.exams == number]
        size = change.norm() if norm == "l2" else change.abs().max()
        assert size <= budgets[number] * (1 + 1e-5)
    assert torch.equal(found[LAYOUT.exams == 0], x[LAYOUT.exams == 0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_parts_of_whole_exams_find_what_all_exams_together_do(norm):
    network, x = convolutional(dtype=torch.float64), views(size=(16, 16)).double()
    given = {"exams": EXAMS, "breasts": BREASTS, "seed": list(range(9))}
    whole = ExamPGD(budget=0.1, steps=4, restarts=2, norm=norm)(network, x, LABELS, **given)
    parts = ExamPGD(budget=0.1, steps=4, restarts=2, norm=norm, memory_gib=1e-6)(network, x, LABELS, **given)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)
    assert [sorted(EXAMS[rows].unique().tolist()) for rows in _whole_exams(LAYOUT, 5)] == [[3, 7], [9]]


@pytest.mark.parametrize("pool", POOLINGS, ids=POOLING_NAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_the_chosen_views_are_the_best_set_of_their_number(pool, count):
    score, x = convolutional(), views(size=(16, 16))
    attack = BestPGD(budget=0.03, steps=10)
    found = FewViews(attack, views=count, pool=pool)(score, x, LABELS, exams=EXAMS, breasts=BREASTS)
    touched = (found != x).flatten(1).any(1)
    single = attack(score, x, LABELS)
    clean, attacked = score(x)[:, 0].detach(), score(single)[:, 0].detach()
    for number, label in enumerate(EXAM_LABELS):
        rows = (LAYOUT.exams == number).nonzero()[:, 0]
        assert touched[rows].sum() <= count
        alone = LAYOUT.part(rows)
        best = -torch.inf
        for chosen in combinations(range(len(rows)), min(count, len(rows))):
            logits = clean[rows].clone()
            logits[list(chosen)] = attacked[rows][list(chosen)]
            best = max(best, margin(pool(logits, alone), label[None]).item())
        assert pooled_margin(score, found, pool)[number].item() == pytest.approx(best, abs=1e-5)


def test_many_views_are_chosen_one_by_one_and_under_a_mean_that_is_exact():
    random = torch.Generator().manual_seed(0)
    clean = torch.randn(30, generator=random)
    attacked = clean - torch.rand(30, generator=random)
    layout = ExamLayout.of(torch.zeros(30).long(), torch.zeros(30).long())
    chosen = worst_views(clean, attacked, torch.ones(30), layout=layout, views=10)
    assert set(chosen.nonzero()[:, 0].tolist()) == set((clean - attacked).topk(10).indices.tolist())


def test_a_view_that_an_attack_made_better_is_left_alone():
    layout = ExamLayout.of(torch.zeros(2).long(), torch.arange(2))
    chosen = worst_views(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]), torch.ones(2), layout=layout, views=2)
    assert chosen.tolist() == [False, True]


def test_universal_changes_of_a_linear_score_are_its_signs_and_its_direction():
    score, x = Linear(), views(0.35, 0.65)
    batches = [(x[:4], LABELS[:4]), (x[4:], LABELS[4:])]
    weights = score.weights.detach()
    for norm, best in (("linf", 0.05 * weights.sign()), ("l2", 0.05 * weights / weights.norm())):
        changes = universal(score, batches, budget=0.05, steps=10, norm=norm)
        torch.testing.assert_close(changes, torch.stack([best, -best]), rtol=0, atol=1e-6)
    added = with_universal(x, LABELS, changes)
    torch.testing.assert_close(added - x, changes[LABELS.long()], rtol=0, atol=1e-6)


def test_a_universal_change_hurts_the_cohort_it_was_made_on_and_another_one():
    network = convolutional()
    x, y = images(24, size=(16, 16)), torch.arange(24) % 2
    attack = Universal(budget=0.05, steps=10).fit(network, [(x[:6], y[:6]), (x[6:12], y[6:12])])
    for rows in (slice(0, 12), slice(12, 24)):
        before = margin(network(x[rows])[:, 0], y[rows])
        after = margin(network(attack(network, x[rows], y[rows]))[:, 0], y[rows])
        alone = margin(network(BestPGD(budget=0.05, steps=10)(network, x[rows], y[rows]))[:, 0], y[rows])
        assert before.mean() < after.mean() <= alone.mean()
        for label in (0, 1):
            assert before[y[rows] == label].mean() < after[y[rows] == label].mean()
    found = attack(network, x, y)
    assert (found - x).abs().max() <= 0.05 + 1e-6 and found.min() >= 0 and found.max() <= 1


def test_one_class_alone_leaves_the_other_ones_change_at_zero():
    x = views(0.35, 0.65)
    changes = universal(Linear(), [(x, torch.ones(9))], budget=0.05, steps=3)
    assert not changes[0].any() and changes[1].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExamPooling("median"), "within_breast is 'median'"),
        (lambda: ExamLayout.of(EXAMS, BREASTS[:3]), "two tensors of whole numbers"),
        (lambda: ExamLayout.of(EXAMS.float(), BREASTS), "two tensors of whole numbers"),
        (
            lambda: exam_pgd(Linear(), views(), torch.arange(9) % 2, layout=LAYOUT, budget=0.1, steps=1),
            "label 0 and with label 1",
        ),
        (lambda: worst_views(LABELS, LABELS, LABELS, layout=LAYOUT, views=-1), "views is -1"),
        (lambda: universal(Linear(), [], budget=0.1, steps=1), "the cohort has no image"),
        (lambda: universal(Linear(), iter([(views(), LABELS)]), budget=0.1, steps=1), "gone through once only"),
        (
            lambda: universal(Linear(), [(views(), LABELS), (views(size=(5, 5)), LABELS)], budget=0.1, steps=1),
            "one change fits images of one shape",
        ),
    ],
)
def test_input_that_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unfitted_universal_attack_says_so():
    with pytest.raises(RuntimeError, match="not fitted; call fit"):
        Universal(budget=0.1)(Linear(), views(), LABELS)
