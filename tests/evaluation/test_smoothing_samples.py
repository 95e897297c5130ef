"""Draws of a smoothed exam: the plain Gaussian, pooled as the tables are, and the same in every batch."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from pipeline.evaluation.smoothing import ExamImages, pool_views, smoothing_samples
from pipeline.statistics import pool_patients


class Sum(nn.Module):
    """z = w . x + bias: under noise exactly Gaussian, with standard deviation sigma |w|."""

    def __init__(self, weight: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.drop = nn.Dropout(0.5)
        self.bias = bias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.weight * images.sum(dim=(1, 2, 3)) + self.bias)[:, None]


def exam(name: str = "p-1", *, views: int = 4, side: int = 6, value: float = 0.5) -> ExamImages:
    return ExamImages(name, torch.full((views, 1, side, side), value), tuple("LLRR"[:views]))


@given(
    draws=st.lists(st.lists(st.floats(-9, 9), min_size=4, max_size=4), min_size=1, max_size=4),
    breasts=st.lists(st.tuples(st.sampled_from(["", "e2"]), st.sampled_from("LR")), min_size=4, max_size=4),
    within=st.sampled_from(["mean", "max"]),
    across=st.sampled_from(["mean", "max"]),
)
def test_pooling_of_draws_is_the_pooling_of_tables(draws: list, breasts: list, within: str, across: str) -> None:
    pooled = pool_views(np.array(draws), breasts, within_breast=within, across_breasts=across)
    for logits, value in zip(draws, pooled, strict=True):
        rows = [
            {"patient_id": "p", "patient_label": 0, "attack_id": "clean", "study_id": study, "laterality": side}
            | {"logit": logit}
            for (study, side), logit in zip(breasts, logits, strict=True)
        ]
        table = pool_patients(pd.DataFrame(rows), within_breast=within, across_breasts=across)
        assert value == pytest.approx(table["logit"].iloc[0], abs=1e-12)


def test_noise_is_the_plain_gaussian_not_clipped_on_all_views_independently() -> None:
    # One view per breast and a mean over breasts: the patient's logit is Gaussian with a known mean and spread.
    images = ExamImages("p-1", torch.ones(2, 1, 6, 6), ("L", "R"))  # white: a clip to [0, 1] would bend it down
    logits = smoothing_samples(Sum(), [images], sigma=0.3, n=4000, across_breasts="mean")[0]
    spread = 0.3 * math.sqrt(36 / 2)
    assert stats.kstest(logits, "norm", args=(36.0, spread)).pvalue > 0.01


def test_noise_depends_on_seed_and_patient_alone() -> None:
    together = smoothing_samples(Sum(), [exam("a"), exam("b")], sigma=0.1, n=9, seed=3)
    apart = smoothing_samples(Sum(), [exam("b")], sigma=0.1, n=5, seed=3, batch_size=1)
    assert np.allclose(together[1, :5], apart[0], atol=1e-5)
    for size in (3, 7, 100):
        again = smoothing_samples(Sum(), [exam("a"), exam("b")], sigma=0.1, n=9, seed=3, batch_size=size)
        assert np.allclose(again, together, atol=1e-5)
    assert not np.allclose(together[0], together[1])
    assert not np.allclose(smoothing_samples(Sum(), [exam("a")], sigma=0.1, n=9, seed=4)[0], together[0])


def test_the_network_runs_without_dropout_and_comes_back_as_it_was() -> None:
    network = Sum().train()
    logits = smoothing_samples(network, [exam()], sigma=1e-9, n=3)
    assert np.allclose(logits, 18.0, atol=1e-4)
    assert network.training and network.weight.requires_grad and network.weight.grad is None


def test_exams_are_taken_one_at_a_time() -> None:
    alive: list[int] = []

    def stream():
        for number in range(5):
            alive.append(number)
            yield exam(f"p-{number}")

    rows = smoothing_samples(Sum(), stream(), sigma=0.1, n=2)
    assert rows.shape == (5, 2) and alive == [0, 1, 2, 3, 4]
    assert smoothing_samples(Sum(), [], sigma=0.1, n=2).shape == (0, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma is 0.0; allowed are numbers above 0"),
        ({"n": 0}, "n is 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"within_breast": "median"}, "within_breast is 'median'; allowed are"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smoothing_samples(Sum(), [exam()], **{"sigma": 0.1, "n": 2, **settings})


def test_an_exam_without_a_breast_for_every_view_is_refused() -> None:
    with pytest.raises(ValueError, match="one breast per view"):
        ExamImages("p-1", torch.zeros(2, 1, 4, 4), ("L",))
