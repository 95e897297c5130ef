"""Any torchvision classifier as a network for grey mammograms with one logit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from pipeline.networks.freezing import freeze_except
from pipeline.networks.weights import CHOICES, WeightsError, read_state

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REFUSED = ("googlenet", "inception_v3")  # several outputs in training


def names() -> list[str]:
    """Names that `TorchvisionClassifier` takes."""
    return [name for name in models.list_models(module=models) if name not in REFUSED]


def last_convolution(network: nn.Module) -> str:
    """Dotted name of the last convolution that gives feature maps, in the order of definition.

    A convolution with one or two outputs is a head, not a feature map.

    Raises:
        ValueError: the network has none.
    """
    found = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and module.out_channels > 2
    ]
    if not found:
        raise ValueError(f"{type(network).__name__} has no convolution; name the layer whose map is meant")
    return found[-1]


class TorchvisionClassifier(nn.Module):
    """A torchvision classifier that maps images (N, 1, H, W) in [0, 1] to logits (N, 1).

    The grey image goes in three times, normalised as for ImageNet. In-place activations are made out of place, so that
    a tapped map is the one before the activation.

    Args:
        architecture: torchvision's name, e.g. "resnet18".
        trainable: names of the modules below `body` that are trained, "all", or None for the last convolution and the
            head, as the paper trains VGG16.

    Raises:
        ValueError: a name that torchvision does not know as a classifier with one output.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, *, trainable: Sequence[str] | Literal["all"] | None = None) -> None:
        super().__init__()
        if architecture not in names():
            raise ValueError(
                f"backbone {architecture!r} is unknown; allowed are 'vgg16', 'vgg16_domain' and torchvision's "
                f"classifiers, e.g. 'resnet18', 'densenet121', 'convnext_tiny'"
                + (" (this one has several outputs)" if architecture in REFUSED else "")
            )
        self.body = models.get_model(architecture, weights=None, num_classes=1)
        for module in self.body.modules():
            if getattr(module, "inplace", False):
                module.inplace = False
        self.head = _head(self.body)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        chosen = [last_convolution(self), f"body.{self.head}"] if trainable is None else trainable
        self.frozen = freeze_except(self, chosen)
        self.pretrained = False
        self.settings: dict[str, Any] = {
            "name": architecture,
            "trainable": chosen if isinstance(chosen, str) else list(chosen),
        }

    def forward(self, images: Tensor) -> Tensor:
        return self.body((images.expand(-1, 3, -1, -1) - self.mean) / self.std)

    def train(self, mode: bool = True) -> TorchvisionClassifier:
        """Set train mode, leaving frozen layers in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def torchvision_classifier(
    name: str, *, weights: str | Path | None, trainable: Sequence[str] | Literal["all"] | None = None, seed: int = 0
) -> TorchvisionClassifier:
    """Build a `TorchvisionClassifier` and load its body without the head.

    Args:
        name: see `TorchvisionClassifier`.
        weights: "imagenet" (torchvision's default weights, downloaded), the path of a state dict with torchvision's
            names, or "none".
        trainable: see `TorchvisionClassifier`.
        seed: of the random initialisation; the global random state is left as it was.

    Raises:
        WeightsError: nothing chosen, out of reach, or not fitting.
    """
    if weights is None:
        raise WeightsError(f"weights: nothing chosen; allowed are {CHOICES}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TorchvisionClassifier(name, trainable=trainable)
    if str(weights) == "none":
        return network
    download = models.get_model_weights(name).DEFAULT if str(weights) == "imagenet" else None
    state = read_state(weights, download)
    state = {key: value for key, value in state.items() if not key.startswith(f"{network.head}.")}
    wrong = network.body.load_state_dict(state, strict=False)
    missing = [key for key in wrong.missing_keys if not key.startswith(f"{network.head}.")]
    if missing or wrong.unexpected_keys:
        raise WeightsError(
            f"weights: {str(weights)!r} does not fit {name}: {', '.join([*missing, *wrong.unexpected_keys][:4])}"
        )
    network.pretrained = True
    return network


def _head(body: nn.Module) -> str:
    """Name of the module that gives the logit."""
    found = [
        name
        for name, module in body.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == 1)
        or (isinstance(module, nn.Conv2d) and module.out_channels == 1)
    ]
    return found[-1]
