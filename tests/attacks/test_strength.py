"""Which attack is stronger than which, on a small convolutional network, in mean margin."""

from __future__ import annotations

import pytest
import torch

from pipeline.attacks import APGD, FGSM, PGD, SPSA, BestPGD, Noise, Square, margin
from pipeline.attacks.square import side_length
from tests.attacks.small import convolutional, images

IMAGES = images(24, size=(16, 16))
LABELS = torch.arange(24) % 2


def margins(attack, seed: int = 3) -> torch.Tensor:
    network = convolutional(seed)
    found = attack(network, IMAGES, LABELS, seed=list(range(24)))
    return margin(network(found)[:, 0].detach(), LABELS)


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.01), ("linf", 0.05), ("l2", 0.3)])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_apgd_is_at_least_pgd_at_equal_passes(norm, budget, seed):
    ours = APGD(budget=budget, steps=40, norm=norm)
    other = BestPGD(budget=budget, steps=40, norm=norm)
    assert ours.passes == other.passes
    assert margins(ours, seed).mean() >= margins(other, seed).mean() - 1e-4


def test_restarts_and_the_best_iterate_only_ever_help():
    one, five = margins(BestPGD(budget=0.05, steps=10)), margins(BestPGD(budget=0.05, steps=10, restarts=5))
    assert (five >= one).all() and (five > one).any()
    last = margins(PGD(budget=0.05, steps=10, random_start=False))
    # The same path, of which PGD returns the end.
    assert (one >= last - 1e-6).all() and (one > last + 1e-6).any()


def test_steps_beat_a_single_step_and_both_beat_noise():
    iterated, single = margins(BestPGD(budget=0.05, steps=40)), margins(FGSM(budget=0.05))
    noisy = margins(Noise(budget=0.05, draws=40))
    assert iterated.mean() > single.mean() > noisy.mean()
    assert (iterated >= noisy).all()


@pytest.mark.parametrize("attack", [Square(budget=0.05, queries=300), SPSA(budget=0.05, steps=9, samples=32)])
def test_attacks_on_scores_beat_noise_of_as_many_passes_on_every_image(attack):
    noisy = margins(Noise(budget=0.05, draws=attack.passes.forward))
    found = margins(attack)
    assert (found > noisy).all()
    assert found.mean() < margins(BestPGD(budget=0.05, steps=40)).mean(), "and stay below the gradient's"


def test_more_queries_and_more_draws_are_never_worse():
    few, many = margins(Noise(budget=0.05, draws=5)), margins(Noise(budget=0.05, draws=20))
    assert (many >= few).all()
    assert margins(Square(budget=0.05, queries=200)).mean() > margins(Square(budget=0.05, queries=20)).mean()


def test_l2_attacks_beat_noise_of_the_same_length():
    assert (margins(APGD(budget=0.3, steps=20, norm="l2")) > margins(Noise(budget=0.3, draws=40, norm="l2"))).all()


def test_squares_shrink_along_the_papers_schedule():
    # 0.8 of 100 x 100 pixels, halved behind 10, 50, 200, ... of 10,000 queries.
    sides = [side_length(query, 10000, 100, 100) for query in (1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert sides == [89, 63, 45, 32, 22, 16, 11, 8, 6, 4]
    assert side_length(1, 100, 10, 200) == 10, "a square never leaves the image"
