"""A faster pass through convolutions that are not trained: the frozen prefix of a network, and all of it in an attack.

An attack needs scores and the gradient of the images, never that of a weight. The engine runs normalisation,
convolutions, ReLUs and poolings as one autograd function on maps in NHWC with a frame of padding:

- convolutions by Winograd's F(4 x 4, 3 x 3): compiled loops over tiles around batched matrix products;
- for backward only one bit per activation is kept: whether the gradient passes its ReLU and pooling;
- maps carry their padding as a frame; bias, ReLU, pooling and mask come in one pass with the convolution's last step;
- the wide, shallow maps go through image by image, the small, deep ones in batches.

On other devices than the CPU, under autocast, in scripting and in tracing the network takes its plain path.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.networks.chain import Layer, chain_of, watched
from pipeline.networks.feature_cache import FeatureCache
from pipeline.networks.kernels import GreyKernel, Kernel, Maps, WinogradKernel, empty_mask
from pipeline.networks.loops import loop_threads
from pipeline.networks.scratch import Scratch

# Largest channel count of a convolution -> bytes of transformed tiles that are worked on at once. Measured by
# benchmarks/winograd_rule.py on two cores; the figures are in benchmarks/README.md.
RULE: tuple[tuple[int, int], ...] = ((256, 8 << 20), (1 << 30, 16 << 20))
# Below this width of the widest convolution the plain network is as fast.
SMALLEST_WIDTH = 65
# Bytes of the largest map of the images that go through a block together.
PART_BYTES = 16 << 20


class FrozenEngine:
    """Runs the frozen part of `features(normalise(images))` fast; what it cannot run it leaves to the modules.

    A plain object beside the modules: it owns no parameter, `state_dict` does not know it, a copy of the network gets
    a copy without the transformed filters. They are kept per version of the weights and made again when a checkpoint
    was loaded or an optimiser has stepped (writes through `.data` go unseen).

    Args:
        mean: of the images, subtracted before the first layer.
        std: by which they are divided.
        features: chain of 3 x 3 convolutions, ReLUs and 2 x 2 maximum poolings, as VGG16 has it.
        cache_gib: memory for maps behind the untrained layers, for images that come again without an attack.
    """

    def __init__(self, mean: float, std: float, features: nn.Sequential, *, cache_gib: float = 0.0) -> None:
        self.cache = FeatureCache(cache_gib)
        self.mean = mean
        self.std = std
        self.features = features
        self.layers = chain_of(features)
        self._kernels: dict[int, tuple[Any, list[Tensor], Kernel]] = {}
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "std": self.std,
            "features": self.features,
            "layers": self.layers,
            "cache": self.cache,
        }

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
        if self._caches(images):
            # Up to the first layer that is trained, even where no gradient is asked for now: the maps there stay.
            layers = [layer for layer in layers if not layer.trained]
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
            seen = any(watched(module) for module in modules[layer.index : layer.end])
            if seen or not layer.plain or (learning and layer.trained):
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
        images = images.as_subclass(Tensor)

        def run(images: Tensor) -> Tensor:
            result: Tensor = _Pass.apply(images, self, layers)
            return result

        if not self._caches(images):
            return run(images)
        return self.cache(images, run, tuple(layer.version for layer in layers))

    def _caches(self, images: Tensor) -> bool:
        return self.cache.limit > 0 and not (torch.is_grad_enabled() and images.requires_grad)

    def kernels(self, layers: Sequence[Layer]) -> list[Kernel]:
        """The kernels of these layers, made where the weights have changed since the last call."""
        kernels: list[Kernel] = []
        for number, layer in enumerate(layers):
            known = self._kernels.get(number)
            if known is None or known[0] != layer.version:
                # The weights are held: their address, part of the version, must not go to others meanwhile.
                held = [weight.detach() for weight in layer.weights]
                with torch.no_grad():
                    known = self._kernels[number] = layer.version, held, self._kernel(layer.conv)
            kernels.append(known[-1])
        return kernels

    def _kernel(self, conv: nn.Conv2d) -> Kernel:
        if conv.in_channels == 1:
            return GreyKernel(conv, self.mean, self.std)
        widest = max(conv.in_channels, conv.out_channels)
        chunk_bytes = next(limit for channels, limit in RULE if widest <= channels)
        return WinogradKernel(conv, chunk_bytes)

    def scratch(self) -> Scratch:
        """This thread's buffers."""
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return scratch


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
    def forward(ctx: Any, images: Tensor, engine: FrozenEngine, layers: Sequence[Layer]) -> Tensor:
        with loop_threads():
            return _Pass._forward(ctx, images, engine, layers)

    @staticmethod
    def _forward(ctx: Any, images: Tensor, engine: FrozenEngine, layers: Sequence[Layer]) -> Tensor:
        walk = _Walk(engine, layers, images.shape)
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
        ctx.engine = engine
        ctx.save_for_backward(*masks)
        return current.image.clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        with loop_threads():
            return _Pass._backward(ctx, gradient), None, None

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
