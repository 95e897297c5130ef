"""Square attack (Andriushchenko et al. 2020) in L-infinity: random squares, kept where they raise the margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.attacks.ascent import Best, Score, margin_of, victims
from pipeline.attacks.balls import LinfBall
from pipeline.attacks.component import BlackBox, Passes
from pipeline.attacks.shapes import per_image
from pipeline.attacks.streams import Streams

# Share of the image that a square covers, halved behind these queries of 10,000 (the paper's schedule).
FIRST_SHARE = 0.8
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@torch.inference_mode(False)
def square(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    budget: float | Tensor,
    queries: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Raise the margin by changing one square after another to the budget's edge; only scores are asked for.

    It starts with vertical stripes of plus or minus the budget. A query sets a random square of every channel to the
    image plus or minus the budget and is kept where the margin rises. Nothing stops at misclassification. A square
    that would change nothing gets the other sign.

    Cost for one image: `queries` forward passes.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, C, H, W) inside `bounds`.
        labels: (N,) or (N, 1) in {0, 1}.
        budget: largest absolute change of a pixel; a number or (N,).
        queries: at least 1; the paper's is 5,000.
        bounds: smallest and largest pixel value.
        seed: one or one per image.

    Returns:
        Adversarial images of the shape, dtype and device of `images`.

    Raises:
        ValueError: see `pgd`; no query.
    """
    if queries < 1:
        raise ValueError(f"queries is {queries}; at least 1 is needed")
    images, labels = victims(images, labels, bounds)
    space = LinfBall(images, per_image(budget, images, name="budget"), bounds)
    streams = Streams(images, seed)
    channels, height, width = images.shape[1:]
    best = Best(images)
    stripes = space.project(images + space.radius * streams.signs(channels, 1, width))
    best.offer(stripes, margin_of(score, stripes, labels))
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    for query in range(1, queries):
        side = side_length(query, queries, height, width)
        places = streams.uniform(2)
        top = (places[:, :1] * (height - side + 1)).long()
        left = (places[:, 1:] * (width - side + 1)).long()
        inside = ((rows >= top) & (rows < top + side))[:, None, :, None]
        inside = inside & ((columns >= left) & (columns < left + side))[:, None, None, :]
        signs = streams.signs(channels, 1, 1)
        candidates = _painted(best.images, space, inside, signs)
        same = (candidates == best.images).flatten(1).all(1).reshape(-1, 1, 1, 1)
        candidates = torch.where(same, _painted(best.images, space, inside, -signs), candidates)
        best.offer(candidates, margin_of(score, candidates, labels))
    return best.images


def side_length(query: int, queries: int, height: int, width: int) -> int:
    """Side of a query's square in pixels, by the paper's schedule for 10,000 queries."""
    position = int(query / queries * 10000)
    share = FIRST_SHARE / 2 ** sum(position > halved for halved in HALVED_AT)
    return min(max(round((share * height * width) ** 0.5), 1), height, width)


def _painted(images: Tensor, space: LinfBall, inside: Tensor, signs: Tensor) -> Tensor:
    return torch.where(inside, torch.where(signs > 0, space.upper, space.lower), images)


class Square(BlackBox):
    """`square` as a component; `steps` in the table of scores is the number of queries.

    Args:
        budget: see `Settings`.
        queries: of an image.
        others: bounds and amp_dtype of `Settings`.
    """

    name = "square"

    def __init__(self, *, budget: float, queries: int = 1000, **others: Any) -> None:
        super().__init__(budget=budget, steps=queries, **others)

    @property
    def passes(self) -> Passes:
        return Passes(self.steps, 0)

    def query(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int]) -> Tensor:
        return square(score, images, labels, budget=self.budget, queries=self.steps, bounds=self.bounds, seed=seed)
