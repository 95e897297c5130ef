"""Attacks on exams as components: PGD on the pooled logit, and an attacker who reaches some of the views only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.attacks.component import Norm, Passes, Settings
from pipeline.attacks.exam_pgd import exam_pgd
from pipeline.attacks.exam_pooling import ExamLayout, ExamPooling, ExamScore
from pipeline.attacks.shapes import as_labels
from pipeline.attacks.streams import image_seeds


class ExamPGD(Settings):
    """`exam_pgd` as a component: `attack(network, images, labels, exams=..., breasts=..., seed=...)`.

    Args:
        budget: of every image ("linf"), or of all views of an exam together ("l2").
        steps: steps of one start.
        restarts: number of starts.
        norm: "linf" or "l2".
        pool: pooled logit of an exam; None is the mean within a breast and the maximum across.
        step_size: None means 2.5 * budget / steps.
        others: bounds, amp_dtype and memory_gib of `Settings`; parts are whole exams.
    """

    name = "exam-pgd"

    def __init__(
        self,
        *,
        budget: float,
        steps: int = 70,
        restarts: int = 1,
        norm: Norm = "linf",
        pool: ExamScore | None = None,
        step_size: float | None = None,
        **others: Any,
    ) -> None:
        super().__init__(budget=budget, steps=steps, restarts=restarts, norm=norm, **others)
        self.pool = ExamPooling() if pool is None else pool
        self.step_size = step_size

    @property
    def passes(self) -> Passes:
        """Cost for one image of an exam with two breasts, pooled by the default."""
        halves = self.norm == "l2" and isinstance(self.pool, ExamPooling) and self.pool.across_breasts == "max"
        starts = self.restarts * (2 if halves else 1)
        return Passes(starts * (self.steps + 1), starts * self.steps)

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        exams: Tensor,
        breasts: Tensor,
        seed: int | Sequence[int] | None = None,
    ) -> Tensor:
        """Attack exams on `network`, which comes back as it was.

        Args:
            network: gives logits (N, 1) or (N, 2).
            images: (N, C, H, W) inside the bounds, all images of each exam.
            labels: (N,) or (N, 1) in {0, 1}, the exam's label on each of its images.
            exams: (N,) whole numbers that name an image's exam.
            breasts: (N,) whole numbers that name an image's breast within its exam.
            seed: one number, or one per image.

        Returns:
            Adversarial images (N, C, H, W), detached.
        """
        images = images.detach().as_subclass(Tensor)
        labels = as_labels(labels, len(images))
        layout = ExamLayout.of(exams.to(images.device), breasts.to(images.device))
        seeds = image_seeds(seed, len(images))
        result = images.clone()
        with self.on(network) as (module, score):
            for rows in _whole_exams(layout, self.part_size(module, score, images)):
                result[rows] = exam_pgd(
                    score, images[rows], labels[rows], layout=layout.part(rows), budget=self.budget, steps=self.steps,
                    step_size=self.step_size, norm=self.norm, pool=self.pool, restarts=self.restarts,
                    bounds=self.bounds, seed=[seeds[row] for row in rows.tolist()],
                )  # fmt: skip
        return result


def _whole_exams(layout: ExamLayout, size: int) -> list[Tensor]:
    """Rows of the images in parts of whole exams, of at most `size` images where an exam is no larger."""
    parts: list[list[Tensor]] = []
    filled = size
    for exam in range(layout.exam_count):
        rows = (layout.exams == exam).nonzero()[:, 0]
        if filled + len(rows) > size:
            parts.append([])
            filled = 0
        parts[-1].append(rows)
        filled += len(rows)
    return [torch.cat(part) for part in parts]
