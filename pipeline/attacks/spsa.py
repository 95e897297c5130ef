"""SPSA (Uesato et al. 2018): ascent along gradients that are estimated from scores alone."""

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

# Adam's (Kingma and Ba 2015), which the paper uses.
FIRST_DECAY, SECOND_DECAY = 0.9, 0.999


@torch.inference_mode(False)
def spsa(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    budget: float | Tensor,
    steps: int,
    samples: int,
    step_size: float | Tensor | None = None,
    probe: float | Tensor | None = None,
    together: int = 64,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Ascend the margin by Adam on two-sided differences along random signs, in L-infinity.

    Probes are kept inside the bounds, not inside the budget: an attacker may ask about any image. The iterate with the
    largest margin is returned, the image itself among them.

    Cost for one image: `steps * (samples + 1) + 1` forward passes.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, ...) float tensor inside `bounds`.
        labels: (N,) or (N, 1) in {0, 1}.
        budget: largest absolute change of a pixel; a number or (N,).
        steps: number of steps, at least 1.
        samples: probes of a step, an even number: each random direction is asked both ways.
        step_size: longest change of a pixel in a step, a number or (N,); None means the budget: noisy gradients move
            a pixel to and fro, and with 20 x 32 probes on a small network the margin rose by 0.095 at one budget, 0.077
            at 2.5 / 20 of it (the paper's 0.01 would be 100 budgets of 1e-4).
        probe: change of every pixel in a probe; None means the budget.
        together: largest number of images in one forward pass, at least the batch.
        bounds: smallest and largest pixel value.
        seed: one or one per image.

    Returns:
        Adversarial images of the shape, dtype and device of `images`.

    Raises:
        ValueError: see `pgd`; an odd number of samples.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed")
    if samples < 2 or samples % 2:
        raise ValueError(f"samples is {samples}; allowed are even numbers from 2 on, half of them in each direction")
    images, labels = victims(images, labels, bounds)
    if len(images) == 0:
        return images.clone()
    space = LinfBall(images, per_image(budget, images, name="budget"), bounds)
    length = space.radius if step_size is None else per_image(step_size, images, name="step_size")
    width = space.radius if probe is None else per_image(probe, images, name="probe")
    pairs = min(max(together // (2 * len(images)), 1), samples // 2)
    streams = Streams(images, seed)
    best = Best(images)
    best.offer(images, margin_of(score, images, labels))
    iterate, mean, square = images, torch.zeros_like(images), torch.zeros_like(images)
    for step in range(1, steps + 1):
        gradient = torch.zeros_like(images)
        for first in range(0, samples // 2, pairs):
            count = min(pairs, samples // 2 - first)
            signs = streams.signs(count, *images.shape[1:]).transpose(0, 1)
            gradient += _difference(score, iterate, labels, signs, width, bounds)
        peak = gradient.abs().flatten(1).amax(1).reshape(width.shape)
        gradient = gradient / peak.where(peak > 0, 1.0)  # Adam's steps do not depend on the scale; its epsilon would
        mean = FIRST_DECAY * mean + (1 - FIRST_DECAY) * gradient
        square = SECOND_DECAY * square + (1 - SECOND_DECAY) * gradient.square()
        rise = (mean / (1 - FIRST_DECAY**step)) / ((square / (1 - SECOND_DECAY**step)).sqrt() + 1e-8)
        iterate = space.project(iterate + length * rise)
        best.offer(iterate, margin_of(score, iterate, labels))
    return best.images


def _difference(
    score: Score, iterate: Tensor, labels: Tensor, signs: Tensor, width: Tensor, bounds: tuple[float, float]
) -> Tensor:
    """Sum of the margin's differences along signs (P, N, ...), times them: (N, ...), a gradient up to a factor."""
    count = len(signs)
    probes = torch.cat([iterate + width * signs, iterate - width * signs]).clamp_(*bounds)
    margins = margin_of(score, probes.flatten(0, 1), labels.repeat(2 * count)).reshape(2, count, -1)
    change = (margins[0] - margins[1]).reshape(count, -1, *[1] * (iterate.ndim - 1))
    return (change.to(signs) * signs).sum(0)


class SPSA(BlackBox):
    """`spsa` as a component.

    Args:
        budget: see `Settings`.
        steps: number of steps.
        samples: probes of a step, even.
        step_size: None means the budget.
        together: largest number of images in one forward pass.
        others: bounds and amp_dtype of `Settings`.
    """

    name = "spsa"

    def __init__(
        self,
        *,
        budget: float,
        steps: int = 20,
        samples: int = 32,
        step_size: float | None = None,
        together: int = 64,
        **others: Any,
    ) -> None:
        super().__init__(budget=budget, steps=steps, **others)
        if samples < 2 or samples % 2:
            raise ValueError(f"samples is {samples}; allowed are even numbers from 2 on")
        self.samples = int(samples)
        self.step_size = step_size
        self.together = int(together)

    @property
    def attack_id(self) -> str:
        """Name with steps, samples and budget, e.g. "spsa-20x32@0.01"."""
        return f"{self.name}-{self.steps}x{self.samples}@{self.budget:g}"

    @property
    def passes(self) -> Passes:
        return Passes(self.steps * (self.samples + 1) + 1, 0)

    def query(self, score: Score, images: Tensor, labels: Tensor, *, seed: list[int]) -> Tensor:
        return spsa(
            score, images, labels, budget=self.budget, steps=self.steps, samples=self.samples,
            step_size=self.step_size, together=self.together, bounds=self.bounds, seed=seed,
        )  # fmt: skip
