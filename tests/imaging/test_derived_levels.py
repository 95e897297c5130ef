"""Which stored levels a pixel may take, and what becomes of fractions of a level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.imaging import Presentation
from pipeline.imaging.levels import dither_noise, reachable_levels, whole_levels


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, Presentation]:
    bits, signed = draw(st.integers(2, 16)), draw(st.booleans())
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    ends = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    padding = draw(st.sampled_from([None, (float(ends[0]), float(ends[1]))]))
    values = draw(st.lists(st.integers(low, high), min_size=1, max_size=40))
    return np.array(values), Presentation(stored_range=(low, high), bits_stored=bits, padding=padding)


@given(picture=pictures(), budget=st.floats(0, 70000), seed=st.integers(0, 9), dithered=st.booleans())
def test_no_level_outside_budget_and_stored_bits_and_no_new_or_lost_padding(
    picture: tuple[np.ndarray, Presentation], budget: float, seed: int, dithered: bool
) -> None:
    values, presentation = picture
    lower, upper = reachable_levels(values, presentation, budget=budget)
    assert (lower <= values).all() and (values <= upper).all()
    wished = values + np.random.default_rng(seed).uniform(-budget, budget, values.shape)
    noise = dither_noise(values.shape, seed=seed) if dithered else None
    whole = whole_levels(wished, lower, upper, noise=noise)
    assert np.abs(whole - values).max() <= np.ceil(budget)
    assert presentation.stored_range[0] <= whole.min() and whole.max() <= presentation.stored_range[1]
    padded = presentation.padded(values)
    assert np.array_equal(presentation.padded(whole), padded) and np.array_equal(whole[padded], values[padded])


def test_a_value_beyond_the_stored_bits_stays() -> None:
    presentation = Presentation(stored_range=(0, 255), bits_stored=8)
    lower, upper = reachable_levels(np.array([300, 255]), presentation, budget=3)
    assert (lower.tolist(), upper.tolist()) == ([300, 252], [300, 255])


def test_bounds_of_the_padded_range() -> None:
    presentation = Presentation(stored_range=(0, 4095), bits_stored=12, padding=(10.0, 20.0))
    lower, upper = reachable_levels(np.array([8, 9, 10, 20, 21, 30]), presentation, budget=4)
    assert lower.tolist() == [4, 5, 10, 20, 21, 26]
    assert upper.tolist() == [9, 9, 10, 20, 25, 34]


@pytest.mark.parametrize("budget", [-1.0, float("nan")])
def test_a_negative_budget_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="grey levels from 0 on"):
        reachable_levels(np.array([1]), Presentation(stored_range=(0, 3), bits_stored=2), budget=budget)


@pytest.mark.parametrize("level", [12, 4000, 65000])
@pytest.mark.parametrize("change", [0.41, -0.41, 0.026, 1.3])
def test_rounding_loses_what_dithering_keeps_on_the_mean(level: int, change: float) -> None:
    count = 40_000
    values = np.full(count, level)
    bounds = values - 2, values + 2
    wished = (values + change).astype(np.float64)
    rounded = whole_levels(wished, *bounds) - level
    assert set(rounded.tolist()) == {round(change)}
    dithered = whole_levels(wished, *bounds, noise=dither_noise((count,), seed=1)) - level
    fraction = change - np.floor(change)
    spread = np.sqrt(fraction * (1 - fraction) / count)
    assert abs(dithered.mean() - change) < stats.norm.isf(1e-4) * spread
    assert np.array_equal(dithered, whole_levels(wished, *bounds, noise=dither_noise((count,), seed=1)) - level)
