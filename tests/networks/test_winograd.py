"""Winograd's filtering against the definition of a convolution."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.networks import tile_loops, winograd
from pipeline.networks.kernels import Maps, WinogradKernel, empty_mask
from pipeline.networks.scratch import Scratch

SIZES = st.integers(1, 19)


def test_the_matrices_give_a_correlation_of_four_outputs():
    a, g, b = winograd.matrices()
    generator = np.random.default_rng(0)
    for _ in range(20):
        filters, inputs = generator.standard_normal(3), generator.standard_normal(6)
        expected = np.correlate(inputs, filters, mode="valid")
        np.testing.assert_allclose(a @ ((g @ filters) * (b @ inputs)), expected, rtol=1e-12, atol=1e-12)


def test_the_compiled_loops_apply_these_matrices():
    a, _, b = winograd.matrices()
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((1, 8, 8, 5)).astype(np.float32)  # one tile, framed
    tiles, strips = np.zeros((36, 1, 5), np.float32), np.zeros((1, 1, 2, 6, 5), np.float32)
    place = (0, 1, 0, 1, 1)
    tile_loops.input_tiles(maps, tiles, *place)
    patch = maps[0, :6, :6].astype(float)
    expected = np.einsum("iy,jx,yxc->ijc", b, b, patch)
    np.testing.assert_allclose(tiles.reshape(6, 6, 5), expected, rtol=1e-5, atol=1e-5)

    back = np.full((1, 8, 8, 5), np.nan, np.float32)
    tile_loops.input_gradient(tiles, back, strips, *place, False)
    expected = np.einsum("iy,jx,ijc->yxc", b, b, tiles.reshape(6, 6, 5).astype(float))
    np.testing.assert_allclose(back[0, :6, :6], expected, rtol=1e-4, atol=1e-4)

    out, mask = np.zeros((1, 8, 8, 5), np.float32), np.zeros((1, 1, 1, 5), np.uint16)
    bias = np.full(5, 100, np.float32)  # nothing is cut off by the ReLU
    tile_loops.output_tiles(tiles, bias, out, mask, True, *place, 4, 4, False)
    expected = np.einsum("yi,xj,ijc->yxc", a, a, tiles.reshape(6, 6, 5).astype(float)) + 100
    np.testing.assert_allclose(out[0, 1:5, 1:5], expected, rtol=1e-5)
    assert (mask == 0xFFFF).all()

    tile_loops.output_gradient(out, mask, tiles, *place, False)
    expected = np.einsum("yi,xj,yxc->ijc", a, a, out[0, 1:5, 1:5].astype(float))
    np.testing.assert_allclose(tiles.reshape(6, 6, 5), expected, rtol=1e-4, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(SIZES, SIZES, st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**20))
def test_backward_is_the_transpose_of_forward(height, width, count, inputs, outputs, seed):
    # <A x, y> = <x, A' y>, with a bias that keeps every ReLU open and is then taken away.
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)
    conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
    conv.bias.fill_(1000.0)
    kernel = WinogradKernel(conv, winograd.tile_bytes(inputs + outputs) * 2 * -(-width // 4))
    scratch = Scratch()
    source, back = (Maps(scratch, name, count, height, width, inputs) for name in ("source", "back"))
    target = Maps(scratch, "target", count, height, width, outputs)
    values = torch.randn(count, height, width, inputs, generator=generator)
    source.image.copy_(values)
    source.frame()
    mask = empty_mask(count, height, width, outputs)
    kernel.forward(source, target, False, mask, scratch)
    result = target.image.double() - 1000

    gradients = torch.randn(result.shape, generator=generator)
    target.data.fill_(torch.nan)
    target.image.copy_(gradients)
    kernel.adjoint(target, mask, back, False, scratch)
    left, right = (result * gradients).sum(), (values.double() * back.image).sum()
    assert abs(left - right) <= 1e-3 * result.norm() * gradients.norm() + 1e-2


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
