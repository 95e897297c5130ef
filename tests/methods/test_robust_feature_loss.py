"""Eq. 1 against NumPy, its range, its signed variant, and its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.methods import feature_shares, robust_feature_loss
from pipeline.methods.robust_feature import robust_feature_rows


def maps(seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(4, 3, 5, 6))


LABELS = np.array([0, 1, 1, 0])


def eq_1(features: np.ndarray, labels: np.ndarray, *, signed: bool) -> float:
    """One image at a time, one position at a time, as the paper prints it; channels averaged like positions."""
    losses = []
    for f, label in zip(features, labels, strict=True):
        y = 1 if label == 1 else -1
        responses = [value * y if signed else abs(value * y) for value in f.ravel()]
        losses.append(-sum(0.5 * (1 + np.tanh(response / 2)) for response in responses) / f.size)
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("correlation", "signed"), [("absolute", False), ("signed", True)])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_equation_1_against_numpy(correlation: str, signed: bool, shape: tuple) -> None:
    labels = torch.from_numpy(LABELS).reshape(shape)
    ours = robust_feature_loss(torch.from_numpy(maps()), labels, correlation=correlation)
    assert float(ours) == pytest.approx(eq_1(maps(), LABELS, signed=signed), rel=1e-6)


def test_the_default_is_the_papers_absolute_value_where_the_label_drops_out() -> None:
    features = torch.from_numpy(maps())
    ours = robust_feature_loss(features, torch.from_numpy(LABELS))
    assert float(ours) == pytest.approx(eq_1(maps(), LABELS, signed=False), rel=1e-6)
    assert torch.equal(ours, robust_feature_loss(features, torch.from_numpy(1 - LABELS)))
    assert torch.equal(ours, robust_feature_loss(-features, torch.from_numpy(LABELS)))


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 100))
def test_range_is_minus_one_to_minus_a_half_and_signed_minus_one_to_zero(seed: int, scale: float) -> None:
    features, labels = torch.from_numpy(maps(seed, scale)), torch.from_numpy(LABELS)
    assert -1 <= robust_feature_loss(features, labels) <= -0.5
    assert -1 <= robust_feature_loss(features, labels, correlation="signed") <= 0


def test_closed_form_at_zero_and_far_out() -> None:
    ones = torch.ones(2)
    assert robust_feature_loss(torch.zeros(2, 1, 2, 2), ones) == -0.5
    assert robust_feature_loss(torch.full((2, 1, 2, 2), -100.0), ones) == -1
    assert robust_feature_loss(torch.full((2, 1, 2, 2), -100.0), ones, correlation="signed") == pytest.approx(0.0)


@pytest.mark.parametrize("correlation", ["absolute", "signed"])
def test_gradient_against_finite_differences(correlation: str) -> None:
    features, labels, step = maps(), torch.from_numpy(LABELS), 1e-4
    tensor = torch.from_numpy(features).requires_grad_(True)
    robust_feature_loss(tensor, labels, correlation=correlation).backward()
    for position in [(0, 0, 0, 0), (1, 2, 3, 4), (2, 1, 4, 5), (3, 0, 2, 1)]:
        up, down = features.copy(), features.copy()
        up[position] += step
        down[position] -= step
        signed = correlation == "signed"
        slope = (eq_1(up, LABELS, signed=signed) - eq_1(down, LABELS, signed=signed)) / (2 * step)
        assert float(tensor.grad[position]) == pytest.approx(slope, rel=1e-4)
    strongest = tensor.grad.abs().max() * features.size  # sigmoid's slope is 1/4 at most
    assert 0.2 < strongest <= 0.25 + 1e-6


def test_rows_are_independent_and_float32_from_half_precision() -> None:
    features, labels = torch.from_numpy(maps()), torch.from_numpy(LABELS)
    rows = robust_feature_rows(features.bfloat16(), labels)
    assert rows.dtype == torch.float32 and rows.shape == (4,)
    assert torch.equal(rows[2:3], robust_feature_rows(features[2:3].bfloat16(), labels[2:3]))


def test_shares_count_what_they_say() -> None:
    features = torch.tensor([[[[1.0, -1.0, 11.0, -12.0]], [[-1.0, -2.0, 0.0, -3.0]]]])  # (1, 2, 1, 4)
    shares = feature_shares(features)
    assert [float(s) for s in shares] == [2 / 8, 5 / 8, 2 / 8, 1 / 2]


@pytest.mark.parametrize(
    ("features", "labels", "settings", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2), {}, r"shape \(2, 3\); expected \(N, C, H, W\)"),
        (torch.zeros(2, 3, 1, 1), torch.zeros(3), {}, "3 labels for 2 feature maps"),
        (torch.zeros(2, 3, 1, 1), torch.zeros(2), {"correlation": "both"}, "allowed are 'absolute' and 'signed'"),
    ],
)
def test_input_that_does_not_fit_is_refused(features, labels, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        robust_feature_loss(features, labels, **settings)
