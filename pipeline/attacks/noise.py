"""Random noise within the budget, the best of several draws: what an attack has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.attacks.ascent import Best, Score, margin_of, victims
from pipeline.attacks.balls import ball
from pipeline.attacks.component import BlackBox, Norm, Passes
from pipeline.attacks.streams import Streams


@torch.inference_mode(False)
def noise(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    budget: float | Tensor,
    draws: int,
    norm: Norm = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Uniform noise in the budget's ball, moved into the bounds; of `draws` the one with the largest margin.

    Cost for one image: `draws` forward passes.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, ...) float tensor inside `bounds`.
        labels: (N,) or (N, 1) in {0, 1}.
        budget: see `best_pgd`; a number or (N,).
        draws: at least 1.
        norm: "linf" or "l2".
        bounds: smallest and largest pixel value.
        seed: one or one per image.

    Returns:
        Noisy images of the shape, dtype and device of `images`.

    Raises:
        ValueError: see `best_pgd`; no draw.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least 1 is needed")
    images, labels = victims(images, labels, bounds)
    space = ball(images, budget, norm=norm, bounds=bounds)
    streams = Streams(images, seed)
    best = Best(images)
    for _ in range(draws):
        drawn = space.random_point(streams)
        best.offer(drawn, margin_of(score, drawn, labels))
    return best.images


class Noise(BlackBox):
    """`noise` as a component; `steps` in the table of scores is the number of draws.

    Args:
        budget: see `Settings`.
        draws: of an image.
        norm: "linf" or "l2".
        others: bounds and amp_dtype of `Settings`.
    """

    name = "noise"

    def __init__(self, *, budget: float, draws: int = 10, norm: Norm = "linf", **others: Any) -> None:
        super().__init__(budget=budget, steps=draws, norm=norm, **others)

    @property
    def passes(self) -> Passes:
        return Passes(self.steps, 0)

    def query(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int]) -> Tensor:
        return noise(
            score, images, labels, budget=self.budget, draws=self.steps, norm=self.norm, bounds=self.bounds, seed=seed
        )
