"""PGD for a test: several starts, and of all iterates the one with the largest margin, in L-infinity or L2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.attacks.ascent import Best, Objective, Score, look, margin_of, victims
from pipeline.attacks.balls import ball
from pipeline.attacks.component import Component, Norm, Passes
from pipeline.attacks.objectives import margin
from pipeline.attacks.shapes import per_image
from pipeline.attacks.streams import Streams


@torch.inference_mode(False)
def best_pgd(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    budget: float | Tensor,
    steps: int,
    step_size: float | Tensor | None = None,
    norm: Norm = "linf",
    restarts: int = 1,
    objective: Objective = margin,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Ascend `objective` from several starts and return the iterate with the largest margin (Madry et al. 2018).

    The first start is the image itself, so that no image comes out with a smaller margin than it had; the others are
    uniform in the budget. An image is never left alone because it is misclassified: for the AUC its margin counts.
    A step goes along the gradient's sign ("linf") or along the gradient at length 1 ("l2"), and ends in a projection
    onto the budget's ball cut with the bounds, which is exact for both norms.

    Cost for one image: `restarts * (steps + 1)` forward and `restarts * steps` backward passes; the one forward pass
    more than in `pgd` looks at the last iterate.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, ...) float tensor inside `bounds`.
        labels: (N,) or (N, 1) in {0, 1}.
        budget: largest change of a pixel ("linf") or length of the whole change ("l2"); a number or (N,).
        steps: number of steps, at least 1.
        step_size: length of a step in the same units, a number or (N,); None means 2.5 * budget / steps.
        norm: "linf" or "l2".
        restarts: number of starts.
        objective: `objective(logits (N,), labels (N,)) -> (N,)`, ascended independently for every image.
        bounds: smallest and largest pixel value.
        seed: of the starts, one or one per image.

    Returns:
        Adversarial images of the shape, dtype and device of `images`, detached.

    Raises:
        ValueError: see `pgd`; no start.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps is {steps} and restarts {restarts}; at least 1 of each is needed")
    images, labels = victims(images, labels, bounds)
    space = ball(images, budget, norm=norm, bounds=bounds)
    length = 2.5 * space.radius / steps if step_size is None else per_image(step_size, images, name="step_size")
    streams = Streams(images, seed)
    best = Best(images)
    for restart in range(restarts):
        iterate = space.random_point(streams) if restart else images
        for _ in range(steps):
            seen = look(score, iterate, labels, objective)
            best.offer(iterate, seen.margin)
            iterate = space.project(iterate + length * space.direction(seen.gradient))
        best.offer(iterate, margin_of(score, iterate, labels))
    return best.images


class BestPGD(Component):
    """`best_pgd` as a component; as strong as PGD gets, for tests. `PGD` stays the attack of the training.

    Args:
        budget: see `Settings`; the paper tests at 1e-4 in "linf".
        steps: steps of one start.
        restarts: number of starts.
        norm: "linf" or "l2".
        step_size: None means 2.5 * budget / steps.
        others: bounds, amp_dtype and memory_gib of `Settings`.
    """

    name = "best-pgd"

    def __init__(
        self,
        *,
        budget: float,
        steps: int = 70,
        restarts: int = 1,
        norm: Norm = "linf",
        step_size: float | None = None,
        **others: Any,
    ) -> None:
        super().__init__(budget=budget, steps=steps, restarts=restarts, norm=norm, **others)
        self.step_size = step_size

    @property
    def passes(self) -> Passes:
        return Passes(self.restarts * (self.steps + 1), self.restarts * self.steps)

    def run(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int], objective: Objective) -> Tensor:
        return best_pgd(
            score, images, labels, budget=self.budget, steps=self.steps, step_size=self.step_size, norm=self.norm,
            restarts=self.restarts, objective=objective, bounds=self.bounds, seed=seed,
        )  # fmt: skip
