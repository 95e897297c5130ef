"""One patient's original files under attack in grey levels: budgets to flip the diagnosis, and what storing leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch import nn

from pipeline.attacks import attack_mode, pgd
from pipeline.evaluation.smoothing import Pool, pool_views
from pipeline.evaluation.stored_view import DESCRIPTION, Candidate, StoredView, ViewFile
from pipeline.imaging import explain
from pipeline.imaging.derivative import Derivative
from pipeline.imaging.levels import reachable_levels, whole_levels

SMALLEST_CHANGE = 1e-4
"""Change of the patient's logit below which no share of it is stated: float32 logits differ by some 1e-6 anyway."""


@dataclass(frozen=True)
class PatientFiles:
    """Original files of one patient, from the manifest.

    Args:
        patient_id: pseudonym; it is written into the attacked files too.
        label: 1 malignant, 0 benign or negative.
        files: the views of the exam.
    """

    patient_id: str
    label: int
    files: tuple[ViewFile, ...]


@dataclass(frozen=True)
class AttackedImage:
    """One image of an attacked exam; `budget` and `largest_change` in grey levels, `changed` a share of its pixels.

    `logit_recorded` is what the ascent saw, with the crop and window recorded on the original; `logit_after` is that of
    the file, read and prepared anew.
    """

    image_id: str
    laterality: str
    view: str
    bits_stored: int
    budget: float
    largest_change: int
    changed: float
    logit_before: float
    logit_recorded: float
    logit_after: float


@dataclass(frozen=True)
class AttackedExam:
    """An exam under one budget per image, in grey levels; the logits are the patient's, after a full re-read."""

    budget: float
    logit_before: float
    logit_after: float
    images: tuple[AttackedImage, ...]
    candidates: tuple[Candidate, ...] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the pictures."""
        record = {"budget": self.budget, "logit_before": self.logit_before, "logit_after": self.logit_after}
        return record | {"images": [asdict(image) for image in self.images]}


@dataclass(frozen=True)
class LevelsToFlip:
    """Smallest budget in whole grey levels that puts a patient on the wrong side of the threshold.

    `levels` is 0 where the untouched patient is there already, and None, with a reason, where the limit did not do it
    (infinity, as far as it was looked). `tried` holds (budget, patient's logit) in the order in which they were tried.
    """

    levels: int | None
    reason: str
    limit: int
    tried: tuple[tuple[int, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"tried": [list(pair) for pair in self.tried]}


@dataclass(frozen=True)
class StoredBudget:
    """What becomes of an attack on prepared images, with a budget as share of the pixel scale, once it is stored.

    Args:
        budget: share of the pixel scale.
        full_scale_levels: the budget in grey levels of the full range of the stored bits, per image.
        mean_levels: mean change of a stored pixel that the attack calls for, in grey levels, not whole, per image.
        logit_before: patient's logit, untouched.
        logit_prepared: under the attack on prepared images.
        logit_unrounded: prepared from stored values that are not whole: what the geometry leaves of it.
        logit_rounded: stored with plainly rounded levels, and read anew.
        logit_dithered: stored with dithered levels, and read anew.
        share_unrounded: of the change of the logit, 1 if all of it survives; None with a reason where nothing changed.
        share_rounded: likewise.
        share_dithered: likewise.
        reason: why there is no share, else empty.
    """

    budget: float
    full_scale_levels: tuple[float, ...]
    mean_levels: tuple[float, ...]
    logit_before: float
    logit_prepared: float
    logit_unrounded: float
    logit_rounded: float
    logit_dithered: float
    share_unrounded: float | None
    share_rounded: float | None
    share_dithered: float | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class StoredExam:
    """The usable views of one patient, opened for attacks on what their files store.

    Args:
        patient: files and label.
        network: gives logits (N, 1) or (N, 2).
        chain: the preparation that the network was trained with.
        within_breast: pooling of the views of a breast, "mean" or "max"; take the report's.
        across_breasts: pooling of the breasts, "max" or "mean".
        seed: of dithering and of written UIDs.
        steps: of every ascent.

    Attributes:
        views: the usable ones.
        refusals: image_id, code and reason of the others.

    Raises:
        ValueError: a label other than 0 and 1.
    """

    def __init__(
        self,
        patient: PatientFiles,
        *,
        network: nn.Module,
        chain: Compose,
        within_breast: Pool = "mean",
        across_breasts: Pool = "max",
        seed: int = 0,
        steps: int = 10,
    ) -> None:
        if patient.label not in (0, 1):
            raise ValueError(f"patient {patient.patient_id}: label is {patient.label!r}; allowed are 0 and 1")
        self.patient, self.network, self.steps, self.seed = patient, network, steps, seed
        self.pooling: dict[str, Any] = {"within_breast": within_breast, "across_breasts": across_breasts}
        self.views: list[StoredView] = []
        self.refusals: list[dict[str, str]] = []
        for file in patient.files:
            try:
                self.views.append(StoredView(file, network=network, chain=chain, seed=seed))
            except Exception as error:  # one odd file must not end the run
                code, reason = explain(error)
                self.refusals.append({"image_id": file.image_id, "code": code, "reason": reason})

    def pooled(self, logits: Sequence[float]) -> float:
        """The patient's logit from those of the views."""
        return float(pool_views(np.array(logits), [view.file.breast for view in self.views], **self.pooling))

    @property
    def logit(self) -> float:
        """The untouched patient's logit."""
        return self.pooled([view.clean.logit for view in self.views])

    def attack(self, budget: float, *, dither: bool = False, start: AttackedExam | None = None) -> AttackedExam:
        """Attack every view towards the patient's wrong diagnosis; for the pooled score this is the joint optimum.

        Pooling by mean and maximum rises with every view's logit, so that views need no common plan.

        Args:
            budget: grey levels per image, see `StoredView.attack`.
            dither: spread fractions of a level over the pixels.
            start: a result with a smaller budget, which this one never falls behind.
        """
        starts = start.candidates if start else (None,) * len(self.views)
        candidates = tuple(
            view.attack(self.patient.label, budget=budget, steps=self.steps, dither=dither, start=begin)
            for view, begin in zip(self.views, starts, strict=True)
        )
        images = tuple(_image(view, found, budget) for view, found in zip(self.views, candidates, strict=True))
        after = self.pooled([found.logit for found in candidates])
        return AttackedExam(float(budget), self.logit, after, images, candidates)

    def flipped(self, logit: float, threshold: float) -> bool:
        """Whether a patient's logit lies on the wrong side: at or above the threshold means malignant."""
        return (logit >= threshold) != (self.patient.label == 1)

    def levels_to_flip(self, *, threshold: float, limit: int = 256) -> tuple[LevelsToFlip, AttackedExam | None]:
        """Smallest whole budget that flips the patient, by growing and bracketing; and the exam under it.

        The budget at least doubles until the patient flips, or grows to where the logit so far points to. Between the
        last budget that failed and the first that did not, interpolation and bisection take turns, until they are
        neighbours: the logit is nearly straight in the budget, so that some five attacks do. An exam under a larger
        budget starts from the one under the smaller. The result is an upper bound: a stronger attack may need fewer.

        Args:
            threshold: patient's logit from which on the diagnosis is malignant.
            limit: largest budget tried, in grey levels.

        Raises:
            ValueError: a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; allowed are whole grey levels from 1 on")
        if self.flipped(self.logit, threshold):
            return LevelsToFlip(0, "the untouched patient is on the wrong side already", limit, ()), None
        tried: list[tuple[int, float]] = []
        below, above = (0, self.logit), (limit + 1, float("nan"))
        weaker: AttackedExam | None = None
        stronger: AttackedExam | None = None
        budget = 1
        while above[0] - below[0] > 1:
            found = self.attack(budget, start=weaker)
            tried.append((budget, found.logit_after))
            if self.flipped(found.logit_after, threshold):
                above, stronger = tried[-1], found
                first = below
            else:
                first, below, weaker = below, tried[-1], found
            budget = _next_budget(first, tried[-1], threshold, below=below[0], above=above[0], turn=len(tried))
            if stronger is None:
                budget = min(max(budget, 2 * below[0]), limit)
        if stronger is None:
            reason = f"not flipped by {limit} grey levels, the largest budget tried"
            return LevelsToFlip(None, reason, limit, tuple(tried)), weaker
        return LevelsToFlip(above[0], "", limit, tuple(tried)), stronger

    def stored_budget(self, budget: float) -> StoredBudget:
        """Attack the prepared images with a share of the pixel scale, then store what comes nearest to it.

        The attack is PGD on the margin, as tests use it. Its change of the prepared image is realised in stored values
        by `Derivative.realise`; these are scored as they are, and stored rounded and dithered, and read anew.

        Args:
            budget: largest change of a prepared pixel, share of the pixel scale, above 0.
        """
        outcomes = [self._stored(view, budget) for view in self.views]
        before = self.logit
        after = {name: self.pooled([logits[name] for logits, _ in outcomes]) for name in outcomes[0][0]}
        wished = after["prepared"] - before
        reason = "" if abs(wished) >= SMALLEST_CHANGE else "the attack on prepared images does not change the logit"
        shares = {name: None if reason else (value - before) / wished for name, value in after.items()}
        return StoredBudget(
            budget=budget,
            full_scale_levels=tuple(budget * (2**view.bits - 1) for view in self.views),
            mean_levels=tuple(levels for _, levels in outcomes),
            logit_before=before,
            **{f"logit_{name}": value for name, value in after.items()},
            share_unrounded=shares["unrounded"],
            share_rounded=shares["rounded"],
            share_dithered=shares["dithered"],
            reason=reason,
        )

    def _stored(self, view: StoredView, budget: float) -> tuple[dict[str, float], float]:
        label = torch.tensor([self.patient.label], dtype=torch.float32)
        device = next((one.device for one in self.network.parameters()), torch.device("cpu"))
        images = view.prepared[None].to(device)
        with attack_mode(self.network) as module:
            attacked = pgd(
                module, images, label.to(device), budget=budget, steps=self.steps, step_size=2.5 * budget / self.steps,
                random_start=False,
            )  # fmt: skip
        change = Derivative(view.preparation, view.mammogram, reach=1).realise((attacked - images)[0].cpu())
        stored = view.mammogram.stored
        lower, upper = reachable_levels(stored, view.mammogram.presentation, budget=float(change.abs().max()))
        wished = np.clip(stored + change.numpy(), lower, upper)
        levels = {
            "rounded": whole_levels(wished, lower, upper).astype(stored.dtype),
            "dithered": whole_levels(wished, lower, upper, noise=view.noise(stored.shape)).astype(stored.dtype),
        }
        moved = change[change != 0].abs()
        unrounded = view.preparation.apply(torch.from_numpy(wished.astype(np.float32)))
        logits = {"prepared": view.score(attacked[0]), "unrounded": view.score(unrounded)}
        for name, values in levels.items():
            outcome = view.reread(values)
            logits[name] = view.clean.logit if outcome is None else outcome[0]
        return logits, float(moved.mean()) if len(moved) else 0.0

    def write(self, exam: AttackedExam, folder: Path, *, keep_identity: bool = False) -> list[str]:
        """Write the attacked views as derived DICOM files, named by number and view; gives their names.

        Args:
            exam: of this patient.
            folder: made where missing.
            keep_identity: keep what the originals say of patient and study, instead of the pseudonym alone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        description = f"{DESCRIPTION}, at most {exam.budget:g} grey levels per pixel; research use only"
        pseudonym = None if keep_identity else self.patient.patient_id
        names = []
        for number, (view, found) in enumerate(zip(self.views, exam.candidates, strict=True), start=1):
            names.append(f"{number:02d}_{view.file.laterality}_{view.file.view}.dcm")
            view.store(found.stored, folder / names[-1], description=description, patient_id=pseudonym)
        return names


def _next_budget(
    first: tuple[int, float], last: tuple[int, float], threshold: float, *, below: int, above: int, turn: int
) -> int:
    """Where the line through two (budget, logit) crosses the threshold; each third turn, or without one, the middle."""
    rise = (last[1] - first[1]) / (last[0] - first[0])
    crossing = first[0] + (threshold - first[1]) / rise if rise else np.inf
    if turn % 3 == 0 or not np.isfinite(crossing):
        crossing = (below + above) / 2
    return int(np.clip(np.ceil(crossing), below + 1, above - 1))


def _image(view: StoredView, found: Candidate, budget: float) -> AttackedImage:
    change = np.abs(found.stored.astype(np.int32) - view.clean.stored)
    return AttackedImage(
        image_id=view.file.image_id,
        laterality=view.file.laterality,
        view=view.file.view,
        bits_stored=view.bits,
        budget=float(budget),
        largest_change=int(change.max()),
        changed=float((change > 0).mean()),
        logit_before=view.clean.logit,
        logit_recorded=found.recorded,
        logit_after=found.logit,
    )
