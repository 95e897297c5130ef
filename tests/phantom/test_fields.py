"""Fields have the spectrum they are asked for; enlargement agrees with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.phantom.anatomy import BreastShape, outline_of
from pipeline.phantom.fields import enlarge, power_law_field
from pipeline.phantom.tissue import draw_tissue


def spectral_exponent(picture: np.ndarray, low: float, high: float) -> float:
    """Exponent of the radially averaged power spectrum between two frequencies in cycles per pixel."""
    window = np.hanning(picture.shape[0])[:, None] * np.hanning(picture.shape[1])[None, :]
    power = np.abs(np.fft.fft2((picture - picture.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(picture.shape[0])[:, None], np.fft.fftfreq(picture.shape[1])[None, :])
    edges = np.geomspace(low, high, 9)
    means = [power[(frequency >= a) & (frequency < b)].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return -np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(means), 1)[0]


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_the_power_spectrum_falls_with_the_exponent(exponent: float) -> None:
    generator = np.random.default_rng(1)
    found = [
        spectral_exponent(power_law_field(generator, (300, 250), exponent=exponent), 0.03, 0.4) for _ in range(4)
    ]  # fmt: skip
    assert np.mean(found) == pytest.approx(exponent, abs=0.1)


def test_fields_are_standardised_and_not_periodic() -> None:
    field = power_law_field(np.random.default_rng(2), (200, 160))
    assert field.dtype == np.float32
    assert abs(field.mean()) < 1e-4
    assert field.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(field[0] - field[-1]).mean() > 5 * np.abs(field[0] - field[1]).mean()


@pytest.mark.parametrize("shape", [(40, 32), (41, 33), (100, 80)])
def test_enlargement_agrees_with_scipy(shape: tuple[int, int]) -> None:
    small = np.random.default_rng(3).normal(size=(20, 16)).astype(np.float32)
    factors = (shape[0] / 20, shape[1] / 16)
    expected = ndimage.zoom(small, factors, order=1, mode="nearest", grid_mode=True)
    assert np.abs(enlarge(small, shape) - expected).max() < 1e-5


def test_tissue_has_the_power_law_of_mammograms() -> None:
    shape = BreastShape(depth_mm=110, height_mm=175, thickness_mm=55, density=0.45)
    found = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        outlined = outline_of(shape, view="CC", generator=generator, grid=(500, 400), spacing=0.48)
        pixels, _ = draw_tissue(shape, outlined, generator=generator, grid=(1000, 800), spacing=0.24)
        found.append(spectral_exponent(pixels[372:628, 20:276], 0.02, 0.2))  # 0.08 to 0.8 cycles per mm
    assert np.mean(found) == pytest.approx(3.0, abs=0.3)
