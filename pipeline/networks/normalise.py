"""Normalisation of images as a layer of a network."""

from __future__ import annotations

from torch import Tensor, nn


class Normalise(nn.Module):
    """Shift and scale images of [0, 1] to zero mean and unit deviation: (x - mean) / std.

    It stays a layer of its own. Folded into the first convolution, that layer's zero padding would stand for black
    instead of the mean.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
