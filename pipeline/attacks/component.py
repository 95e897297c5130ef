"""What attack components share: their settings, the network's mode, autocast, and batches that go through in parts."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from pipeline.attacks.mode import attack_mode
from pipeline.attacks.objectives import margin
from pipeline.attacks.parts import images_per_part
from pipeline.attacks.shapes import as_labels
from pipeline.attacks.streams import image_seeds

Score = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]
Norm = Literal["linf", "l2"]


class Passes(NamedTuple):
    """What an attack costs for one image on the network that it is called with.

    forward: passes through the network.
    backward: gradients with respect to the image, each about the price of a forward pass.
    """

    forward: int
    backward: int


class Settings:
    """Settings of an attack at a stated budget, checked.

    Args:
        budget: largest change: of a pixel for "linf", the Euclidean length of the whole change for "l2", in units of
            the images.
        steps: number of steps, queries or draws.
        restarts: number of starts, the first included.
        norm: "linf" or "l2".
        bounds: smallest and largest pixel value.
        amp_dtype: run the network under autocast to this type, e.g. "bfloat16"; image and perturbation stay as they
            are. None runs without autocast, also inside somebody's autocast.
        memory_gib: what the attack may keep between forward and backward; a batch that needs more goes through in
            parts, whose size is found by one forward pass of one image. None takes every batch as a whole.

    Raises:
        ValueError: negative budget, no step, no start, unknown norm, bounds out of order, no memory.
    """

    name = "attack"

    def __init__(
        self,
        *,
        budget: float,
        steps: int,
        restarts: int = 1,
        norm: Norm = "linf",
        bounds: tuple[float, float] = (0.0, 1.0),
        amp_dtype: str | None = None,
        memory_gib: float | None = None,
    ) -> None:
        if budget < 0:
            raise ValueError(f"budget is {budget}; allowed are numbers from 0 on, in units of the images")
        if steps < 1:
            raise ValueError(f"steps is {steps}; at least 1 is needed")
        if restarts < 1:
            raise ValueError(f"restarts is {restarts}; at least 1 is needed")
        if norm not in ("linf", "l2"):
            raise ValueError(f"norm is {norm!r}; allowed are 'linf' and 'l2'")
        if not bounds[0] < bounds[1]:
            raise ValueError(f"bounds are {tuple(bounds)}; the first must be below the second")
        if memory_gib is not None and not memory_gib > 0:
            raise ValueError(f"memory_gib is {memory_gib}; allowed are numbers above 0, or None for no limit")
        self.budget = float(budget)
        self.steps = int(steps)
        self.restarts = int(restarts)
        self.norm: Norm = norm
        self.bounds = (float(bounds[0]), float(bounds[1]))
        self.amp_dtype = None if amp_dtype is None else getattr(torch, amp_dtype)
        self.memory_gib = memory_gib

    @property
    def attack_id(self) -> str:
        """Name of the attack with its norm, steps, restarts and budget, as it stands in scores.csv."""
        norm = "-l2" if self.norm == "l2" else ""
        restarts = f"x{self.restarts}" if self.restarts > 1 else ""
        return f"{self.name}{norm}-{self.steps}{restarts}@{self.budget:g}"

    def scaled(self, fraction: float) -> Self:
        """The same attack with its budget, and a step size that was given, times `fraction`."""
        other = copy.copy(self)
        other.budget = fraction * self.budget
        if getattr(self, "step_size", None) is not None:
            other.step_size = fraction * self.step_size  # type: ignore[attr-defined]
        return other

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[tuple[nn.Module, Score]]:
        """The bare network in the attack's mode, and the score that calls it under the attack's autocast."""
        with attack_mode(network) as module:

            def score(candidates: Tensor) -> Tensor:
                with torch.autocast(candidates.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                    return module(candidates)

            yield module, score

    def part_size(self, module: nn.Module, score: Score, images: Tensor) -> int:
        """How many of the images go through together."""
        if self.memory_gib is None or len(images) < 2:
            return max(1, len(images))
        return images_per_part(module, score, images, self.memory_gib)


class Component(Settings, ABC):
    """An attack on single images for configurations: `attack(network, images, labels, seed=...)`.

    A subclass says in `run` which function of the room it calls, and in `passes` what that costs.
    """

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """Cost for one image."""

    @abstractmethod
    def run(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int], objective: Objective) -> Tensor:
        """Attack images (N, C, H, W) with labels (N,) on `score`, one seed per image."""

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int | Sequence[int] | None = None,
        objective: Objective = margin,
    ) -> Tensor:
        """Attack `images` on `network`, which comes back as it was.

        Args:
            network: gives logits (N, 1) or (N, 2).
            images: (N, C, H, W) inside the bounds.
            labels: (N,) or (N, 1) in {0, 1}.
            seed: one number for the batch, or one per image, which makes an image's random choices independent of
                the batch that it stands in. None draws from the global random state.
            objective: `objective(logits (N,), labels (N,)) -> (N,)`, ascended. Which iterate is returned is decided by
                the margin, whatever is ascended.

        Returns:
            Adversarial images (N, C, H, W), detached.
        """
        images = images.detach().as_subclass(Tensor)
        labels = as_labels(labels, len(images))
        seeds = image_seeds(seed, len(images))
        with self.on(network) as (module, score):
            size = self.part_size(module, score, images)
            parts = [
                self.run(
                    score,
                    images[first : first + size],
                    labels[first : first + size],
                    seed=seeds[first : first + size],
                    objective=objective,
                )
                for first in range(0, max(len(images), 1), size)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class BlackBox(Component):
    """An attack that asks for scores alone, so that nothing but the margin can be its objective."""

    @abstractmethod
    def query(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int]) -> Tensor:
        """Attack images (N, C, H, W) with labels (N,) on `score`, one seed per image."""

    def run(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int], objective: Objective) -> Tensor:
        if objective is not margin:
            raise ValueError(f"{type(self).__name__} sees scores only and raises the margin; it takes no objective")
        return self.query(score, images, labels, seed=seed)
