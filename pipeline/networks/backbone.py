"""Networks by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.networks.domain_norm import vgg16_domain
from pipeline.networks.torchvision_backbone import torchvision_classifier
from pipeline.networks.vgg import vgg16

OWN = {"vgg16": vgg16, "vgg16_domain": vgg16_domain}


def rebuilt(settings: dict[str, Any], **changes: Any) -> nn.Module:
    """Build the network of a checkpoint, without weights.

    Args:
        settings: what the checkpoint says of it.
        changes: settings that are to differ, e.g. ``test_branch``.
    """
    return backbone(**({"weights": "none"} | settings | changes))


def backbone(name: str, **settings: Any) -> nn.Module:
    """Build a network by name: `backbone("vgg16", weights="none", width=0.25)` is `vgg16(weights="none", width=0.25)`.

    Args:
        name: "vgg16", "vgg16_domain", or a torchvision classifier such as "resnet18".
        settings: of `vgg16`, `vgg16_domain` or `torchvision_classifier`.

    Raises:
        ValueError: unknown name.
    """
    if name in OWN:
        return OWN[name](**settings)
    return torchvision_classifier(name, **settings)
