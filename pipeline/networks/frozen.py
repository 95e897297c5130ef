"""A faster pass through convolutions that are not trained: the frozen prefix of a network, and all of it in an attack.

An attack needs scores and the gradient of the images, never that of a weight. The engine runs normalisation,
convolutions, ReLUs and poolings as one autograd function on maps in NHWC with a frame of padding:

- convolutions by Winograd's F(4 x 4, 3 x 3): compiled loops over tiles around batched matrix products;
- for backward only one bit per activation is kept: whether the gradient passes its ReLU and pooling;
- maps carry their padding as a frame; bias, ReLU, pooling and mask come in one pass with the convolution's last step;
- the wide, shallow maps go through image by image, the small, deep ones in batches.

On other devices than the CPU, under autocast, in scripting, tracing, forward-mode differentiation and `torch.func`, the
network takes its plain path.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import takewhile
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.networks.chain import Layer, chain_of, transformed
from pipeline.networks.feature_cache import FeatureCache
from pipeline.networks.kernels import GreyKernel, Kernel, Maps, WinogradKernel, empty_mask
from pipeline.networks.loops import loop_threads
from pipeline.networks.normalise import Normalise
from pipeline.networks.scratch import Scratch

# Largest channel count of a convolution -> bytes of transformed tiles that are worked on at once. Measured by
# benchmarks/winograd_rule.py; the figures are in benchmarks/README.md.
RULE: tuple[tuple[int, int], ...] = ((256, 8 << 20), (1 << 30, 16 << 20))
# Below this width of the widest convolution the plain network is as fast.
SMALLEST_WIDTH = 65
# Bytes of the largest map of the images that go through a block together.
PART_BYTES = 16 << 20


class FrozenEngine:
    """Runs the frozen part of `features(normalise(images))` fast; what it cannot run it leaves to the modules.

    A plain object beside the modules: it owns no parameter, `state_dict` does not know it, a copy of the network gets
    a copy without the transformed filters. These are made again whenever a weight was written: PyTorch counts the
    writes of `load_state_dict` and most optimisers; weights that were ever trained are also compared value by value,
    since some optimisers, and collective operations, write unseen. A weight that never had a gradient and is written
    through `.data` goes unnoticed.

    Filters and buffers live as long as the network. After a first pass a process must not be forked: the threads of
    OpenMP do not survive it (use forkserver or spawn).

    Args:
        cache_gib: memory for maps behind the untrained layers, for images that come again without an attack.
    """

    def __init__(self, *, cache_gib: float = 0.0) -> None:
        self.cache = FeatureCache(cache_gib)
        self._forget()

    def _forget(self) -> None:
        self._kernels: dict[int, _Known] = {}
        self._trained: WeakSet[nn.Module] = WeakSet()
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def layers(self, images: Tensor, normalise: nn.Module, features: nn.Module) -> list[Layer]:
        """The leading layers of `features` that the engine takes for these images now; empty for none.

        Args:
            images: as the network gets them.
            normalise: in front of `features`.
            features: chain of 3 x 3 convolutions, ReLUs and 2 x 2 maximum poolings, as VGG16 has it.
        """
        usable = (
            isinstance(images, Tensor)
            and images.device.type == "cpu"
            and images.dtype == torch.float32
            and images.ndim == 4
            and images.shape[1] == 1
            and len(images) > 0
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not transformed()
        )
        if not usable:
            return []
        layers = chain_of(normalise, features)
        self._trained.update(layer.conv for layer in layers if layer.trained)
        # A layer that is trained, but not now: the network is under attack, and the images come once.
        attacked = any(layer.conv in self._trained and not layer.trained for layer in layers)
        untrained = list(takewhile(lambda layer: layer.conv not in self._trained, layers))
        if torch.is_grad_enabled():
            layers = list(takewhile(lambda layer: not layer.trained, layers))
        if untrained and not attacked and self._caches(images):
            # Up to the first layer that is ever trained, even where no gradient is asked for now: the maps there stay.
            layers = untrained
        height, width = images.shape[2:]
        for number, layer in enumerate(layers):
            if layer.pool:
                height, width = height // 2, width // 2
            if min(height, width) < 1:
                layers = layers[:number]
                break
        return layers if max((layer.channels for layer in layers), default=0) >= SMALLEST_WIDTH else []

    def __call__(self, images: Tensor, normalise: nn.Module, layers: Sequence[Layer]) -> Tensor:
        """Maps (N, C, h, w) behind the layers, in channels-last layout.

        Args:
            images: (N, 1, H, W), float32 on the CPU.
            normalise: as for `layers`.
            layers: what `layers` gave for them.
        """
        assert isinstance(normalise, Normalise)
        images = images.as_subclass(Tensor)
        kernels = self._kernels_of(layers, normalise)

        def run(images: Tensor) -> Tensor:
            result: Tensor = _Pass.apply(images, self, layers, kernels)
            return result

        if not self._caches(images) or any(layer.conv in self._trained for layer in layers):
            return run(images)
        return self.cache(images, run, (normalise.mean, normalise.std, *(layer.version for layer in layers)))

    def _caches(self, images: Tensor) -> bool:
        wanted = self.cache.limit > 0 and not self.cache.paused
        return wanted and not (torch.is_grad_enabled() and images.requires_grad)

    def _kernels_of(self, layers: Sequence[Layer], normalise: Normalise) -> list[Kernel]:
        """The kernels of these layers, made where the weights have changed since the last call."""
        shift = (normalise.mean, normalise.std)
        kernels: list[Kernel] = []
        for number, layer in enumerate(layers):
            known = self._kernels.get(number)
            compare = layer.conv in self._trained
            if known is None or not known.fits(layer, shift, compare=compare):
                with torch.no_grad():
                    kernel = self._kernel(layer.conv, shift)
                    known = self._kernels[number] = _Known(layer, shift, kernel, compare=compare)
            kernels.append(known.kernel)
        return kernels

    def _kernel(self, conv: nn.Conv2d, shift: tuple[float, float]) -> Kernel:
        if conv.in_channels == 1:
            return GreyKernel(conv, *shift)
        widest = max(conv.in_channels, conv.out_channels)
        chunk_bytes = next(limit for channels, limit in RULE if widest <= channels)
        return WinogradKernel(conv, chunk_bytes)

    def scratch(self) -> Scratch:
        """This thread's buffers."""
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return scratch


class _Known:
    """A kernel with the weights that it was made of."""

    def __init__(self, layer: Layer, shift: tuple[float, float], kernel: Kernel, *, compare: bool) -> None:
        self.kernel = kernel
        self.shift = shift
        self.version = layer.version
        # The weights are held: their address, part of the version, must not go to others meanwhile.
        self.weights = [weight.detach() for weight in layer.weights]
        self.values = [weight.clone() for weight in self.weights] if compare else None

    def fits(self, layer: Layer, shift: tuple[float, float], *, compare: bool) -> bool:
        """Was the kernel made of the weights as they are now?"""
        if self.version != layer.version or self.shift != shift:
            return False
        if not compare:
            return True
        if self.values is None:  # first pass since it is trained: what came before went unwatched
            return False
        return all(torch.equal(now, then) for now, then in zip(layer.weights, self.values, strict=True))


class _Walk:
    """The layers with the sizes of their maps, in blocks that end with a pooling."""

    def __init__(
        self, scratch: Scratch, layers: Sequence[Layer], kernels: Sequence[Kernel], shape: Sequence[int]
    ) -> None:
        self.scratch = scratch
        self.layers = layers
        self.kernels = kernels
        self.count, _, height, width = shape
        self.sizes = [(height, width)]
        for layer in layers:
            if layer.pool:
                height, width = height // 2, width // 2
            self.sizes.append((height, width))
        cuts = [number + 1 for number, layer in enumerate(layers) if layer.pool and number + 1 < len(layers)]
        self.blocks = list(zip([0, *cuts], [*cuts, len(layers)], strict=True))

    def maps(self, name: str, number: int, count: int) -> Maps:
        """Maps in front of layer `number`."""
        channels = 1 if number == 0 else self.layers[number - 1].channels
        return Maps(self.scratch, name, count, *self.sizes[number], channels)

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
    def forward(
        ctx: Any, images: Tensor, engine: FrozenEngine, layers: Sequence[Layer], kernels: Sequence[Kernel]
    ) -> Tensor:
        ctx.engine = engine
        with loop_threads():
            return _Pass._forward(ctx, images, _Walk(engine.scratch(), layers, kernels, images.shape))

    @staticmethod
    def _forward(ctx: Any, images: Tensor, walk: _Walk) -> Tensor:
        layers = walk.layers
        keeping = ctx.needs_input_grad[0]
        masks: list[Tensor] = []
        current = walk.maps("input", 0, walk.count)
        current.image[..., 0].copy_(images[:, 0])
        first_kernel = walk.kernels[0]
        assert isinstance(first_kernel, GreyKernel)
        current.frame(first_kernel.mean)
        for first, last in walk.blocks:
            behind = walk.maps(f"maps {last}", last, walk.count)
            for number in range(first, last):
                if keeping:
                    masks.append(empty_mask(walk.count, *walk.sizes[number], layers[number].channels))
            for images_part in walk.parts(first, last):
                source = current.part(images_part)
                for number in range(first, last):
                    inside = number + 1 < last
                    size = images_part.stop - images_part.start
                    target = walk.maps(f"part {number % 2}", number + 1, size) if inside else behind.part(images_part)
                    kernel = walk.kernels[number]
                    mask = masks[number][images_part] if keeping else None
                    kernel.forward(source, target, layers[number].pool, mask, walk.scratch)
                    if number + 1 < len(layers):
                        target.frame()
                    source = target
            current = behind
        ctx.walk = walk
        ctx.save_for_backward(*masks)
        return current.image.clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        with loop_threads():
            return _Pass._backward(ctx, gradient), None, None, None

    @staticmethod
    def _backward(ctx: Any, gradient: Tensor) -> Tensor:
        walk: _Walk = ctx.walk
        masks = ctx.saved_tensors
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
                    mask = masks[number][images_part]
                    walk.kernels[number].adjoint(behind, mask, target, layers[number].pool, walk.scratch)
                    behind = target
            current = before
        return current.image[..., 0].unsqueeze(1).clone()
