"""Projected gradient descent in the maximum norm (Madry et al. 2018), on the margin of one logit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.attacks.component import Passes, Settings
from pipeline.attacks.objectives import margin
from pipeline.attacks.shapes import as_images, as_labels, as_logit, per_image, start_noise

Score = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]


@torch.inference_mode(False)  # an attack differentiates, also where scores are computed without
def pgd(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    budget: float | Tensor,
    steps: int,
    step_size: float | Tensor,
    objective: Objective = margin,
    bounds: tuple[float, float] = (0.0, 1.0),
    random_start: bool = True,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Ascend `objective` by `steps` sign steps inside the budget and the bounds (inner maximum of Eq. 3).

    The score is called `steps` times, each time with one backward pass with respect to the images alone; gradients
    are taken by `torch.autograd.grad`, so no `.grad` field is touched. Modes and parameter flags of a network are the
    caller's business (`attack_mode`).

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        images: (N, ...) float tensor inside `bounds`.
        labels: (N,) or (N, 1) in {0, 1}.
        budget: largest absolute change of a pixel, in units of the images; a number or (N,).
        steps: number of sign steps, at least 1.
        step_size: length of a step in units of the images; a number or (N,).
        objective: `objective(logits (N,), labels (N,)) -> (N,)`, ascended independently for every image.
        bounds: smallest and largest pixel value.
        random_start: start from uniform noise in the budget, else from the image.
        generator: source of that noise, on the images' device.
        noise: the start itself, in units of the budget (values in [-1, 1]); overrides `generator`.
        on_step: called as `on_step(step, iterate)` after every step, for methods that use the path; the iterate is a
            copy that later steps leave alone.

    Returns:
        Adversarial images of the shape, dtype and device of `images`, detached.

    Raises:
        ValueError: shapes that do not fit, images outside the bounds, negative budget or no step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed (0 steps would leave the images unattacked)")
    images = as_images(images, bounds)
    flat_labels = as_labels(labels, len(images))
    if images.is_inference():
        images, flat_labels = images.clone(), flat_labels.clone()
    budget = per_image(budget, images, name="budget")
    step_size = per_image(step_size, images, name="step_size")
    lower = (images - budget).clamp_(min=bounds[0])
    upper = (images + budget).clamp_(max=bounds[1])

    adversarial = images.clone()
    if random_start:
        if noise is None:
            noise = torch.empty_like(images).uniform_(-1, 1, generator=generator)
        adversarial = adversarial.addcmul_(noise, budget.expand_as(images)).clamp_(lower, upper)
    for step in range(steps):
        adversarial.requires_grad_(True)
        with torch.enable_grad():
            value = objective(as_logit(score(adversarial)), flat_labels)
            (gradient,) = torch.autograd.grad(value.sum(), adversarial)
        adversarial = adversarial.detach()
        adversarial = adversarial.addcmul_(gradient.sign(), step_size.expand_as(images)).clamp_(lower, upper)
        if on_step is not None:
            on_step(step, adversarial.clone())
    return adversarial


class PGD(Settings):
    """PGD as a component for configurations: `attack(network, images, labels, seed=...)`.

    Args:
        budget: largest absolute change of a pixel, in units of the images. The paper trains at 0.01 and tests at
            1e-4; the pixel scale is not stated in the paper, ours is [0, 1].
        steps: number of steps; the paper trains with 7.
        step_size: None means 2.5 * budget / steps (Madry et al. 2018; not stated in the paper).
        bounds: smallest and largest pixel value.
        random_start: uniform start (not stated in the paper).
        amp_dtype: run the network under autocast to this type, e.g. "bfloat16"; image and perturbation stay as they
            are. None runs without autocast, also inside somebody's autocast.
        memory_gib: what the attack may keep between forward and backward; a batch that needs more goes through in
            parts, whose size is found by one forward pass of one image. The start is drawn for the whole batch, so
            that the parts change a gradient by rounding at most. None takes every batch as a whole.

    Raises:
        ValueError: negative budget, no step, bounds out of order, no memory.
    """

    name = "pgd"

    def __init__(
        self,
        *,
        budget: float,
        steps: int = 7,
        step_size: float | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        random_start: bool = True,
        amp_dtype: str | None = None,
        memory_gib: float | None = None,
    ) -> None:
        super().__init__(budget=budget, steps=steps, bounds=bounds, amp_dtype=amp_dtype, memory_gib=memory_gib)
        self.step_size = 2.5 * self.budget / self.steps if step_size is None else float(step_size)
        self.random_start = random_start
        # The ball of the projection, and the start's share of it; subclasses set others.
        self._radius, self._start = self.budget, 1.0

    @property
    def passes(self) -> Passes:
        """Cost for one image: the last iterate is returned without a look at it."""
        return Passes(self.steps, self.steps)

    def scaled(self, fraction: float) -> Self:
        """The same attack with budget and step size times `fraction`, for a budget that grows in training."""
        other = super().scaled(fraction)
        other._radius = fraction * self._radius
        return other

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int | Sequence[int] | None = None,
        objective: Objective = margin,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Attack `images` on `network`, which comes back as it was.

        Args:
            network: gives logits (N, 1) or (N, 2).
            images: (N, C, H, W) inside the bounds.
            labels: (N,) or (N, 1) in {0, 1}.
            seed: of the start; one number for the batch, or one per image, which makes an image's start independent
                of the batch that it stands in. None draws from the global random state.
            objective: `objective(logits (N,), labels (N,)) -> (N,)`, ascended; what it needs to know of an image goes
                in as its label.
            noise: the start itself, in units of the images, instead of a random one.

        Returns:
            Adversarial images (N, C, H, W), detached.
        """
        start: Tensor | None
        if noise is not None:
            start = noise / self._radius if self._radius > 0 else torch.zeros_like(noise)
        else:
            start = start_noise(images, seed).mul_(self._start) if self.random_start else None

        with self.on(network) as (module, score):
            images = images.detach().as_subclass(Tensor)
            labels = as_labels(labels, len(images))
            step = self.part_size(module, score, images)
            starts: Iterable[Tensor | None] = repeat(None) if start is None else start.split(step)
            parts = [
                pgd(
                    score,
                    part,
                    part_labels,
                    budget=self._radius,
                    steps=self.steps,
                    step_size=self.step_size,
                    objective=objective,
                    bounds=self.bounds,
                    random_start=part_start is not None,
                    noise=part_start,
                )
                for part, part_labels, part_start in zip(images.split(step), labels.split(step), starts, strict=False)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
