"""A faster pass through convolutions that are not trained: the frozen prefix of a network, and all of it in an attack.

An attack needs scores and the gradient of the images, never that of a weight. The engine runs normalisation,
convolutions, ReLUs and poolings as one autograd function on maps in NHWC with a frame of padding:

- wide convolutions by Winograd's F(4 x 4, 3 x 3), the others directly; `RULE` says which, from measurements;
- for backward only one bool per activation is kept: whether the gradient passes its ReLU and pooling;
- maps carry their padding as a frame, so that ReLU and padding are one pass, and bias comes with the convolution;
- the wide, shallow maps go through image by image, the small, deep ones in batches.

On other devices than the CPU, under autocast, in scripting and in tracing the network takes its plain path.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.networks import winograd
from pipeline.networks.winograd import TILE, Scratch, WinogradFilters

# Largest channel count of a convolution -> bytes of transformed tiles that are worked on at once; None is direct
# convolution. Measured by benchmarks/winograd_rule.py on two cores (AVX-512); see its docstring.
RULE: tuple[tuple[int, int | None], ...] = ((64, None), (128, 2 << 20), (256, 8 << 20), (1 << 30, 16 << 20))
# Below this width of the widest convolution the plain network is as fast.
SMALLEST_WIDTH = 65
_ZERO = torch.zeros(())
# Bytes of the largest map of the images that go through a block together.
PART_BYTES = 16 << 20


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
        part = object.__new__(Maps)
        part.__dict__.update(self.__dict__)
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

    def keep_shape(self, source: Maps, pool: bool) -> tuple[int, ...]:
        """Shape, without the images, of what backward needs."""
        raise NotImplementedError


class WinogradKernel(Kernel):
    tiles = True

    def __init__(self, conv: nn.Conv2d, chunk_bytes: int) -> None:
        self.filters = WinogradFilters(conv.weight, bias_of(conv))
        self.chunk_tiles = max(1, chunk_bytes // self.filters.tile_bytes())

    def keep_shape(self, source: Maps, pool: bool) -> tuple[int, ...]:
        return (source.rows, source.columns, TILE, TILE, self.filters.outputs)

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

    def keep_shape(self, source: Maps, pool: bool) -> tuple[int, ...]:
        return (source.height, source.width, len(self.weight))

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

    def keep_shape(self, source: Maps, pool: bool) -> tuple[int, ...]:
        return (source.height, source.width, self.weight.shape[1])

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


class FrozenEngine:
    """Runs the frozen part of `features(normalise(images))` fast; what it cannot run it leaves to the modules.

    A plain object beside the modules: it owns no parameter, `state_dict` does not know it, a copy of the network gets
    a copy without the transformed filters. They are kept per version of the weights and made again when a checkpoint
    was loaded or an optimiser has stepped (writes through `.data` go unseen).

    Args:
        mean: of the images, subtracted before the first layer.
        std: by which they are divided.
        features: chain of 3 x 3 convolutions, ReLUs and 2 x 2 maximum poolings, as VGG16 has it.
    """

    def __init__(self, mean: float, std: float, features: nn.Sequential) -> None:
        self.mean = mean
        self.std = std
        self.features = features
        self.layers = _chain(features)
        self._kernels: dict[int, tuple[Any, Kernel]] = {}
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "features": self.features, "layers": self.layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._kernels = {}
        self._local = threading.local()

    def prefix(self, images: Tensor) -> int:
        """How many of the leading modules of `features` the engine takes for these images now; 0 is none."""
        usable = (
            images.device.type == "cpu"
            and images.dtype == torch.float32
            and images.ndim == 4
            and images.shape[1] == 1
            and len(images) > 0
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )
        if not usable:
            return 0
        layers = self._active()
        height, width = images.shape[2:]
        for number, layer in enumerate(layers):
            if layer.pool:
                height, width = height // 2, width // 2
            if min(height, width) < 1:
                layers = layers[:number]
                break
        if max((layer.channels for layer in layers), default=0) < SMALLEST_WIDTH:
            return 0
        return layers[-1].end

    def _active(self) -> list[Layer]:
        """The leading layers whose weights get no gradient and whose modules nobody watches."""
        modules = list(self.features)
        learning = torch.is_grad_enabled()
        active: list[Layer] = []
        for layer in self.layers:
            weights = layer.conv.weight, layer.conv.bias
            trained = learning and any(weight is not None and weight.requires_grad for weight in weights)
            fits = all(weight is None or weight.dtype == torch.float32 for weight in weights)
            if trained or not fits or any(_watched(module) for module in modules[layer.index : layer.end]):
                break
            active.append(layer)
        return active

    def __call__(self, images: Tensor, end: int) -> Tensor:
        """Maps (N, C, h, w) behind the first `end` modules of `features`, in channels-last layout.

        Args:
            images: (N, 1, H, W), float32 on the CPU.
            end: from `prefix`.
        """
        layers = [layer for layer in self.layers if layer.end <= end]
        result: Tensor = _Pass.apply(images, self, layers)
        return result

    def kernels(self, layers: Sequence[Layer]) -> list[Kernel]:
        """The kernels of these layers, made where the weights have changed since the last call."""
        kernels: list[Kernel] = []
        for number, layer in enumerate(layers):
            conv = layer.conv
            version = tuple((w.data_ptr(), w._version) for w in (conv.weight, conv.bias) if w is not None)
            known = self._kernels.get(number)
            if known is None or known[0] != version:
                with torch.no_grad():
                    known = self._kernels[number] = version, self._kernel(conv)
            kernel = known[1]
            kernels.append(kernel)
        return kernels

    def _kernel(self, conv: nn.Conv2d) -> Kernel:
        if conv.in_channels == 1:
            return GreyKernel(conv, self.mean, self.std)
        widest = max(conv.in_channels, conv.out_channels)
        chunk_bytes = next(limit for channels, limit in RULE if widest <= channels)
        return DirectKernel(conv) if chunk_bytes is None else WinogradKernel(conv, chunk_bytes)

    def scratch(self) -> Scratch:
        """This thread's buffers."""
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return scratch


@dataclass(frozen=True)
class Layer:
    """One convolution with its ReLU and, where `pool` is set, the 2 x 2 maximum pooling behind it.

    `index` and `end` are its place among the plain modules.
    """

    conv: nn.Conv2d
    pool: bool
    index: int
    end: int

    @property
    def channels(self) -> int:
        return self.conv.out_channels


def _chain(features: nn.Sequential) -> list[Layer]:
    modules = list(features)
    layers: list[Layer] = []
    position = 0
    while position + 1 < len(modules) and _fits(modules[position], first=not layers):
        if not isinstance(modules[position + 1], nn.ReLU):
            break
        end = position + 2
        pool = end < len(modules) and _is_pool(modules[end])
        conv = modules[position]
        assert isinstance(conv, nn.Conv2d)
        layers.append(Layer(conv, pool, position, end + pool))
        position = end + pool
    return layers


def _fits(module: nn.Module, *, first: bool) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding == (1, 1)
        and module.padding_mode == "zeros"
        and module.groups == 1
        and (module.in_channels == 1) == first
    )


def _is_pool(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d) and (
        (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode) == (2, 2, 0, 1, False)
    )


def _watched(module: nn.Module) -> bool:
    """Does a hook want to see this module's call?"""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    wanted = any(module.training or not getattr(hook, "in_training_only", False) for hook in hooks)
    return wanted or bool(module._backward_hooks) or bool(module._backward_pre_hooks)


class _Walk:
    """The layers with the sizes of their maps, in blocks that end with a pooling."""

    def __init__(self, engine: FrozenEngine, layers: Sequence[Layer], shape: Sequence[int]) -> None:
        self.scratch = engine.scratch()
        self.layers = layers
        self.kernels = engine.kernels(layers)
        self.count, _, height, width = shape
        self.sizes = [(height, width)]
        for layer in layers:
            if layer.pool:
                height, width = height // 2, width // 2
            self.sizes.append((height, width))
        cuts = [number + 1 for number, layer in enumerate(layers) if layer.pool and number + 1 < len(layers)]
        self.blocks = list(zip([0, *cuts], [*cuts, len(layers)], strict=True))

    def maps(self, name: str, number: int, count: int) -> Maps:
        """Maps in front of layer `number`, whose writer and reader say what room they need."""
        around = self.kernels[max(number - 1, 0) : number + 1]
        channels = 1 if number == 0 else self.layers[number - 1].channels
        return Maps(
            self.scratch, name, count, *self.sizes[number], channels, tiles=any(kernel.tiles for kernel in around)
        )

    def parts(self, first: int, last: int) -> list[slice]:
        """Images that go through the block's layers together."""
        largest = 0
        for number in range(first, last):
            height, width = self.sizes[number]
            largest = max(largest, 4 * height * width * self.layers[number].channels)
        step = max(1, PART_BYTES // largest)
        step = -(-self.count // -(-self.count // step))  # even parts
        return [slice(start, min(start + step, self.count)) for start in range(0, self.count, step)]


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, engine: FrozenEngine, layers: Sequence[Layer]) -> Tensor:  # type: ignore[override]
        walk = _Walk(engine, layers, images.shape)
        keeping = ctx.needs_input_grad[0]
        keeps: list[Tensor] = []
        current = walk.maps("input", 0, walk.count)
        current.image[..., 0].copy_(images[:, 0])
        first_kernel = walk.kernels[0]
        assert isinstance(first_kernel, GreyKernel)
        current.frame(first_kernel.mean)
        for first, last in walk.blocks:
            behind = walk.maps(f"maps {last}", last, walk.count)
            for number in range(first, last):
                if keeping:
                    source = walk.maps("none", number, 0)
                    shape = walk.kernels[number].keep_shape(source, layers[number].pool)
                    keeps.append(torch.empty((walk.count, *shape), dtype=torch.bool))
            for images_part in walk.parts(first, last):
                source = current.part(images_part)
                for number in range(first, last):
                    inside = number + 1 < last
                    size = images_part.stop - images_part.start
                    target = walk.maps(f"part {number % 2}", number + 1, size) if inside else behind.part(images_part)
                    kernel = walk.kernels[number]
                    keep = keeps[number][images_part] if keeping else None
                    kernel.forward(source, target, layers[number].pool, keep, walk.scratch)
                    if number + 1 < len(layers):
                        target.frame()
                    source = target
            current = behind
        ctx.walk = walk
        ctx.engine = engine
        ctx.save_for_backward(*keeps)
        return current.image.clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        walk: _Walk = ctx.walk
        keeps = ctx.saved_tensors
        layers = walk.layers
        walk.scratch = ctx.engine.scratch()
        current = walk.maps(f"maps {len(layers)}", len(layers), walk.count)
        current.image.copy_(gradient.permute(0, 2, 3, 1))
        for first, last in reversed(walk.blocks):
            before = walk.maps("input" if first == 0 else f"maps {first}", first, walk.count)
            for images_part in walk.parts(first, last):
                behind = current.part(images_part)
                for number in reversed(range(first, last)):
                    size = images_part.stop - images_part.start
                    target = (
                        before.part(images_part)
                        if number == first
                        else walk.maps(f"part {(number - 1) % 2}", number, size)
                    )
                    keep = keeps[number][images_part]
                    walk.kernels[number].adjoint(behind, keep, target, layers[number].pool, walk.scratch)
                    behind = target
            current = before
        return current.image[..., 0].unsqueeze(1).clone(), None, None
