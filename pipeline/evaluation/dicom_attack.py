"""DICOM attack: original files changed by whole grey levels until what is stored fools the patient score."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from monai.transforms import Compose
from torch import nn

from pipeline.evaluation.extras import write_json
from pipeline.evaluation.smoothing import Pool
from pipeline.evaluation.stored_exam import AttackedExam, PatientFiles, StoredExam
from pipeline.imaging import explain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomAttackReport:
    """Results of `dicom_attack_report`.

    Args:
        settings: threshold, budget, limit, steps, pooling and seed.
        summary: counts of patients and medians over them.
        patients: one JSON-ready record per patient: `patient_id, label, reason, refusals, logit, stored_budget` (see
            `StoredBudget`), `levels_to_flip` (`LevelsToFlip`), `attacked` (`AttackedExam`), `files, seconds`; where
            `reason` says that nothing could be attacked, the answers are missing.
    """

    settings: dict[str, Any]
    summary: dict[str, Any]
    patients: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.settings | {"summary": self.summary, "patients": list(self.patients)}


def dicom_attack_report(
    network: nn.Module,
    patients: Iterable[PatientFiles],
    *,
    chain: Compose,
    threshold: float | None,
    artefacts: str | Path | None,
    origin: str | None = None,
    budget: float = 1e-4,
    limit: int = 256,
    steps: int = 10,
    within_breast: Pool = "mean",
    across_breasts: Pool = "max",
    seed: int = 0,
    files_to: str | Path | None = None,
    keep_identity: bool = False,
) -> DicomAttackReport:
    """Answer for every patient: does a budget survive being stored, and how many grey levels does it take to flip?

    A file that cannot be used is left out with its reason, a patient without any is listed with none; the run goes on.

    Args:
        network: gives logits (N, 1) or (N, 2); comes back as it was.
        patients: one after the other; one exam is held in memory at a time.
        chain: the preparation that the network was trained with.
        threshold: patient's logit from which on the diagnosis is malignant, frozen on validation; None leaves out how
            many levels a flip takes.
        artefacts: folder that receives `dicom_attack.json`, written under a temporary name first; None writes none.
        origin: name of the manifest of other patients than those of the test, for the report.
        budget: share of the pixel scale whose survival is measured; 1e-4 is the paper's eps2.
        limit: largest budget tried for a flip, in grey levels.
        steps: of every ascent.
        within_breast: pooling of the views of a breast, "mean" or "max".
        across_breasts: pooling of the breasts, "max" or "mean".
        seed: of dithering and of written UIDs.
        files_to: folder that receives the flipped exams as DICOM files, `<number of the patient>/<view>.dcm`; None
            writes none.
        keep_identity: the written files keep what the originals say of patient and study; by default they carry the
            pseudonym alone.

    Returns:
        What was written.
    """
    records = []
    settings: dict[str, Any] = {
        "threshold": None if threshold is None else float(threshold), "origin": origin,
        "budget": float(budget), "limit": int(limit), "steps": int(steps),
        "within_breast": within_breast, "across_breasts": across_breasts, "seed": int(seed),
    }  # fmt: skip
    for number, patient in enumerate(patients, start=1):
        started = time.perf_counter()
        record: dict[str, Any] = {"patient_id": patient.patient_id, "label": patient.label, "reason": ""}
        try:
            exam = StoredExam(
                patient, network=network, chain=chain, within_breast=within_breast, across_breasts=across_breasts,
                seed=seed, steps=steps,
            )  # fmt: skip
            record["refusals"] = exam.refusals
            if exam.views:
                answers, attacked = _answers(exam, threshold=threshold, budget=budget, limit=limit)
                record |= answers
                if files_to is not None and attacked is not None:
                    folder = Path(files_to) / f"{number:04d}"
                    names = exam.write(attacked, folder, keep_identity=keep_identity)
                    record["files"] = [f"{folder.name}/{name}" for name in names]
            else:
                record["reason"] = "none of the patient's files can be attacked"
        except Exception as error:  # one patient must not end the run
            code, reason = explain(error)
            record["reason"] = f"{code}: {reason}"
            logger.warning("patient %s is left out of the DICOM attack: %s", patient.patient_id, record["reason"])
        records.append(record | {"seconds": round(time.perf_counter() - started, 2)})
    report = DicomAttackReport(settings, _summary(records), tuple(records))
    if artefacts is not None:
        write_json(report.to_dict(), Path(artefacts) / "dicom_attack.json")
    return report


def _answers(
    exam: StoredExam, *, threshold: float | None, budget: float, limit: int
) -> tuple[dict[str, Any], AttackedExam | None]:
    answers: dict[str, Any] = {"logit": exam.logit, "stored_budget": exam.stored_budget(budget).to_dict()}
    if threshold is None:
        return answers, None
    flip, attacked = exam.levels_to_flip(threshold=threshold, limit=limit)
    answers |= {
        "levels_to_flip": flip.to_dict(),
        "attacked": None if attacked is None else attacked.to_dict(),
    }
    return answers, attacked


def _summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts and medians over patients; a patient that was not flipped counts as infinitely many levels."""
    done = [record for record in records if "stored_budget" in record]
    levels = [record["levels_to_flip"]["levels"] for record in done if "levels_to_flip" in record]
    correct = [np.inf if one is None else one for one in levels if one != 0]
    middle = median(correct) if correct else None
    shares = {
        name: [record["stored_budget"][name] for record in done if record["stored_budget"][name] is not None]
        for name in ("share_unrounded", "share_rounded", "share_dithered")
    }
    return {
        "patients": len(records),
        "attacked": len(done),
        "wrong_before": sum(one == 0 for one in levels),
        "flipped": sum(one is not None and one > 0 for one in levels),
        "not_flipped": sum(one is None for one in levels),
        "median_levels_to_flip": middle if middle is not None and np.isfinite(middle) else None,
        "patients_with_share": len(shares["share_rounded"]),
        **{f"median_{name}": median(values) if values else None for name, values in shares.items()},
        "refused_files": sum(len(record.get("refusals", ())) for record in records),
    }
