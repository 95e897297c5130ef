"""The head's first layer in an attack: average pooling and linear layer as one, on maps in NHWC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PooledLinear:
    """`linear(flatten(pool(maps)))` without weight gradients, for small batches.

    VGG16's first linear layer holds 103 million weights, and a pass over a few images costs the time to read them. On
    maps below 7 x 7 the average pooling blows the map up first; here the pooling goes into the weights, which shrinks
    them to the map's size (at 160 x 160 pixels 5 x 5 instead of 7 x 7). Folded weights are kept for the last map size
    and version of the weights.

    Args:
        pool: to a fixed size P x Q.
        linear: takes (N, C * P * Q).
    """

    def __init__(self, pool: nn.AdaptiveAvgPool2d, linear: nn.Module) -> None:
        assert isinstance(linear, nn.Linear)
        self.pool = pool
        self.linear = linear
        self._kept: tuple[Any, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"pool": self.pool, "linear": self.linear, "_kept": None}

    def usable(self, maps: Tensor) -> bool:
        """Nothing here is trained, and the maps are plain float32 on the CPU."""
        return (
            maps.device.type == "cpu"
            and maps.dtype == self.linear.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not (torch.is_grad_enabled() and self.linear.weight.requires_grad)
        )

    def __call__(self, maps: Tensor) -> Tensor:
        """(N, hidden) from maps (N, C, h, w)."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        if maps[0].numel() < self.linear.in_features:
            inputs = maps.permute(0, 2, 3, 1).flatten(1)
            weight = self._folded(maps.shape[1], maps.shape[2], maps.shape[3])
        else:
            inputs = self.pool(maps).flatten(1)
        return nn.functional.linear(inputs, weight, bias)

    def _folded(self, channels: int, height: int, width: int) -> Tensor:
        weight = self.linear.weight
        version = (weight.data_ptr(), weight._version, height, width)
        if self._kept is None or self._kept[0] != version:
            with torch.no_grad():
                cells = torch.eye(height * width).view(height * width, 1, height, width)
                pooling = self.pool(cells).flatten(1)  # (h w, P Q): what each cell of the map adds to each pooled one
                # Half a gigabyte of weights: piece by piece, so that no second copy of it appears.
                folded = torch.empty(len(weight), height * width, channels)
                for piece, target in zip(weight.detach().split(256), folded.split(256), strict=True):
                    target.copy_((piece.view(len(piece), channels, -1) @ pooling.t()).transpose(1, 2))
                self._kept = version, folded.flatten(1)
        return self._kept[1]
