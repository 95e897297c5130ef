"""Winograd's filtering against the definition of a convolution."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.networks import winograd
from pipeline.networks.scratch import Scratch
from pipeline.networks.winograd import WinogradFilters

SIZES = st.integers(1, 19)


def test_the_matrices_give_a_correlation_of_four_outputs():
    a, g, b = winograd.matrices()
    generator = np.random.default_rng(0)
    for _ in range(20):
        filters, inputs = generator.standard_normal(3), generator.standard_normal(6)
        expected = np.correlate(inputs, filters, mode="valid")
        np.testing.assert_allclose(a @ ((g @ filters) * (b @ inputs)), expected, rtol=1e-12, atol=1e-12)


def test_input_and_output_transforms_are_exact_in_float32():
    a, _, b = winograd.matrices()
    assert np.array_equal(np.kron(a, a), winograd.OUTPUT_TRANSFORM.double().numpy())
    assert np.array_equal(np.kron(b, b), winograd.INPUT_TRANSFORM.double().numpy())


def padded(count, height, width, channels, seed):
    rows, columns = -(-height // 4), -(-width // 4)
    maps = torch.zeros(count, 4 * rows + 2, 4 * columns + 2, channels)
    generator = torch.Generator().manual_seed(seed)
    maps[:, 1 : 1 + height, 1 : 1 + width] = torch.randn(count, height, width, channels, generator=generator)
    return maps, rows, columns


def convolve(filters, maps, rows, columns):
    """(n, 4 rows, 4 columns, K) from padded maps, chunk by chunk of two tile rows."""
    count, scratch = len(maps), Scratch()
    out = torch.full((count, 4 * rows, 4 * columns, filters.outputs), torch.nan)
    source = winograd.overlapping_tiles(maps, rows, columns)
    target = winograd.distinct_tiles(out, rows, columns)
    for images, tile_rows in winograd.tile_chunks(count, rows, columns, 2 * columns):
        chunk = source[images, tile_rows]
        tiles = chunk.contiguous().view(-1, 36, filters.inputs)
        target[images, tile_rows] = filters.forward(tiles, scratch).view(target[images, tile_rows].shape)
    return out


def transpose(filters, gradients, rows, columns):
    count, scratch = len(gradients), Scratch()
    out = torch.full((count, 4 * rows + 2, 4 * columns + 2, filters.inputs), torch.nan)
    out[:, 4 * rows :] = 0
    out[:, :, 4 * columns :] = 0
    source = winograd.distinct_tiles(gradients, rows, columns)
    for images, tile_rows in winograd.tile_chunks(count, rows, columns, 2 * columns):
        chunk = source[images, tile_rows]
        result = filters.adjoint(chunk.contiguous().view(-1, 16, filters.outputs), scratch)
        tiles = result.view(*chunk.shape[:3], 6, 6, filters.inputs)
        winograd.add_overlapping(tiles, out[images], tile_rows.start)
    return out


@settings(deadline=None, max_examples=40)
@given(SIZES, SIZES, st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**20))
def test_convolution_equals_the_direct_one_and_its_transpose_is_one(height, width, count, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    filters = WinogradFilters(weight, bias)
    maps, rows, columns = padded(count, height, width, inputs, seed)
    result = convolve(filters, maps, rows, columns)
    exact = torch.nn.functional.conv2d(maps.double().permute(0, 3, 1, 2), weight.double(), bias.double())
    exact = exact.permute(0, 2, 3, 1)
    assert (result - exact).norm() <= 1e-5 * exact.norm()

    gradients = torch.randn(result.shape, generator=generator)
    back = transpose(filters, gradients, rows, columns).double()
    assert torch.isfinite(back).all()
    # <A x, y> = <x, A' y>, without the bias
    left = ((exact - bias.double()) * gradients.double()).sum()
    right = (maps.double() * back).sum()
    scale = (exact - bias.double()).norm() * gradients.double().norm()
    assert abs(left - right) <= 1e-5 * scale


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 200))
def test_chunks_cover_every_tile_once_from_below(images, rows, columns, limit):
    seen = torch.zeros(images, rows, dtype=torch.int)
    lowest = {image: rows for image in range(images)}
    for part, tile_rows in winograd.tile_chunks(images, rows, columns, limit):
        seen[part, tile_rows] += 1
        size = (part.stop - part.start) * (tile_rows.stop - tile_rows.start) * columns
        assert size <= max(limit, columns)
        for image in range(part.start, part.stop):
            assert tile_rows.stop == lowest[image]
            lowest[image] = tile_rows.start
    assert (seen == 1).all()
