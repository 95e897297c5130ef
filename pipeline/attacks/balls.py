"""Where an attack may go: the ball of its budget cut with the bounds, with steps, projections and random points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from pipeline.attacks.shapes import per_image
from pipeline.attacks.streams import Streams

# Newton steps of `fit_l2`; each adds at least one pixel's bound, a few suffice for the float32 result.
_NEWTON_STEPS = 12


def ball(
    images: Tensor,
    budget: float | Tensor,
    *,
    norm: Literal["linf", "l2"] = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    groups: Tensor | None = None,
) -> Ball:
    """The set of images within the budget and the bounds.

    Args:
        images: (N, ...) inside the bounds.
        budget: a number, (N,), or (G,) with groups.
        norm: "linf", largest change of a pixel, or "l2", Euclidean length of the change.
        bounds: smallest and largest pixel value.
        groups: (N,) whole numbers from 0 on: images of a group share one "l2" budget.
    """
    if norm == "linf":
        return LinfBall(images, per_image(budget, images, name="budget"), bounds)
    if norm != "l2":
        raise ValueError(f"norm is {norm!r}; allowed are 'linf' and 'l2'")
    count = len(images)
    if groups is not None and count:
        count = int(groups.max()) + 1
    radius = per_image(budget, images.new_empty(count, *[1] * (images.ndim - 1)), name="budget").reshape(count)
    return L2Ball(images, radius, bounds, groups)


def ball_of_radii(
    images: Tensor, radii: Tensor, *, norm: Literal["linf", "l2"] = "linf", bounds: tuple[float, float] = (0.0, 1.0)
) -> Ball:
    """`ball` with a radius (N,) from 0 on for each image, taken as it is: a check would wait for the device."""
    if norm == "linf":
        return LinfBall(images, radii.reshape(-1, *[1] * (images.ndim - 1)), bounds)
    return L2Ball(images, radii, bounds, None)


class Ball(ABC):
    """Images within a budget around `images` and inside the bounds."""

    def __init__(self, images: Tensor, bounds: tuple[float, float]) -> None:
        self.images = images
        self.bounds = bounds

    @abstractmethod
    def project(self, candidates: Tensor) -> Tensor:
        """The nearest images within the set."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The direction of length 1 in the ball's norm that ascends fastest; 0 where the gradient is."""

    @abstractmethod
    def random_point(self, streams: Streams) -> Tensor:
        """Uniform in the ball, then moved into the bounds."""

    @property
    @abstractmethod
    def radius(self) -> Tensor:
        """Budget, broadcasting over the images."""


class LinfBall(Ball):
    """Every pixel changes by at most the budget."""

    def __init__(self, images: Tensor, budget: Tensor, bounds: tuple[float, float]) -> None:
        super().__init__(images, bounds)
        self._budget = budget
        self.lower = (images - budget).clamp_(min=bounds[0])
        self.upper = (images + budget).clamp_(max=bounds[1])

    @property
    def radius(self) -> Tensor:
        return self._budget

    def project(self, candidates: Tensor) -> Tensor:
        return torch.clamp(candidates, self.lower, self.upper)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def random_point(self, streams: Streams) -> Tensor:
        noise = 2 * streams.uniform(*self.images.shape[1:]) - 1
        return self.project(self.images + self._budget * noise)


class L2Ball(Ball):
    """The changes of a group of images, taken together, have at most the budget's Euclidean length."""

    def __init__(self, images: Tensor, radius: Tensor, bounds: tuple[float, float], groups: Tensor | None) -> None:
        super().__init__(images, bounds)
        self.groups = groups
        self._per_group = radius
        self._low, self._high = bounds[0] - images, bounds[1] - images

    @property
    def radius(self) -> Tensor:
        return _spread(self._per_group, self.groups, self.images)

    def project(self, candidates: Tensor) -> Tensor:
        change = fit_l2(candidates - self.images, self._low, self._high, self._per_group, self.groups)
        return torch.clamp(self.images + change, *self.bounds)

    def direction(self, gradient: Tensor) -> Tensor:
        # Scaled before squaring: a gradient of 1e-25, as a saturated network gives, has squares of 0 in float32.
        peak = _gathered(gradient.abs().flatten(1).amax(1), self.groups, self._per_group, "amax")
        scaled = gradient / _spread(peak.where(peak > 0, 1.0), self.groups, gradient)
        length = _squares(scaled, self.groups, self._per_group).sqrt()
        return scaled / _spread(length.where(length > 0, 1.0), self.groups, gradient)

    def random_point(self, streams: Streams) -> Tensor:
        unit = self.direction(streams.normal(*self.images.shape[1:]))
        # Uniform in a ball of dimension d: the length is u^(1 / d). Of an exam's n draws the largest, to the power n,
        # is uniform again, and d is n times an image's dimension: so the largest u^(1 / d of one image) serves.
        share = streams.uniform(1)[:, 0] ** (1 / self.images[:1].numel()) if len(self.images) else self._per_group
        share = _gathered(share, self.groups, self._per_group, "amax")
        return self.project(self.images + _spread(share * self._per_group, self.groups, self.images) * unit)


def _gathered(values: Tensor, groups: Tensor | None, like: Tensor, how: str) -> Tensor:
    """Sum or maximum (G,) of values (N,) from 0 on; without groups the values."""
    return values if groups is None else values.new_zeros(len(like)).scatter_reduce(0, groups, values, how)


def _squares(values: Tensor, groups: Tensor | None, like: Tensor) -> Tensor:
    """Sums of squares (G,) of values (N, ...)."""
    return _gathered(values.flatten(1).square().sum(1), groups, like, "sum")


def _spread(values: Tensor, groups: Tensor | None, like: Tensor) -> Tensor:
    """Values (G,) so that they broadcast over images (N, ...)."""
    return (values if groups is None else values[groups]).reshape(-1, *[1] * (like.ndim - 1))


def fit_l2(change: Tensor, low: Tensor, high: Tensor, radius: Tensor, groups: Tensor | None = None) -> Tensor:
    """Euclidean projection of a change onto the box [low, high] cut with the ball of each group's radius.

    By the Karush-Kuhn-Tucker conditions the projection is clamp(t change, low, high) with one t in [0, 1] per
    group. The squared length is a concave, piecewise linear function of t^2, so that Newton's steps from the ball's own
    scaling approach t from below: every one of them lies within the ball.

    Args:
        change: (N, ...).
        low: (N, ...), at most 0.
        high: (N, ...), at least 0.
        radius: (G,), or (N,) without groups.
        groups: (N,) in [0, G); None makes every image a group.
    """

    def squares(values: Tensor) -> Tensor:
        return _squares(values, groups, radius)

    inside = squares(change.clamp(low, high)).sqrt() <= radius
    length = squares(change).sqrt()
    scale = (radius / length.where(length > 0, 1.0)).clamp(max=1.0)
    for _ in range(_NEWTON_STEPS):
        scaled = change * _spread(scale, groups, change)
        free = (scaled > low) & (scaled < high)
        held = squares(scaled.clamp(low, high) * ~free)
        moving = squares(change * free)
        left = (radius.square() - held).clamp(min=0.0)
        step = (left / moving.where(moving > 0, 1.0)).sqrt().where(moving > 0, scale)
        scale = torch.maximum(scale, step.clamp(max=1.0))
    scale = scale.where(~inside, 1.0)
    return (change * _spread(scale, groups, change)).clamp(low, high)
