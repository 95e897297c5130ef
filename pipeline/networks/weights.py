"""Weights of a network: where they come from, under which digest, and no fallback."""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CHOICES = '"imagenet" (torchvision\'s, downloaded), the path of a state dict, or "none" (random initialisation)'


class WeightsError(ValueError):
    """Weights that cannot be had or do not fit, with the choices that exist."""


def weights_digest(path: str | Path) -> str:
    """SHA-256 of a weights file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_vgg16_features(weights: str | Path) -> dict[str, Tensor]:
    """Read VGG16's convolution weights under torchvision's names (``features.N.weight`` and ``.bias``).

    Args:
        weights: "imagenet" or a path; "none" is the caller's business.

    Raises:
        WeightsError: out of reach, unreadable, or not VGG16's convolutions.
    """
    download = None
    if str(weights) == "imagenet":
        from torchvision.models import VGG16_Weights

        download = VGG16_Weights.IMAGENET1K_V1
    state = read_state(weights, download)
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    if not features:
        raise WeightsError(f"weights: {str(weights)!r} holds no entry 'features.*'; is it a VGG16 state dict?")
    return features


def read_state(weights: str | Path, download: Any = None) -> dict[str, Tensor]:
    """Read a state dict from a path, or download it.

    Args:
        weights: "imagenet" or a path.
        download: torchvision's entry for "imagenet".

    Raises:
        WeightsError: out of reach or unreadable.
    """
    if download is not None:
        try:
            state = download.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError, HTTPException) as error:
            raise WeightsError(
                f"weights: 'imagenet' is out of reach ({type(error).__name__}: {error}); allowed are {CHOICES}"
            ) from error
    else:
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"weights: no file {str(path)!r}; allowed are {CHOICES}")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise WeightsError(
                f"weights: {str(path)!r} is no state dict that loads safely ({type(error).__name__}); "
                "write it with torch.save(network.state_dict(), path)"
            ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"weights: {str(weights)!r} holds a {type(state).__name__}, expected a state dict")
    return state


def load_features(network: nn.Module, features: dict[str, Tensor], *, source: str) -> None:
    """Load convolution weights strictly into `network`, summing colour filters of the first layer to one channel.

    Raises:
        WeightsError: a missing, superfluous or misshapen entry.
    """
    own = {name: value for name, value in network.state_dict().items() if name.startswith("features.")}
    features = dict(features)
    first = "features.0.weight"
    if first in features and features[first].ndim == 4 and features[first].shape[1] == 3:
        features[first] = features[first].sum(dim=1, keepdim=True)
    wrong = [name for name in own if name not in features or features[name].shape != own[name].shape]
    wrong += [name for name in features if name not in own]
    if wrong:
        raise WeightsError(
            f"weights: {source} does not fit this VGG16 in {', '.join(sorted(wrong)[:4])}"
            f"{' and more' if len(wrong) > 4 else ''}; weights exist for width=1.0 without batch normalisation"
        )
    network.load_state_dict(features, strict=False)
