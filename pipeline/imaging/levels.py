"""Stored grey levels that a pixel may be changed to: within a budget, inside the stored bits, never padding."""

from __future__ import annotations

import numpy as np

from pipeline.imaging.mammogram import Presentation


def reachable_levels(values: np.ndarray, presentation: Presentation, *, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest whole level that each pixel may take.

    A padded pixel stays as it is (PS3.3 C.7.5.1.1.2), and so does one outside the stored bits' range. Any other pixel
    stays on its side of the padded range. A budget below one level reaches the next level, see :func:`whole_levels`.

    Args:
        values: stored values, integers of any shape.
        presentation: gives the range of the stored bits and the padded values.
        budget: largest change in grey levels, 0 or more.

    Returns:
        Two arrays of int32 of the shape of ``values``; lower <= values <= upper.

    Raises:
        ValueError: a negative budget, or one that is not a number.
    """
    if not budget >= 0:
        raise ValueError(f"budget is {budget}; allowed are grey levels from 0 on")
    present = values.astype(np.int32)
    low, high = (int(end) for end in presentation.stored_range)
    most = int(np.ceil(min(budget, high - low)))
    lower, upper = np.maximum(present - most, low), np.minimum(present + most, high)
    fixed = (present < low) | (present > high)
    if presentation.padding is not None:
        first, last = (int(end) for end in presentation.padding)
        lower = np.where(present > last, np.maximum(lower, last + 1), lower)
        upper = np.where(present < first, np.minimum(upper, first - 1), upper)
        fixed |= (present >= first) & (present <= last)
    return np.where(fixed, present, lower), np.where(fixed, present, upper)


def dither_noise(shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """Thresholds in [0, 1) for :func:`whole_levels`, float32, the same for the same seed."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def whole_levels(
    values: np.ndarray, lower: np.ndarray, upper: np.ndarray, *, noise: np.ndarray | None = None
) -> np.ndarray:
    """Round wished-for values to whole levels inside their bounds.

    Without noise to the nearest level, so that a change of less than half a level is lost. With noise, dithered: a
    value goes up to the next level with a probability equal to its fraction, so that the mean over many pixels survives
    (Roberts 1962, "Picture coding using pseudo-random noise").

    Args:
        values: wished-for stored values, floating.
        lower: lowest level of each pixel.
        upper: highest level of each pixel.
        noise: thresholds in [0, 1), see :func:`dither_noise`; None rounds plainly.

    Returns:
        int32 of the shape of ``values``.
    """
    if noise is None:
        whole = np.rint(values)
    else:
        # The fraction alone meets the noise: added to a value of 16 bits, float32 would round it.
        whole = np.floor(values)
        whole += values - whole > noise
    return np.clip(whole.astype(np.int32), lower, upper)
