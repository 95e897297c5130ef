"""VGG16 for one-channel mammograms, with a frozen prefix and one logit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.networks.chain import watched
from pipeline.networks.freezing import freeze_except
from pipeline.networks.frozen import FrozenEngine
from pipeline.networks.normalise import Normalise
from pipeline.networks.untrained_linear import runs_untrained, untrained_linear
from pipeline.networks.weights import CHOICES, WeightsError, load_features, read_vgg16_features

# Configuration D of Simonyan and Zisserman (2015): channels of the convolutions, "M" a 2 x 2 maximum pooling.
CONFIGURATION: tuple[int | str, ...] = (
    64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M",
)  # fmt: skip

# Mean over the three channels of ImageNet's published mean and standard deviation (torchvision's transforms).
GREY_MEAN = (0.485 + 0.456 + 0.406) / 3
GREY_STD = (0.229 + 0.224 + 0.225) / 3


class DropMaxPool(nn.Module):
    """2 x 2 pooling that drops each window's maximum and takes the next value (after Sun et al. 2022).

    The maximum is the value that an attack moves most easily. Reconstructed; an odd last row or column is left out, as
    in maximum pooling.
    """

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
        a, b = maps[:, :, :height:2, :width:2], maps[:, :, :height:2, 1:width:2]
        c, d = maps[:, :, 1:height:2, :width:2], maps[:, :, 1:height:2, 1:width:2]
        # Second largest of four: the larger of the smaller maximum and the larger minimum's rival.
        high, low = torch.maximum(a, b), torch.minimum(a, b)
        other_high, other_low = torch.maximum(c, d), torch.minimum(c, d)
        return torch.maximum(torch.minimum(high, other_high), torch.maximum(low, other_low))


class AverageAndMaximumPool(nn.Module):
    """Concatenate global average and global maximum: (N, C, H, W) to (N, 2C)."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class VGG16(nn.Module):
    """VGG16 that maps images (N, 1, H, W) in [0, 1] to logits (N, 1).

    The three colour filters of the first layer are summed into one, which equals feeding a grey image three times.
    `features` keeps torchvision's indices: ``features.28`` is the last convolution. ReLUs are out of place, so that a
    tapped map is the one before the ReLU. Normalisation is part of the network; attacks act on [0, 1]. `settings` are
    the arguments with which `backbone` builds the same network again; `pretrained` says whether weights were loaded.

    Args:
        trainable: names of the modules that are trained, or "all". The paper: last convolution and classifier.
        width: factor on every channel count; 1.0 is VGG16.
        head: "vgg", the paper's two layers of 4,096 (119 million parameters), or "compact", global average and
            maximum pooling with one hidden layer of 256 x `width` (ours, for small machines).
        dropout: in the head.
        drop_max: `DropMaxPool` in place of the first pooling layer (not in the paper's VGG16).
        engine: run layers that get no weight gradient by `FrozenEngine`, on the CPU.
        cache_gib: the engine's memory for maps of images that come again without an attack; 0 keeps none.

    Raises:
        ValueError: unknown head or trainable name, or a width that leaves no channel.
    """

    def __init__(
        self,
        *,
        trainable: Sequence[str] | Literal["all"] = ("features.28", "classifier"),
        width: float = 1.0,
        head: Literal["vgg", "compact"] = "vgg",
        dropout: float = 0.5,
        drop_max: bool = False,
        engine: bool = True,
        cache_gib: float = 1.0,
    ) -> None:
        super().__init__()
        if width <= 0 or round(64 * width) < 1:
            raise ValueError(f"width {width} leaves no channel; allowed are factors above 1/128, 1.0 is VGG16")
        self.pretrained = False
        self.settings: dict[str, Any] = {
            "name": "vgg16",
            "trainable": trainable if isinstance(trainable, str) else list(trainable),
            "width": width,
            "head": head,
            "dropout": dropout,
            "drop_max": drop_max,
        }
        self.normalise = Normalise(GREY_MEAN, GREY_STD)
        self.features = _features(width, drop_max=drop_max)
        last = round(512 * width)
        if head == "vgg":
            hidden = round(4096 * width)
            self.pool: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(1))
            self.classifier = nn.Sequential(
                nn.Linear(last * 49, hidden), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden, 1),
            )  # fmt: skip
        elif head == "compact":
            hidden = max(round(256 * width), 16)
            self.pool = AverageAndMaximumPool()
            self.classifier = nn.Sequential(
                nn.Linear(2 * last, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
            )
        else:
            raise ValueError(f"head {head!r} is unknown; allowed are 'vgg' and 'compact'")
        self.apply(_initialise)
        self.frozen = freeze_except(self, trainable)
        self.engine = FrozenEngine(cache_gib=cache_gib) if engine else None

    def forward(self, images: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            return self._fast(images)
        return self.classifier(self.pool(self.features(self.normalise(images))))

    @torch.jit.unused
    def _fast(self, images: Tensor) -> Tensor:
        layers = [] if self.engine is None else self.engine.layers(images, self.normalise, self.features)
        if self.engine is None or not layers:
            return self.classifier(self.pool(self.features(self.normalise(images))))
        maps = self.engine(images, self.normalise, layers)
        for module in list(self.features)[layers[-1].end :]:
            maps = module(maps)
        rows = self.pool(maps)
        if self.training or type(self.classifier) is not nn.Sequential or watched(self.classifier):
            return self.classifier(rows)
        for layer in self.classifier:
            fast = runs_untrained(layer, rows) and not watched(layer)
            rows = untrained_linear(layer, rows) if fast else layer(rows)
        return rows

    def train(self, mode: bool = True) -> VGG16:
        """Set train mode, leaving frozen layers in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def vgg16(
    *,
    weights: str | Path | None,
    trainable: Sequence[str] | Literal["all"] = ("features.28", "classifier"),
    width: float = 1.0,
    head: Literal["vgg", "compact"] = "vgg",
    dropout: float = 0.5,
    drop_max: bool = False,
    engine: bool = True,
    cache_gib: float = 1.0,
    seed: int = 0,
) -> VGG16:
    """Build a `VGG16` and load its convolutions.

    Args:
        weights: "imagenet", the path of a state dict with torchvision's names, or "none" for random weights.
        trainable: see `VGG16`.
        width: see `VGG16`.
        head: see `VGG16`.
        dropout: see `VGG16`.
        drop_max: see `VGG16`.
        engine: see `VGG16`.
        cache_gib: see `VGG16`.
        seed: seed of the random initialisation; the global random state is left as it was.

    Raises:
        WeightsError: `weights` is None (said explicitly or not at all), out of reach, or does not fit.
    """
    if weights is None:
        raise WeightsError(f"weights: nothing chosen; allowed are {CHOICES}")
    features = None
    if str(weights) != "none":
        if width != 1.0:
            raise WeightsError(f"weights: {str(weights)!r} with width={width}; weights exist for width=1.0 only")
        features = read_vgg16_features(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VGG16(
            trainable=trainable,
            width=width,
            head=head,
            dropout=dropout,
            drop_max=drop_max,
            engine=engine,
            cache_gib=cache_gib,
        )
    if features is not None:
        load_features(network, features, source=repr(str(weights)))
        network.pretrained = True
    return network


def _features(width: float, *, drop_max: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for entry in CONFIGURATION:
        if isinstance(entry, str):
            first = not any(isinstance(layer, DropMaxPool | nn.MaxPool2d) for layer in layers)
            layers.append(DropMaxPool() if drop_max and first else nn.MaxPool2d(2, 2))
            continue
        out = round(entry * width)
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=False)]
        channels = out
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    # He initialisation keeps the activations' scale through thirteen layers without normalisation.
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
