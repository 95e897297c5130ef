"""PGD on a whole exam: the pooled logit is attacked, with a budget per image or one budget that all views share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.attacks.ascent import Best, Objective, Score, logit_of, victims
from pipeline.attacks.balls import Ball, ball
from pipeline.attacks.best_pgd import best_pgd
from pipeline.attacks.component import Norm
from pipeline.attacks.exam_pooling import ExamLayout, ExamPooling, ExamScore
from pipeline.attacks.objectives import margin
from pipeline.attacks.shapes import as_logit
from pipeline.attacks.streams import Streams


@torch.inference_mode(False)
def exam_pgd(
    score: Score,
    images: Tensor,
    labels: Tensor,
    *,
    layout: ExamLayout,
    budget: float | Tensor,
    steps: int,
    step_size: float | None = None,
    norm: Norm = "linf",
    pool: ExamScore | None = None,
    restarts: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Push the pooled logit of every exam to the wrong side.

    - "linf": every image has its own budget. Where the pooling rises with each image's logit, the worst exam is made of
      the worst images, and this is `best_pgd` image by image. For other poolings the pooled margin is ascended.
    - "l2": all views of an exam share one budget, the length of the whole exam's change. A benign exam under a maximum
      is raised through one alternative (breast or view) at a time and the best is kept, for that is the maximum's
      optimum; a malignant one is lowered by subgradient steps on the leading alternative. Steps shrink along half a
      cosine, since at a maximum's kink steps of one length would run to and fro.

    The iterate with the largest pooled margin is returned, the untouched exam among them.

    Cost for one image: `starts * (steps + 1)` forward and `starts * steps` backward passes; starts is `restarts`, and
    in "l2" under a maximum that times the largest number of alternatives in an exam.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2), each image by itself.
        images: (N, C, H, W) inside `bounds`, of one or more exams.
        labels: (N,) or (N, 1), the exam's label on each of its images.
        layout: exams and breasts of the images.
        budget: "linf": a number or (N,); "l2": a number or (E,).
        steps: number of steps of a start.
        step_size: mean length of a step; None means 2.5 * budget / steps.
        norm: "linf" or "l2".
        pool: pooled logit of an exam; None is the mean within a breast and the maximum across.
        restarts: number of starts.
        bounds: smallest and largest pixel value.
        seed: of the starts, one or one per image.

    Returns:
        Adversarial images of the shape, dtype and device of `images`, detached.

    Raises:
        ValueError: see `best_pgd`; an exam with two labels.
    """
    pool = ExamPooling() if pool is None else pool
    images, labels = victims(images, labels, bounds)
    exam_labels = labels_of_exams(labels, layout)
    if norm == "linf" and getattr(pool, "monotone", False):
        return best_pgd(
            score, images, labels, budget=budget, steps=steps, step_size=step_size, restarts=restarts, bounds=bounds,
            seed=seed,
        )  # fmt: skip
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps is {steps} and restarts {restarts}; at least 1 of each is needed")
    groups = layout.exams if norm == "l2" else None
    space = ball(images, budget, norm=norm, bounds=bounds, groups=groups)
    streams = Streams(images, seed)
    best = Best(images)
    choices = _choices(pool, layout, images) if norm == "l2" else 1
    benign = (labels < 0.5).reshape(-1, *[1] * (images.ndim - 1))
    for restart in range(restarts):
        for choice in range(choices):
            start = images
            if restart:
                start = space.random_point(streams)
            elif choice:  # a malignant exam has walked from the image already
                start = torch.where(benign, images, space.random_point(streams))
            objective = _objective(pool, layout, exam_labels, choice)
            _walk(
                score, start, exam_labels, space=space, layout=layout, pool=pool, steps=steps, step_size=step_size,
                objective=objective, best=best,
            )  # fmt: skip
    return best.images


def labels_of_exams(labels: Tensor, layout: ExamLayout) -> Tensor:
    """Labels (E,) from labels (N,).

    Raises:
        ValueError: an exam with two labels, or another number of images.
    """
    if len(labels) != len(layout.exams):
        raise ValueError(f"{len(labels)} images, but the layout knows {len(layout.exams)}")
    labels = labels.to(torch.float32) if not labels.is_floating_point() else labels
    zeros = labels.new_zeros(layout.exam_count)
    low, high = (zeros.scatter_reduce(0, layout.exams, labels, how, include_self=False) for how in ("amin", "amax"))
    if not torch.equal(low, high):
        raise ValueError("an exam has images with label 0 and with label 1; give each image its exam's label")
    return high


def _choices(pool: ExamScore, layout: ExamLayout, images: Tensor) -> int:
    if not isinstance(pool, ExamPooling):
        return 1
    found = pool.alternatives(images.new_zeros(len(images)), layout)
    return 1 if found is None or len(images) == 0 else int(torch.bincount(found[1]).max())


def _objective(pool: ExamScore, layout: ExamLayout, exam_labels: Tensor, choice: int) -> Objective:
    """Pooled margin; for benign exams under a maximum the value of one alternative."""

    def objective(logits: Tensor, _: Tensor) -> Tensor:
        pooled = pool(logits, layout)
        found = pool.alternatives(logits, layout) if isinstance(pool, ExamPooling) else None
        if found is not None:
            values, owners = found
            order = torch.argsort(owners, stable=True)
            counts = torch.zeros(layout.exam_count, dtype=torch.long, device=owners.device)  # bincount would wait
            counts.index_add_(0, owners, torch.ones_like(owners))
            place = order[counts.cumsum(0) - counts + choice % counts]
            pooled = torch.where(exam_labels < 0.5, values[place], pooled)
        return margin(pooled, exam_labels)

    return objective


def _walk(
    score: Score,
    iterate: Tensor,
    exam_labels: Tensor,
    *,
    space: Ball,
    layout: ExamLayout,
    pool: ExamScore,
    steps: int,
    step_size: float | None,
    objective: Objective,
    best: Best,
) -> None:
    """One start's steps; whole exams are offered to `best`."""

    def offer(candidates: Tensor, logits: Tensor) -> None:
        # `best` compares image by image: every image of an exam carries the exam's margin.
        best.offer(candidates, margin(pool(logits, layout), exam_labels)[layout.exams])

    mean = 2.5 * space.radius / steps if step_size is None else step_size
    for step in range(steps):
        candidates = iterate.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = as_logit(score(candidates))
            (gradient,) = torch.autograd.grad(objective(logits, exam_labels).sum(), candidates)
        offer(iterate, logits.detach())
        stride = mean * (1 + math.cos(math.pi * step / steps))
        iterate = space.project(iterate + stride * space.direction(gradient))
    offer(iterate, logit_of(score, iterate))
