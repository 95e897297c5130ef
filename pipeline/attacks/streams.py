"""Random numbers of one stream per image, so that an image's attack does not depend on its batch."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

# Odd, near 2^64 over the golden ratio (Knuth; Steele et al. 2014): successive indices land far apart.
_GOLDEN = 0x9E3779B97F4A7C15


def image_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """One seed per image: those given, or derived from one seed and the row, or drawn from the global random state.

    Raises:
        ValueError: another number of seeds than images.
    """
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    if isinstance(seed, int | Integral):
        return [(int(seed) + row * _GOLDEN) % 2**63 for row in range(count)]
    if len(seed) != count:
        raise ValueError(f"{len(seed)} seeds for {count} images; allowed are one seed or one per image")
    return [int(one) for one in seed]


class Streams:
    """One random stream per image.

    Args:
        images: (N, ...); numbers come in their dtype and on their device.
        seed: see `image_seeds`.
    """

    def __init__(self, images: Tensor, seed: int | Sequence[int] | None) -> None:
        self._like = images
        seeds = image_seeds(seed, len(images))
        self._generators = [torch.Generator(device=images.device).manual_seed(one) for one in seeds]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), (N, *shape)."""
        numbers = self._like.new_empty(len(self._generators), *shape)
        for row, generator in zip(numbers, self._generators, strict=True):
            row.uniform_(generator=generator)
        return numbers

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, (N, *shape)."""
        numbers = self._like.new_empty(len(self._generators), *shape)
        for row, generator in zip(numbers, self._generators, strict=True):
            row.normal_(generator=generator)
        return numbers

    def signs(self, *shape: int) -> Tensor:
        """-1 or +1 with equal probability, (N, *shape)."""
        return torch.where(self.uniform(*shape) < 0.5, -1.0, 1.0).to(self._like.dtype)
