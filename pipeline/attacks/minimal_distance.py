"""FMN (Pintor et al. 2021): the shortest change of an image that moves its logit across a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.attacks.ascent import Score, logit_of, look, margin_of, victims
from pipeline.attacks.balls import ball_of_radii
from pipeline.attacks.component import Norm, Passes, Settings
from pipeline.attacks.shapes import as_logit

# Shares of the current radius: change of the radius in one step, and length of a step; both fall along half a cosine.
# The first is the paper's. The paper's step, 1 to 0.01 in units of the image, is taken in units of the radius here, so
# that it fits any pixel scale.
RADIUS_CHANGE = (0.05, 0.001)
STEP = (1.0, 0.01)


class Distances(NamedTuple):
    """Result of a search for the nearest image on the other side.

    images: (N, ...), on the other side where the distance is finite, else the images as they were.
    distances: (N,) in the norm's units, infinite where the search did not cross the threshold.
    """

    images: Tensor
    distances: Tensor


@torch.inference_mode(False)
def fmn(
    score: Score,
    images: Tensor,
    *,
    steps: int,
    norm: Norm = "linf",
    threshold: float = 0.0,
    bisections: int = 12,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Distances:
    """Search for the shortest change that flips the sign of (logit - threshold), for every image by itself.

    The radius starts just beyond the distance of the linearised score and grows by it while the image stays on its
    side; once the threshold was crossed, it shrinks and grows in ever smaller steps around it (the paper's Algorithm 1,
    for one logit). The best change is then shortened by bisection along itself (ours). What comes out is an upper bound
    of the true distance; nothing is drawn at random.

    Cost for one image: `steps + 2 + bisections` forward and `steps` backward passes.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, ...) float tensor inside `bounds`.
        steps: number of steps, at least 1.
        norm: "linf" or "l2".
        threshold: a logit above it counts as positive, e.g. an operating point that was frozen on validation.
        bisections: halvings of the last bracket.
        bounds: smallest and largest pixel value.

    Raises:
        ValueError: images outside the bounds, unknown norm, no step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed")
    images, _ = victims(images, images.new_zeros(len(images)), bounds)
    if len(images) == 0:
        return Distances(images, images.new_zeros(0))
    length, dual = _norms(norm)
    rows = (-1, *[1] * (images.ndim - 1))
    # Nothing inside the bounds is farther away.
    farthest = length(torch.maximum(images - bounds[0], bounds[1] - images))

    def above(candidates: Tensor) -> Tensor:
        return as_logit(score(candidates)) - threshold

    positive = logit_of(above, images) > 0
    sides = positive.to(images.dtype)
    iterate, radius = images, farthest
    nearest, distance = images, torch.full_like(farthest, torch.inf)
    for step in range(steps):
        seen = look(above, iterate, sides)  # the margin against the image's own side grows towards the threshold
        over = _crossed(seen.margin, positive)
        here = length(iterate - images)
        closer = over & (here < distance)
        nearest, distance = torch.where(closer.reshape(rows), iterate, nearest), torch.where(closer, here, distance)
        change = _along_cosine(RADIUS_CHANGE, step, steps)
        slope = dual(seen.gradient)
        linear = torch.where(slope > 0, here + seen.margin.abs() / slope.where(slope > 0, 1.0), farthest)
        # A little beyond, or rounding may leave an image on the threshold for ever.
        beyond = linear.to(radius) * (1 + change) + 1e-6 * farthest
        growing = torch.where(torch.isfinite(distance), radius * (1 + change), beyond)
        radius = torch.where(over, torch.minimum(radius * (1 - change), distance), growing).clamp(max=farthest)
        space = ball_of_radii(images, radius, norm=norm, bounds=bounds)
        stride = _along_cosine(STEP, step, steps) * space.radius
        iterate = space.project(iterate + stride * space.direction(seen.gradient))
    here = length(iterate - images)
    closer = _crossed(margin_of(above, iterate, sides), positive) & (here < distance)
    nearest, distance = torch.where(closer.reshape(rows), iterate, nearest), torch.where(closer, here, distance)

    # The image lies on its own side, the nearest one on the other: the threshold is between them.
    path = nearest - images
    outer = torch.ones_like(farthest)
    inner = torch.zeros_like(farthest)
    for _ in range(bisections):
        middle = (inner + outer) / 2
        between = (images + middle.reshape(rows) * path).clamp(*bounds)
        over = _crossed(margin_of(above, between, sides), positive)
        nearest = torch.where(over.reshape(rows), between, nearest)
        inner, outer = torch.where(over, inner, middle), torch.where(over, middle, outer)
    return Distances(nearest, length(nearest - images).where(torch.isfinite(distance), torch.inf))


def _crossed(margins: Tensor, positive: Tensor) -> Tensor:
    # A logit on the threshold counts as negative.
    return (margins > 0) | ((margins == 0) & positive)


def _along_cosine(ends: tuple[float, float], step: int, steps: int) -> float:
    return ends[1] + (ends[0] - ends[1]) * (1 + math.cos(math.pi * step / steps)) / 2


def _norms(norm: Norm) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The norm (N, ...) -> (N,) and its dual."""
    if norm == "linf":
        return lambda x: x.abs().flatten(1).amax(1), lambda x: x.abs().flatten(1).sum(1)
    if norm == "l2":
        return (lambda x: torch.linalg.vector_norm(x.flatten(1), dim=1),) * 2
    raise ValueError(f"norm is {norm!r}; allowed are 'linf' and 'l2'")


class FMN(Settings):
    """`fmn` as a component: `attack(network, images, threshold=...)` gives `Distances`, not images at a budget.

    Args:
        steps: number of steps.
        norm: "linf" or "l2".
        bisections: halvings of the last bracket.
        others: bounds, amp_dtype and memory_gib of `Settings`.
    """

    name = "fmn"

    def __init__(self, *, steps: int = 100, norm: Norm = "linf", bisections: int = 12, **others: Any) -> None:
        super().__init__(budget=math.inf, steps=steps, norm=norm, **others)
        self.bisections = int(bisections)

    @property
    def passes(self) -> Passes:
        """Cost for one image."""
        return Passes(self.steps + 2 + self.bisections, self.steps)

    def __call__(self, network: nn.Module, images: Tensor, *, threshold: float = 0.0) -> Distances:
        """Search on `network`, which comes back as it was.

        Args:
            network: gives logits (N, 1) or (N, 2).
            images: (N, C, H, W) inside the bounds.
            threshold: a logit above it counts as positive.
        """
        images = images.detach().as_subclass(Tensor)
        with self.on(network) as (module, score):
            parts = [
                fmn(
                    score, part, steps=self.steps, norm=self.norm, threshold=threshold, bisections=self.bisections,
                    bounds=self.bounds,
                )
                for part in images.split(self.part_size(module, score, images))
            ]  # fmt: skip
        return Distances(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
