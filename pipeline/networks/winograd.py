"""Winograd's minimal filtering F(4 x 4, 3 x 3) as batched matrix products (Lavin and Gray, CVPR 2016).

A 3 x 3 convolution of stride 1 computes each 4 x 4 tile of outputs from a 6 x 6 tile of inputs with 36 products per
pair of channels instead of 144. Filters are transformed once; a tile then goes through three matrix products:
``output = A' [(G g G') * (B' d B)] A``, with the product in the middle summed over input channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.networks.scratch import Scratch

TILE = 4
# Products of fewer tiles than this go through other routines of MKL and round otherwise; the result for an image would
# depend on how many others it comes with.
LEAST = 4
INPUT_TILE = 6
# Interpolation points beside 0 and infinity. Their powers up to the fourth are exact in float32, and on feature maps of
# VGG16 the rounding error is half of that with the usual 1, -1, 2, -2.
POINTS = (0.75, -0.75, 1.5, -1.5)


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A' (4, 6), G (6, 3) and B' (6, 6) in float64, for one dimension (Toom and Cook's construction)."""
    points = np.array([0.0, *POINTS])
    count = len(points)
    a = np.zeros((TILE, count + 1))
    g = np.zeros((count + 1, 3))
    b = np.zeros((count + 1, INPUT_TILE))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        a[:, j] = point ** np.arange(TILE)
        g[j] = point ** np.arange(3) / np.prod(point - others)
        b[j, :count] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(points)[::-1]
    return a, g, b


_A, _G, _B = matrices()
OUTPUT_TRANSFORM = torch.from_numpy(np.kron(_A, _A)).float()  # (16, 36)
# A 37th product, the bias, is added to all 16 outputs in passing.
OUTPUT_TRANSFORM_WITH_BIAS = torch.cat([OUTPUT_TRANSFORM, torch.ones(16, 1)], dim=1)
FILTER_TRANSFORM = torch.from_numpy(np.kron(_G, _G)).float()  # (36, 9)
INPUT_TRANSFORM = torch.from_numpy(np.kron(_B, _B)).float()  # (36, 36)


class WinogradFilters:
    """Transformed filters of one convolution; the transposed map shares them.

    Args:
        weight: (K, C, 3, 3), float32 on the CPU.
        bias: (K,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        outputs, inputs = weight.shape[:2]
        spatial = weight.detach().permute(2, 3, 1, 0).reshape(9, inputs * outputs)
        self.weight = (FILTER_TRANSFORM @ spatial).view(36, inputs, outputs)
        self.bias = bias.detach().clone()
        self.inputs = inputs
        self.outputs = outputs

    def tile_bytes(self) -> int:
        """Bytes of one tile in the transformed domain, inputs and outputs together."""
        return 36 * 4 * (self.inputs + self.outputs)

    def forward(self, tiles: Tensor, scratch: Scratch) -> Tensor:
        """Convolve.

        Args:
            tiles: (T, 36, C), contiguous: 6 x 6 input tiles.
            scratch: where intermediate values go.

        Returns:
            (T, 16, K), in scratch: 4 x 4 output tiles.
        """
        count = len(tiles)
        room = max(count, LEAST)
        inputs = scratch.get("inputs", room, 36, self.inputs)
        torch.bmm(INPUT_TRANSFORM.expand(count, 36, 36), tiles, out=inputs[:count])
        products = scratch.get("products", 37, room, self.outputs)
        torch.bmm(inputs.transpose(0, 1), self.weight, out=products[:36])
        products[36] = self.bias
        outputs = scratch.get("tiles", count, 16, self.outputs)
        torch.bmm(OUTPUT_TRANSFORM_WITH_BIAS.expand(count, 16, 37), products[:, :count].transpose(0, 1), out=outputs)
        return outputs

    def adjoint(self, tiles: Tensor, scratch: Scratch) -> Tensor:
        """Transpose of `forward`.

        Args:
            tiles: (T, 16, K), contiguous: gradients of 4 x 4 output tiles.
            scratch: where intermediate values go.

        Returns:
            (T, 36, C), in scratch: gradients of 6 x 6 input tiles, to be added where they overlap.
        """
        count = len(tiles)
        room = max(count, LEAST)
        outputs = scratch.get("inputs", room, 36, self.outputs)
        torch.bmm(OUTPUT_TRANSFORM.t().expand(count, 36, 16), tiles, out=outputs[:count])
        products = scratch.get("products", 36, room, self.inputs)
        torch.bmm(outputs.transpose(0, 1), self.weight.transpose(1, 2), out=products)
        inputs = scratch.get("gradients", count, 36, self.inputs)
        torch.bmm(INPUT_TRANSFORM.t().expand(count, 36, 36), products[:, :count].transpose(0, 1), out=inputs)
        return inputs


def tile_chunks(images: int, rows: int, columns: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Cut a grid of tiles into chunks of at most `limit` tiles: slices of images and of tile rows, bottom rows first.

    At least one row of tiles is in a chunk. The transposed map adds into rows below its own, which bottom-up order has
    written before.
    """
    whole = limit // (rows * columns)
    if whole >= 1:
        for first in range(0, images, whole):
            yield slice(first, min(first + whole, images)), slice(0, rows)
        return
    step = max(1, limit // columns)
    step = -(-rows // -(-rows // step))  # even out the chunks
    for image in range(images):
        for last in range(rows, 0, -step):
            yield slice(image, image + 1), slice(max(0, last - step), last)


def overlapping_tiles(padded: Tensor, rows: int, columns: int) -> Tensor:
    """6 x 6 tiles at distance 4 of maps (n, >= 4 rows + 2, >= 4 columns + 2, C).

    Returns:
        View (n, rows, columns, 6, 6, C).
    """
    n, _, _, channels = padded.shape
    image, row, column, channel = padded.stride()
    shape = (n, rows, columns, INPUT_TILE, INPUT_TILE, channels)
    stride = (image, TILE * row, TILE * column, row, column, channel)
    return padded.as_strided(shape, stride, padded.storage_offset())


def distinct_tiles(maps: Tensor, rows: int, columns: int, size: int = TILE) -> Tensor:
    """`size` x `size` tiles side by side of maps (n, >= size rows, >= size columns, C), as a view
    (n, rows, columns, size, size, C)."""
    n, _, _, channels = maps.shape
    image, row, column, channel = maps.stride()
    shape = (n, rows, columns, size, size, channels)
    return maps.as_strided(shape, (image, size * row, size * column, row, column, channel), maps.storage_offset())


def add_overlapping(tiles: Tensor, padded: Tensor, first_row: int) -> None:
    """Add 6 x 6 tiles (n, rows, columns, 6, 6, C) into padded maps from tile row `first_row` on.

    The maps' rows of these tiles are written, the two rows and columns behind them added to.
    """
    _, rows, columns, _, _, _ = tiles.shape
    here = padded[:, TILE * first_row :]
    distinct_tiles(here, rows, columns).copy_(tiles[:, :, :, :TILE, :TILE])
    last = slice(TILE, INPUT_TILE)
    for part, source in (
        (here[:, TILE:], tiles[:, :, :, last, :TILE]),
        (here[:, :, TILE:], tiles[:, :, :, :TILE, last]),
        (here[:, TILE:, TILE:], tiles[:, :, :, last, last]),
    ):
        n, _, _, height, width, channels = source.shape
        image, row, column, channel = part.stride()
        view = part.as_strided(
            (n, rows, columns, height, width, channels),
            (image, TILE * row, TILE * column, row, column, channel),
            part.storage_offset(),
        )
        view.add_(source)
