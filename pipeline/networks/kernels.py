"""Layers of the frozen engine: convolution, ReLU and pooling on framed maps in NHWC, forward and transposed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.networks import winograd
from pipeline.networks.scratch import Scratch
from pipeline.networks.winograd import TILE, WinogradFilters

_ZERO = torch.zeros(())


class Maps:
    """Feature maps in NHWC with a frame: the image lies at [1 : 1 + height, 1 : 1 + width].

    Where a kernel reads or writes tiles, the buffer has room for whole ones.
    """

    def __init__(
        self, scratch: Scratch, name: str, count: int, height: int, width: int, channels: int, *, tiles: bool
    ) -> None:
        self.height = height
        self.width = width
        self.rows = -(-height // TILE)
        self.columns = -(-width // TILE)
        # With tiles two more than these need: the pooled tiles of a map of odd size reach into them.
        room = (TILE * self.rows + 4, TILE * self.columns + 4) if tiles else (height + 2, width + 2)
        self.data = scratch.get(name, count, *room, channels)

    def part(self, images: slice) -> Maps:
        """The same maps of some images."""
        part = copy.copy(self)
        part.data = self.data[images]
        return part

    @property
    def inner(self) -> Tensor:
        """From the image's first pixel on, as far as the buffer goes."""
        return self.data[:, 1:, 1:]

    @property
    def image(self) -> Tensor:
        return self.data[:, 1 : 1 + self.height, 1 : 1 + self.width]

    def frame(self, value: float = 0.0) -> None:
        """Set everything around the image to `value`."""
        bottom, right = min(TILE * self.rows + 2, self.data.shape[1]), min(TILE * self.columns + 2, self.data.shape[2])
        self.data[:, 0, :right] = value
        self.data[:, 1 + self.height : bottom, :right] = value
        self.data[:, 1 : 1 + self.height, 0] = value
        self.data[:, 1 : 1 + self.height, 1 + self.width : right] = value


class Kernel:
    """What a layer's convolution does on `Maps`; one instance per version of its weights.

    `tiles` says that maps need room for tiles.
    """

    tiles = False

    def forward(self, source: Maps, target: Maps, pool: bool, keep: Tensor | None, scratch: Scratch) -> None:
        raise NotImplementedError

    def adjoint(self, gradient: Maps, keep: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        raise NotImplementedError

    def keep_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape, without the images, of what backward needs."""
        raise NotImplementedError


class WinogradKernel(Kernel):
    tiles = True

    def __init__(self, conv: nn.Conv2d, chunk_bytes: int) -> None:
        self.filters = WinogradFilters(conv.weight, bias_of(conv))
        self.chunk_tiles = max(1, chunk_bytes // self.filters.tile_bytes())

    def keep_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (-(-height // TILE), -(-width // TILE), TILE, TILE, self.filters.outputs)

    def forward(self, source: Maps, target: Maps, pool: bool, keep: Tensor | None, scratch: Scratch) -> None:
        rows, columns = source.rows, source.columns
        tiles = winograd.overlapping_tiles(source.data, rows, columns)
        outputs = winograd.distinct_tiles(target.inner, rows, columns, TILE // 2 if pool else TILE)
        for images, tile_rows in winograd.tile_chunks(len(tiles), rows, columns, self.chunk_tiles):
            chunk = tiles[images, tile_rows]
            gathered = scratch.get("gathered", *chunk.shape)
            gathered.copy_(chunk)
            grid = chunk.shape[:3]
            result = self.filters.forward(gathered.view(-1, 36, self.filters.inputs), scratch)
            result = result.view(*grid, TILE, TILE, self.filters.outputs)
            out = outputs[images, tile_rows]
            kept = None if keep is None else keep[images, tile_rows]
            if pool:
                half = (*grid, TILE // 2, 2, TILE // 2, 2, self.filters.outputs)
                windows = result.view(half).unbind(6)
                pairs = [window.unbind(4) for window in windows]
                corners = (pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1])
                pool_windows(corners, out, None if kept is None else kept.view(half))
            else:
                if kept is not None:
                    torch.gt(result, 0, out=kept)
                torch.clamp_min(result, 0, out=out)
        if keep is not None:
            clear_outside(keep, source, pool)

    def adjoint(self, gradient: Maps, keep: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        rows, columns = target.rows, target.columns
        incoming = winograd.distinct_tiles(gradient.inner, rows, columns, TILE // 2 if pool else TILE)
        target.data[:, TILE * rows :] = 0
        target.data[:, :, TILE * columns :] = 0
        for images, tile_rows in winograd.tile_chunks(len(keep), rows, columns, self.chunk_tiles):
            kept, chunk = keep[images, tile_rows], incoming[images, tile_rows]
            grid = kept.shape[:3]
            gathered = scratch.get("gathered", *kept.shape)
            pass_gradient(kept, chunk, pool, gathered)
            result = self.filters.adjoint(gathered.view(-1, 16, self.filters.outputs), scratch)
            result = result.view(*grid, winograd.INPUT_TILE, winograd.INPUT_TILE, self.filters.inputs)
            winograd.add_overlapping(result, target.data[images], tile_rows.start)


class DirectKernel(Kernel):
    """oneDNN's direct convolution, for few channels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        weight = conv.weight.detach()
        self.bias = bias_of(conv).clone()
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.flipped = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)

    def keep_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (height, width, len(self.weight))

    def forward(self, source: Maps, target: Maps, pool: bool, keep: Tensor | None, scratch: Scratch) -> None:
        padded = source.data[:, : source.height + 2, : source.width + 2]
        result = nn.functional.conv2d(padded.permute(0, 3, 1, 2), self.weight, self.bias).permute(0, 2, 3, 1)
        store(result, target, pool, keep)

    def adjoint(self, gradient: Maps, keep: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        masked = scratch.get("gathered", *keep.shape)
        spread(gradient, keep, pool, masked)
        result = nn.functional.conv2d(masked.permute(0, 3, 1, 2), self.flipped, padding=1)
        target.image.copy_(result.permute(0, 2, 3, 1))


class GreyKernel(Kernel):
    """First layer: one channel in, the normalisation inside its weights.

    The frame holds the mean, which is what zero padding behind the normalisation stands for.
    """

    def __init__(self, conv: nn.Conv2d, mean: float, std: float) -> None:
        weight = conv.weight.detach().double().flatten(1).t() / std
        bias = bias_of(conv) - mean * weight.sum(dim=0)
        self.weight = torch.cat([weight, bias[None]]).float()  # (10, K); the tenth input is 1
        self.mean = mean

    def keep_shape(self, height: int, width: int) -> tuple[int, ...]:
        return (height, width, self.weight.shape[1])

    def forward(self, source: Maps, target: Maps, pool: bool, keep: Tensor | None, scratch: Scratch) -> None:
        count, height, width, channels = len(source.data), source.height, source.width, self.weight.shape[1]
        columns = scratch.get("columns", count, height, width, 10)
        padded = source.data[..., 0]
        image, row, column = padded.stride()
        patches = padded.as_strided(
            (count, height, width, 3, 3), (image, row, column, row, column), padded.storage_offset()
        )
        columns[..., :9].unflatten(-1, (3, 3)).copy_(patches)
        columns[..., 9] = 1
        result = scratch.get("first", count, height, width, channels)
        torch.mm(columns.view(-1, 10), self.weight, out=result.view(-1, channels))
        store(result, target, pool, keep)

    def adjoint(self, gradient: Maps, keep: Tensor, target: Maps, pool: bool, scratch: Scratch) -> None:
        channels = self.weight.shape[1]
        masked = scratch.get("gathered", *keep.shape)
        spread(gradient, keep, pool, masked)
        count, height, width = keep.shape[:3]
        columns = scratch.get("columns", 9, count, height, width)
        torch.mm(self.weight[:9], masked.view(-1, channels).t(), out=columns.view(9, -1))
        padded = target.data[..., 0]
        padded.zero_()
        for position in range(9):
            row, column = divmod(position, 3)
            padded[:, row : row + height, column : column + width].add_(columns[position])


def bias_of(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


def store(result: Tensor, target: Maps, pool: bool, keep: Tensor | None) -> None:
    """ReLU and pooling of a map (n, H, W, K) into `target`; what passes goes to `keep`, of the map's shape."""
    if not pool:
        if keep is not None:
            torch.gt(result, 0, out=keep)
        torch.clamp_min(result, 0, out=target.image)
        return
    height, width = 2 * target.height, 2 * target.width
    inside = result[:, :height, :width]
    corners = tuple(inside[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    kept = None
    if keep is not None:
        keep[:, height:] = False
        keep[:, :, width:] = False
        kept = keep[:, :height, :width].unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    pool_windows(corners, target.image, kept)


def spread(gradient: Maps, keep: Tensor, pool: bool, out: Tensor) -> None:
    """Gradient before ReLU and pooling (n, H, W, K) from the gradient behind them."""
    if not pool:
        torch.where(keep, gradient.image, _ZERO, out=out)
        return
    height, width = 2 * gradient.height, 2 * gradient.width
    if out.shape[1] != height or out.shape[2] != width:
        out.zero_()

    def windows(full: Tensor) -> Tensor:
        return full[:, :height, :width].unflatten(2, (-1, 2)).unflatten(1, (-1, 2))

    torch.where(windows(keep), gradient.image[:, :, None, :, None], _ZERO, out=windows(out))


def pass_gradient(kept: Tensor, incoming: Tensor, pool: bool, out: Tensor) -> None:
    """Gradient before ReLU and pooling, in tiles (n, rows, columns, 4, 4, K)."""
    if not pool:
        torch.where(kept, incoming, _ZERO, out=out)
        return
    windows = (*kept.shape[:3], TILE // 2, 2, TILE // 2, 2, kept.shape[-1])
    torch.where(kept.view(windows), incoming[:, :, :, :, None, :, None], _ZERO, out=out.view(windows))


def pool_windows(corners: Sequence[Tensor], out: Tensor, kept: Tensor | None) -> None:
    """Maximum over the four corners of each window and ReLU.

    Args:
        corners: values (..., K) of upper left, upper right, lower left, lower right.
        out: (..., K).
        kept: bool (..., h, 2, w, 2, K) or None: where the gradient goes; of equal values the first, as in
            PyTorch's pooling.
    """
    a, b, c, d = corners
    if kept is None:
        highest = torch.maximum(torch.maximum(a, b), torch.maximum(c, d))
        torch.clamp_min(highest, 0, out=out)
        return
    upper, lower = torch.maximum(a, b), torch.maximum(c, d)
    left_of_upper, left_of_lower, in_upper = a >= b, c >= d, upper >= lower
    highest = torch.maximum(upper, lower, out=upper)
    alive = highest > 0
    torch.clamp_min(highest, 0, out=out)
    in_upper &= alive
    in_lower = alive.logical_xor_(in_upper)
    places = [kept.select(-2, column).select(-3, row) for row in (0, 1) for column in (0, 1)]
    torch.logical_and(in_upper, left_of_upper, out=places[0])
    torch.gt(in_upper, left_of_upper, out=places[1])
    torch.logical_and(in_lower, left_of_lower, out=places[2])
    torch.gt(in_lower, left_of_lower, out=places[3])


def clear_outside(keep: Tensor, source: Maps, pool: bool) -> None:
    """Let no gradient pass outside the image: in the rest of the last tiles, and in an odd row that pooling leaves."""
    height = source.height // 2 * 2 if pool else source.height
    width = source.width // 2 * 2 if pool else source.width
    row, column = height - TILE * (source.rows - 1), width - TILE * (source.columns - 1)
    if row < TILE:
        keep[:, -1, :, row:] = False
    if column < TILE:
        keep[:, :, -1, :, column:] = False
