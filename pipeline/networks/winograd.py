"""Winograd's minimal filtering F(4 x 4, 3 x 3) as batched matrix products (Lavin and Gray, CVPR 2016).

A 3 x 3 convolution of stride 1 computes each 4 x 4 tile of outputs from a 6 x 6 tile of inputs with 36 products per
pair of channels instead of 144: ``output = A' [(G g G') * (B' d B)] A``, with the product in the middle summed over
input channels. Filters are transformed once; the transforms of tiles are in `tile_loops`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

TILE = 4
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


_FILTER_TRANSFORM = torch.from_numpy(np.kron(matrices()[1], matrices()[1])).float()  # (36, 9)


def transform_filters(weight: Tensor) -> Tensor:
    """Filters (K, C, 3, 3) to (36, C, K): G g G'. The transposed map shares them."""
    outputs, inputs = weight.shape[:2]
    spatial = weight.detach().permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return (_FILTER_TRANSFORM @ spatial).view(36, inputs, outputs)


def tile_bytes(channels: int) -> int:
    """Bytes of one transformed tile of so many channels."""
    return INPUT_TILE**2 * 4 * channels


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
