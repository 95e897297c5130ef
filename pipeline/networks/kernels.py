"""Layers of the frozen engine: convolution, ReLU and pooling on framed maps in NHWC, forward and transposed."""

from __future__ import annotations

import copy
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks import grey_loops, tile_loops
from pipeline.networks.scratch import Scratch
from pipeline.networks.winograd import INPUT_TILE, TILE, tile_bytes, tile_chunks, transform_filters


class Maps:
    """Feature maps in NHWC with a frame: the image lies at [1 : 1 + height, 1 : 1 + width] of `data`.

    There is room for whole tiles, and for two pixels more: the pooled tiles of a map of odd size reach into them.
    """

    def __init__(self, scratch: Scratch, name: str, count: int, height: int, width: int, channels: int) -> None:
        self.height = height
        self.width = width
        self.rows, self.columns = tile_grid(height, width)
        self.data = scratch.get(name, count, TILE * self.rows + 4, TILE * self.columns + 4, channels)

    def part(self, images: slice) -> Maps:
        """The same maps of some images."""
        part = copy.copy(self)
        part.data = self.data[images]
        return part

    @property
    def image(self) -> Tensor:
        return self.data[:, 1 : 1 + self.height, 1 : 1 + self.width]

    def frame(self, value: float = 0.0) -> None:
        """Set everything around the image to `value`, as far as tiles reach."""
        bottom, right = TILE * self.rows + 2, TILE * self.columns + 2
        self.data[:, 0, :right] = value
        self.data[:, 1 + self.height : bottom, :right] = value
        self.data[:, 1 : 1 + self.height, 0] = value
        self.data[:, 1 : 1 + self.height, 1 + self.width : right] = value


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover a map."""
    return -(-height // TILE), -(-width // TILE)


def empty_mask(count: int, height: int, width: int, channels: int) -> Tensor:
    """Room for what backward needs of a layer: uint16 (N, rows, columns, K), a bit for each output."""
    return torch.empty((count, *tile_grid(height, width), channels), dtype=torch.uint16, device="cpu")


class Kernel(Protocol):
    """What a layer's convolution does on `Maps`; one instance per version of its weights."""

    def forward(self, source: Maps, target: Maps, pool: bool, mask: Tensor | None, scratch: Scratch) -> None:
        """Write ReLU and pooling of the convolution of `source` to `target`, and which outputs passed to `mask`."""

    def adjoint(self, gradient: Maps, mask: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        """Write the gradient of the layer's input to `target`, from that of its output."""


class WinogradKernel:
    """Any layer but the first.

    Args:
        conv: 3 x 3, float32 on the CPU.
        chunk_bytes: transformed tiles that are worked on at once.
    """

    def __init__(self, conv: nn.Conv2d, chunk_bytes: int) -> None:
        self.filters = transform_filters(conv.weight)
        self.bias = bias_of(conv).clone().numpy()
        self.inputs, self.outputs = conv.in_channels, conv.out_channels
        self.chunk_tiles = max(1, chunk_bytes // tile_bytes(self.inputs + self.outputs))

    def forward(self, source: Maps, target: Maps, pool: bool, mask: Tensor | None, scratch: Scratch) -> None:
        maps, out = source.data.numpy(), target.data.numpy()
        kept = no_mask(len(maps)) if mask is None else mask.numpy()
        for images, rows in tile_chunks(len(maps), source.rows, source.columns, self.chunk_tiles):
            place = (images.start, images.stop - images.start, rows.start, rows.stop - rows.start, source.columns)
            room = place[1] * place[3] * place[4]
            inputs = scratch.get("inputs", 36, room, self.inputs)
            tile_loops.input_tiles(maps, inputs.numpy(), *place)
            products = scratch.get("products", 36, room, self.outputs)
            torch.bmm(inputs, self.filters, out=products)
            tile_loops.output_tiles(
                products.numpy(), self.bias, out, kept, mask is not None, *place, source.height, source.width, pool
            )

    def adjoint(self, gradient: Maps, mask: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        behind, kept, out = gradient.data.numpy(), mask.numpy(), target.data.numpy()
        for images, rows in tile_chunks(len(out), target.rows, target.columns, self.chunk_tiles):
            place = (images.start, images.stop - images.start, rows.start, rows.stop - rows.start, target.columns)
            room = place[1] * place[3] * place[4]
            outputs = scratch.get("inputs", 36, room, self.outputs)
            tile_loops.output_gradient(behind, kept, outputs.numpy(), *place, pool)
            products = scratch.get("products", 36, room, self.inputs)
            torch.bmm(outputs, self.filters.transpose(1, 2), out=products)
            width = TILE * target.columns + INPUT_TILE - TILE
            strips = scratch.get("strips", place[1], place[3], INPUT_TILE - TILE, width, self.inputs)
            tile_loops.input_gradient(products.numpy(), out, strips.numpy(), *place, rows.stop < target.rows)


class GreyKernel:
    """First layer: one channel in, the normalisation inside its weights.

    The frame holds the mean, which is what zero padding behind the normalisation stands for.
    """

    def __init__(self, conv: nn.Conv2d, mean: float, std: float) -> None:
        weight = conv.weight.detach().double().flatten(1).t() / std
        bias = bias_of(conv) - mean * weight.sum(dim=0)
        self.weight = torch.cat([weight, bias[None]]).float().numpy()
        self.mean = mean

    def forward(self, source: Maps, target: Maps, pool: bool, mask: Tensor | None, scratch: Scratch) -> None:
        padded = source.data[..., 0].numpy()
        kept = no_mask(len(padded)) if mask is None else mask.numpy()
        grey_loops.grey_output(
            padded, self.weight, target.data.numpy(), kept, mask is not None, source.height, source.width, pool
        )

    def adjoint(self, gradient: Maps, mask: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        rows, columns = target.rows, target.columns
        width = TILE * columns + INPUT_TILE - TILE
        strips = scratch.get("strips", len(mask), rows, INPUT_TILE, width)
        grey_loops.grey_gradient(gradient.data.numpy(), mask.numpy(), self.weight, strips.numpy(), pool)
        out = target.data[..., :width, 0]
        reach = INPUT_TILE - TILE
        out[:, : TILE * rows] = strips[:, :, :TILE].flatten(1, 2)
        out[:, TILE * rows : TILE * rows + reach] = 0
        out[:, TILE : TILE * rows + TILE].unflatten(1, (rows, TILE))[:, :, :reach] += strips[:, :, TILE:]


def bias_of(conv: nn.Conv2d) -> Tensor:
    return torch.zeros_like(conv.weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.detach()


def no_mask(count: int) -> np.ndarray:
    return np.empty((count, 0, 0, 0), np.uint16)
