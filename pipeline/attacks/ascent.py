"""One look at a score for an ascent: value, gradient and margin; and the best iterate that was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.attacks.objectives import margin
from pipeline.attacks.shapes import as_images, as_labels, as_logit

Score = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]


class Look(NamedTuple):
    """What one forward and one backward pass say of every image."""

    gradient: Tensor
    value: Tensor
    margin: Tensor


def look(score: Score, candidates: Tensor, labels: Tensor, objective: Objective = margin) -> Look:
    """Gradient of the objective with respect to the images, its value (N,) and the margin (N,), detached."""
    candidates = candidates.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = as_logit(score(candidates))
        value = objective(logits, labels)
        (gradient,) = torch.autograd.grad(value.sum(), candidates)
    return Look(gradient, value.detach(), margin(logits.detach(), labels))


def logit_of(score: Score, candidates: Tensor) -> Tensor:
    """Logits (N,) without a gradient."""
    with torch.no_grad():
        return as_logit(score(candidates))


def margin_of(score: Score, candidates: Tensor, labels: Tensor) -> Tensor:
    """Margins (N,) without a gradient."""
    return margin(logit_of(score, candidates), labels)


def victims(images: Tensor, labels: Tensor, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Images and labels as an attack takes them: plain, detached, checked, and no tensors of inference mode."""
    images, labels = as_images(images, bounds), as_labels(labels, len(images))
    return (images.clone(), labels.clone()) if images.is_inference() or labels.is_inference() else (images, labels)


class Best:
    """The best image of each row so far, by a value that is to be large.

    Args:
        images: (N, ...), returned where nothing better was offered.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.value: Tensor | float = -torch.inf

    def offer(self, candidates: Tensor, value: Tensor) -> Tensor:
        """Take over the rows that are better; returns which (N,). NaN is never better."""
        better = value > self.value
        self.value = torch.where(better, value, torch.as_tensor(self.value, dtype=value.dtype, device=value.device))
        self.images = torch.where(better.reshape(-1, *[1] * (candidates.ndim - 1)), candidates, self.images)
        return better
