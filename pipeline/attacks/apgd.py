"""APGD (Croce and Hein 2020): PGD with momentum whose step size halves where an image no longer gets worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.attacks.ascent import Best, Objective, Score, look, margin_of, victims
from pipeline.attacks.balls import Ball, ball
from pipeline.attacks.component import Component, Norm, Passes
from pipeline.attacks.objectives import margin
from pipeline.attacks.streams import Streams

# Constants of the paper's section 3 and Algorithm 1.
MOMENTUM = 0.75
FIRST_CHECK, CHECK_DECREASE, SHORTEST_CHECK = 0.22, 0.03, 0.06  # shares of the steps between checkpoints
INCREASING = 0.75  # share of steps since the last checkpoint that must have gone up


@torch.inference_mode(False)
def apgd(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    budget: float | Tensor,
    steps: int,
    norm: Norm = "linf",
    restarts: int = 1,
    objective: Objective = margin,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Ascend `objective` by APGD and return the iterate with the largest margin over all steps and starts.

    Steps start at twice the budget and halve at checkpoints, for each image by itself: where fewer than 75% of the
    steps since the last checkpoint went up, or where neither step size nor best value changed since then. The image
    goes on from its best iterate. Nothing stops at misclassification. The first start is the image itself, the others
    are uniform in the budget.

    Cost for one image: `restarts * (steps + 1)` forward and `restarts * steps` backward passes.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, ...) float tensor inside `bounds`.
        labels: (N,) or (N, 1) in {0, 1}.
        budget: see `best_pgd`; a number or (N,).
        steps: number of steps, at least 1; the paper's is 100.
        norm: "linf" or "l2".
        restarts: number of starts.
        objective: `objective(logits (N,), labels (N,)) -> (N,)`; steps adapt to it.
        bounds: smallest and largest pixel value.
        seed: of the starts, one or one per image.

    Returns:
        Adversarial images of the shape, dtype and device of `images`, detached.

    Raises:
        ValueError: see `best_pgd`.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps is {steps} and restarts {restarts}; at least 1 of each is needed")
    images, labels = victims(images, labels, bounds)
    space = ball(images, budget, norm=norm, bounds=bounds)
    streams = Streams(images, seed)
    best = Best(images)
    for restart in range(restarts):
        start = space.random_point(streams) if restart else images
        _ascend(score, start, labels, space=space, steps=steps, objective=objective, best=best)
    return best.images


def _ascend(
    score: Score, start: Tensor, labels: Tensor, *, space: Ball, steps: int, objective: Objective, best: Best
) -> None:
    rows = (-1, *[1] * (start.ndim - 1))
    seen = look(score, start, labels, objective)
    best.offer(start, seen.margin)
    # Best by the objective, from which an image goes on: iterate, its gradient, its value.
    top, slope, height = start, seen.gradient, seen.value
    before, iterate, gradient = start, start, seen.gradient
    length = 2 * space.radius.expand(len(start), *rows[1:])
    values = [seen.value]
    halved = torch.ones_like(height, dtype=torch.bool)
    height_at_check = height
    wait = max(int(FIRST_CHECK * steps), 1)
    since = 0
    for step in range(steps):
        ahead = space.project(iterate + length * space.direction(gradient))
        share = MOMENTUM if step else 1.0
        ahead = space.project(iterate + share * (ahead - iterate) + (1 - share) * (iterate - before))
        before, iterate = iterate, ahead
        if step == steps - 1:  # nothing follows that would need a gradient
            best.offer(iterate, margin_of(score, iterate, labels))
            return
        seen = look(score, iterate, labels, objective)
        best.offer(iterate, seen.margin)
        gradient = seen.gradient
        better = seen.value > height
        wide = better.reshape(rows)
        top, slope = torch.where(wide, iterate, top), torch.where(wide, gradient, slope)
        height = torch.where(better, seen.value, height)
        values = [*values[-wait:], seen.value]
        since += 1
        if since < wait:
            continue
        path = torch.stack(values[-wait - 1 :])
        rises = (path[1:] > path[:-1]).sum(0)
        stuck = (rises <= INCREASING * wait) | (~halved & (height_at_check >= height))
        halved, height_at_check = stuck, height
        wide = stuck.reshape(rows)
        length = torch.where(wide, length / 2, length)
        iterate, gradient = torch.where(wide, top, iterate), torch.where(wide, slope, gradient)
        since, wait = 0, max(wait - max(int(CHECK_DECREASE * steps), 1), max(int(SHORTEST_CHECK * steps), 1))


class APGD(Component):
    """`apgd` as a component.

    Args:
        budget: see `Settings`.
        steps: steps of one start; the paper's is 100.
        restarts: number of starts.
        norm: "linf" or "l2".
        others: bounds, amp_dtype and memory_gib of `Settings`.
    """

    name = "apgd"

    def __init__(
        self, *, budget: float, steps: int = 100, restarts: int = 1, norm: Norm = "linf", **others: Any
    ) -> None:
        super().__init__(budget=budget, steps=steps, restarts=restarts, norm=norm, **others)

    @property
    def passes(self) -> Passes:
        return Passes(self.restarts * (self.steps + 1), self.restarts * self.steps)

    def run(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int], objective: Objective) -> Tensor:
        return apgd(
            score, images, labels, budget=self.budget, steps=self.steps, norm=self.norm, restarts=self.restarts,
            objective=objective, bounds=self.bounds, seed=seed,
        )  # fmt: skip
