"""What an attack costs: images that went forward and backward through a score."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Count(nn.Module):
    """A score, or a network, that counts: one image through it once is 1.

    A module, so that it stands where an attack wants a network: `attack(Count(network), images, labels)`.

    Attributes:
        forward_images: images that went forward.
        backward_images: images whose gradient was asked for.

    Args:
        score: maps images (N, ...) to outputs (N, ...).
    """

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score
        self.reset()

    def reset(self) -> None:
        """Start again at 0."""
        self.forward_images = 0
        self.backward_images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forward_images += len(images)
        outputs = self.score(images)
        if outputs.requires_grad:
            outputs.register_hook(lambda _: self._backward(len(images)))
        return outputs

    def _backward(self, images: int) -> None:
        self.backward_images += images
