"""Random fields with a power-law spectrum, and smooth enlargement: the raw material of simulated tissue."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft

__all__ = ["MAMMOGRAPHIC_EXPONENT", "enlarge", "power_law_field"]

# Power spectra of mammograms fall as 1 / f ** 3: Burgess, Jacobson, Judy, Med. Phys. 28:419 (2001), mean 2.8 to 3.0.
MAMMOGRAPHIC_EXPONENT = 3.0


def power_law_field(
    generator: np.random.Generator, shape: tuple[int, int], *, exponent: float = MAMMOGRAPHIC_EXPONENT
) -> np.ndarray:
    """Gaussian field whose power spectrum falls as 1 / frequency ** exponent.

    Made on a periodic grid of a length that the FFT likes and cut to `shape`, so that opposite edges do not match.

    Args:
        generator: source of randomness.
        shape: (rows, columns).
        exponent: of the power spectrum (the amplitude has half of it).

    Returns:
        float32 (rows, columns), mean 0, standard deviation 1.
    """
    rows, columns = (fft.next_fast_len(int(length * 1.1) + 1, real=True) for length in shape)
    amplitude = _amplitude(rows, columns, exponent)
    draws = generator.standard_normal((*amplitude.shape, 2), dtype=np.float32)
    spectrum = draws.view(np.complex64)[..., 0] * amplitude
    field = fft.irfft2(spectrum, s=(rows, columns), overwrite_x=True)[: shape[0], : shape[1]]
    field -= field.mean()
    return field / field.std()


@lru_cache(maxsize=16)
def _amplitude(rows: int, columns: int, exponent: float) -> np.ndarray:
    """Amplitude by frequency on the half plane of a real FFT; the mean gets none."""
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    frequency[0, 0] = np.inf
    amplitude = (frequency ** (-exponent / 2)).astype(np.float32)
    amplitude.flags.writeable = False  # shared between calls
    return amplitude


def enlarge(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear enlargement that keeps the centres of the outer edges (half-pixel convention), float32."""
    for axis, length in enumerate(shape):
        source = array.shape[axis]
        position = np.clip((np.arange(length) + 0.5) * (source / length) - 0.5, 0, source - 1)
        below = np.minimum(position.astype(np.intp), max(source - 2, 0))
        weight = (position - below).astype(np.float32)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        above = np.minimum(below + 1, source - 1)
        array = np.take(array, below, axis=axis) * (1 - weight) + np.take(array, above, axis=axis) * weight
    return array.astype(np.float32, copy=False)
