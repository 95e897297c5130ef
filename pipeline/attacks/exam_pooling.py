"""Pooling of image logits into one logit per exam, in torch and differentiable, for attacks on whole exams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pool = Literal["mean", "max"]


@dataclass(frozen=True)
class ExamLayout:
    """Which image shows which breast of which exam; `of` makes it.

    Attributes:
        exams: (N,) exam of each image, 0 to E - 1.
        breasts: (N,) breast of each image, 0 to B - 1, counted over all exams.
        owners: (B,) exam of each breast.
        exam_count: E.
    """

    exams: Tensor
    breasts: Tensor
    owners: Tensor
    exam_count: int

    @staticmethod
    def of(exams: Tensor, breasts: Tensor) -> ExamLayout:
        """Layout from whole numbers (N,) that name an image's exam, and its breast within the exam.

        Raises:
            ValueError: other shapes, or numbers that are not whole.
        """
        if exams.ndim != 1 or exams.shape != breasts.shape or exams.is_floating_point() or breasts.is_floating_point():
            raise ValueError(
                f"exams {exams.dtype} {tuple(exams.shape)} and breasts {breasts.dtype} {tuple(breasts.shape)}; "
                "allowed are two tensors of whole numbers (N,)"
            )
        names, exams = torch.unique(exams, return_inverse=True)
        pairs, breasts = torch.unique(torch.stack([exams, breasts.to(exams)], 1), dim=0, return_inverse=True)
        return ExamLayout(exams, breasts, pairs[:, 0], len(names))

    def part(self, rows: Tensor) -> ExamLayout:
        """Layout of some of the images, whole exams only, in their order."""
        return ExamLayout.of(self.exams[rows], self.breasts[rows])


ExamScore = Callable[[Tensor, ExamLayout], Tensor]


@dataclass(frozen=True)
class ExamPooling:
    """Pool the views of a breast, then the breasts of an exam, as `pipeline.statistics.pool_patients` does.

    Both poolings rise with every image's logit. Any `pool(logits (N,), layout) -> (E,)` that torch differentiates may
    stand in its place; without the attribute `monotone` it is not taken for one that rises.

    Args:
        within_breast: "mean" or "max" over the images of a breast.
        across_breasts: "mean" or "max" over the breasts of an exam.

    Raises:
        ValueError: another pooling.
    """

    within_breast: Pool = "mean"
    across_breasts: Pool = "max"

    monotone = True

    def __post_init__(self) -> None:
        for name in ("within_breast", "across_breasts"):
            if getattr(self, name) not in ("mean", "max"):
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are 'mean' and 'max'")

    def __call__(self, logits: Tensor, layout: ExamLayout) -> Tensor:
        """Logits (E,) from logits (N,)."""
        breasts = _pooled(logits, layout.breasts, len(layout.owners), self.within_breast)
        return _pooled(breasts, layout.owners, layout.exam_count, self.across_breasts)

    def alternatives(self, logits: Tensor, layout: ExamLayout) -> tuple[Tensor, Tensor] | None:
        """Values (M,) and their exams (M,) of which the pooled logit is the largest; None where it is no maximum."""
        if self.across_breasts != "max":
            return None
        if self.within_breast == "max":
            return logits, layout.exams
        return _pooled(logits, layout.breasts, len(layout.owners), self.within_breast), layout.owners


def _pooled(values: Tensor, owners: Tensor, count: int, pool: Pool) -> Tensor:
    how = "amax" if pool == "max" else "mean"
    return values.new_zeros(count).scatter_reduce(0, owners, values, how, include_self=False)
