"""An attacker who reaches k of an exam's views only, and takes those that hurt most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from pipeline.attacks.ascent import logit_of
from pipeline.attacks.component import Passes
from pipeline.attacks.exam_pgd import labels_of_exams
from pipeline.attacks.exam_pooling import ExamLayout, ExamPooling, ExamScore
from pipeline.attacks.mode import attack_mode
from pipeline.attacks.objectives import margin
from pipeline.attacks.shapes import as_labels
from pipeline.attacks.wrapped import Attack, Wrapped

# Sets of views of one exam that are tried, all of them up to this number: k of 4 views are 6 at most, 5 of 12 are 792.
# Beyond, views are added one by one.
MOST_SETS = 1000


def worst_views(
    clean: Tensor,
    attacked: Tensor,
    labels: Tensor,
    *,
    layout: ExamLayout,
    views: int,
    pool: ExamScore | None = None,
) -> Tensor:
    """Which images an attacker changes who may change at most `views` of an exam.

    Where the pooling rises with each image's logit, the best that a set of views can do is to carry each view's own
    worst logit; every set is tried on the logits, without the network, so that the choice is exact. Exams with more
    than `MOST_SETS` sets get their views one by one, each the best beside those before: greedy, not exact.

    Args:
        clean: (N,) logits of the untouched images.
        attacked: (N,) logits of the attacked images.
        labels: (N,) in {0, 1}, the exam's label on each of its images.
        layout: exams and breasts of the images.
        views: k, from 0 on.
        pool: pooled logit of an exam; None is the mean within a breast and the maximum across.

    Returns:
        bool (N,).

    Raises:
        ValueError: a negative number of views, or an exam with two labels.
    """
    if views < 0:
        raise ValueError(f"views is {views}; allowed are whole numbers from 0 on")
    pool = ExamPooling() if pool is None else pool
    exam_labels = labels_of_exams(labels, layout)
    # A view that an attack has not made worse is left alone.
    useful = margin(attacked, labels) > margin(clean, labels)
    attacked = torch.where(useful, attacked, clean)
    chosen = torch.zeros_like(useful)
    for exam in range(layout.exam_count):
        rows = (layout.exams == exam).nonzero()[:, 0]
        count = min(views, len(rows))
        if count == 0:
            continue

        def pooled_margins(sets: Tensor, rows: Tensor = rows, exam: int = exam) -> Tensor:
            logits = torch.where(sets, attacked[rows], clean[rows])
            numbers = torch.arange(len(sets), device=rows.device)[:, None].expand(sets.shape)
            copies = ExamLayout.of(numbers.reshape(-1), layout.breasts[rows].repeat(len(sets)))
            return margin(pool(logits.reshape(-1), copies), exam_labels[exam].expand(len(sets)))

        if math.comb(len(rows), count) <= MOST_SETS:
            sets = torch.tensor(list(_sets(len(rows), count)), device=rows.device)
            best = sets[pooled_margins(sets).argmax()]
        else:
            best = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
            for _ in range(count):
                sets = best | torch.eye(len(rows), dtype=torch.bool, device=rows.device)
                best = sets[pooled_margins(sets).argmax()]
        chosen[rows] = best
    return chosen & useful


def _sets(count: int, size: int) -> Iterator[list[bool]]:
    for members in combinations(range(count), size):
        yield [number in members for number in range(count)]


class FewViews(Wrapped):
    """Attack at most k views of each exam: `attack(network, images, labels, exams=..., breasts=..., seed=...)`.

    Args:
        attack: on single images, at the budget that each touched view has.
        views: k.
        pool: pooled logit of an exam; None is the mean within a breast and the maximum across.
    """

    def __init__(self, attack: Attack, *, views: int, pool: ExamScore | None = None) -> None:
        super().__init__(attack)
        self.views = int(views)
        self.pool = ExamPooling() if pool is None else pool
        self.name = f"{self.views}-views"

    @property
    def passes(self) -> Passes:
        """The attack's, and one look at each image before and after it."""
        return Passes(self.attack.passes.forward + 2, self.attack.passes.backward)

    @torch.inference_mode(False)
    def __call__(  # type: ignore[override]
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        exams: Tensor,
        breasts: Tensor,
        seed: int | Sequence[int] | None = None,
    ) -> Tensor:
        """Attack exams on `network`, which comes back as it was; arguments as for `ExamPGD`."""
        images = images.detach().as_subclass(Tensor)
        labels = as_labels(labels, len(images))
        layout = ExamLayout.of(exams.to(images.device), breasts.to(images.device))
        attacked = self.attack(network, images, labels, seed=seed)
        with attack_mode(network) as module:
            before, after = logit_of(module, images), logit_of(module, attacked)
        chosen = worst_views(before, after, labels, layout=layout, views=self.views, pool=self.pool)
        return torch.where(chosen.reshape(-1, *[1] * (images.ndim - 1)), attacked, images)
