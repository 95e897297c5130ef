"""Universal perturbation (Moosavi-Dezfooli et al. 2017): one change for all images of a class, in one cohort."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.attacks.ascent import Best, Score, margin_of, victims
from pipeline.attacks.balls import ball
from pipeline.attacks.component import Norm, Passes, Settings
from pipeline.attacks.objectives import margin
from pipeline.attacks.shapes import as_images, as_labels, as_logit


@torch.inference_mode(False)
def universal(
    score: Score,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    budget: float,
    steps: int,
    step_size: float | None = None,
    norm: Norm = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Two changes for a cohort: one that raises benign images, one that lowers malignant ones.

    Two, because one pattern with a sign for each label is a special case of them, and because each answers a question
    of its own: does one pattern raise false alarms, does one hide cancers? PGD from zero ascends the mean margin of a
    class over the whole cohort; of all iterates, the one with the largest mean margin is kept for each class.

    Cost for one image: `steps + 1` forward and `steps` backward passes. Only one batch is held at a time.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2).
        batches: images (N, C, H, W) of one shape inside `bounds` with labels (N,) or (N, 1); gone through `steps + 1`
            times, so a list or a loader, no generator.
        budget: largest change of a pixel ("linf") or length of the change ("l2").
        steps: number of passes over the cohort with a step behind each.
        step_size: None means 2.5 * budget / steps.
        norm: "linf" or "l2".
        bounds: smallest and largest pixel value.

    Returns:
        Tensor (2, C, H, W): the change for label 0, then that for label 1; 0 for a class without images.

    Raises:
        ValueError: no step, no image, several shapes, or batches that can be gone through once only.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed")
    if iter(batches) is batches:
        raise ValueError("the batches can be gone through once only; give a list or a loader")
    first = next(iter(batches), None)
    if first is None or len(first[0]) == 0:
        raise ValueError("the cohort has no image; a universal perturbation needs some")
    zeros = first[0].new_zeros(2, *first[0].shape[1:]).as_subclass(Tensor)
    width = bounds[1] - bounds[0]
    space = ball(zeros, budget, norm=norm, bounds=(-width, width))
    length = 2.5 * budget / steps if step_size is None else step_size
    best = Best(zeros)
    changes = zeros
    for step in range(steps + 1):
        gradient, total, counts = torch.zeros_like(zeros), zeros.new_zeros(2), zeros.new_zeros(2)
        for images, labels in batches:
            images, labels = victims(images, labels, bounds)
            if images.shape[1:] != zeros.shape[1:]:
                raise ValueError(
                    f"images of shape {tuple(images.shape[1:])} beside {tuple(zeros.shape[1:])}; "
                    "one change fits images of one shape"
                )
            malignant = (labels > 0.5).long()
            counts += torch.bincount(malignant, minlength=2)
            if step == steps:  # nothing follows that would need a gradient
                margins = margin_of(score, with_universal(images, labels, changes, bounds=bounds), labels)
            else:
                both = changes.detach().requires_grad_(True)
                with torch.enable_grad():
                    candidates = (images + both[malignant]).clamp(*bounds)
                    margins = margin(as_logit(score(candidates)), labels)
                    gradient += torch.autograd.grad(margins.sum(), both)[0]
                margins = margins.detach()
            total.index_add_(0, malignant, margins.to(total))
        best.offer(changes, (total / counts).nan_to_num(nan=-torch.inf))
        if step < steps:
            changes = space.project(changes + length * space.direction(gradient))
    return best.images


def with_universal(
    images: Tensor, labels: Tensor, changes: Tensor, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Images (N, C, H, W) with the change of their label, moved into the bounds.

    Args:
        images: (N, C, H, W).
        labels: (N,) or (N, 1) in {0, 1}.
        changes: (2, C, H, W) as `universal` gives them.
        bounds: smallest and largest pixel value.
    """
    labels = as_labels(labels, len(images))
    return (as_images(images, bounds) + changes.to(images)[(labels > 0.5).long()]).clamp(*bounds)


class Universal(Settings):
    """`universal` as a component: `fit` on one cohort, then call it on the same or on another one.

    Args:
        budget: see `Settings`.
        steps: passes over the cohort.
        norm: "linf" or "l2".
        step_size: None means 2.5 * budget / steps.
        others: bounds and amp_dtype of `Settings`; memory is the batches' business.
    """

    name = "universal"

    def __init__(
        self, *, budget: float, steps: int = 20, norm: Norm = "linf", step_size: float | None = None, **others: Any
    ) -> None:
        super().__init__(budget=budget, steps=steps, norm=norm, **others)
        self.step_size = step_size
        self.changes: Tensor | None = None

    @property
    def passes(self) -> Passes:
        """Cost for one image of the cohort that it is fitted on; applying it costs nothing."""
        return Passes(self.steps + 1, self.steps)

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Universal:
        """Find the changes on `network`, which comes back as it was; see `universal`."""
        with self.on(network) as (_, score):
            self.changes = universal(
                score, batches, budget=self.budget, steps=self.steps, step_size=self.step_size, norm=self.norm,
                bounds=self.bounds,
            )  # fmt: skip
        return self

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Add the change of its label to each image; network and seed play no part.

        Raises:
            RuntimeError: not fitted.
        """
        if self.changes is None:
            raise RuntimeError("the universal perturbation is not fitted; call fit(network, batches) first")
        return with_universal(images, labels, self.changes, bounds=self.bounds)
