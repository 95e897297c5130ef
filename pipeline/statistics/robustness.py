"""Robustness: patient AUC clean and under every attack, with the paired loss against clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.statistics.arrays import Floats
from pipeline.statistics.auc import auc_difference, auc_estimate
from pipeline.statistics.estimate import Estimate, NotEstimable
from pipeline.statistics.roc import roc_curve

CLEAN = "clean"
"""The attack_id of images that nobody touched."""

GREY_LEVELS = {"8 bit": 255, "12 bit": 4095}
"""Steps between black and white at the two depths that the budgets are translated into."""


@dataclass(frozen=True)
class AttackResult:
    """Discrimination of patients under one attack ("clean" is the attack of budget 0).

    Attributes:
        attack_id: Name of the attack in scores.csv.
        norm: Norm of the budget, or None.
        budget: Largest change of a pixel (or L2 length), on images in [0, 1].
        steps: Iterations of the attack, or None.
        restarts: Random restarts, or None.
        patients: Patients scored under it.
        images: Images scored under it.
        grey_levels: The budget in grey levels at 8 and 12 bit for the maximum norm, empty otherwise.
        auc: AUC with the patient-bootstrap interval.
        auc_delong: The same AUC with DeLong's interval.
        difference: AUC minus the clean AUC of the same patients, paired; None for clean itself.
        roc: Corners of the ROC curve (false_alarms, sensitivity), or None with the reason in ``auc``.
    """

    attack_id: str
    norm: str | None
    budget: float
    steps: int | None
    restarts: int | None
    patients: int
    images: int
    grey_levels: dict[str, float]
    auc: Estimate
    auc_delong: Estimate
    difference: Estimate | None
    roc: dict[str, list[float]] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        fields = dict(vars(self))
        fields["auc"], fields["auc_delong"] = self.auc.to_dict(), self.auc_delong.to_dict()
        fields["difference"] = None if self.difference is None else self.difference.to_dict()
        return fields


def robustness(
    patients: pd.DataFrame, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> list[AttackResult]:
    """Discrimination clean and under each attack, on the same resamples of patients.

    Args:
        patients: What ``pool_patients`` returned, one partition and fold: one row per patient and attack.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        Results with "clean" first, then by norm, budget and name.

    Raises:
        ValueError: no clean scores, or a patient whose attacked images are not the clean ones.
    """
    clean = clean_patients(patients)
    results = []
    for attack_id in ordered_attacks(patients):
        rows = rows_of_attack(patients, attack_id)
        labels, logits = rows["patient_label"].to_numpy(), rows["logit"].to_numpy(dtype=np.float64)
        settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
        difference = None
        if attack_id != CLEAN:
            reference = clean.loc[rows.index, "logit"].to_numpy(dtype=np.float64)
            difference = auc_difference(labels, logits, reference, **settings)
        first = rows.iloc[0]
        budget, norm = float(first.get("budget", 0.0)), text_or_none(first.get("norm"))
        results.append(
            AttackResult(
                attack_id=attack_id,
                norm=norm,
                budget=budget,
                steps=None if attack_id == CLEAN else _whole(first.get("steps")),
                restarts=None if attack_id == CLEAN else _whole(first.get("restarts")),
                patients=len(rows),
                images=int(rows["images"].sum()),
                grey_levels=_grey_levels(norm, budget),
                auc=auc_estimate(labels, logits, **settings),
                auc_delong=auc_estimate(labels, logits, interval="delong", confidence=confidence),
                difference=difference,
                roc=_roc(labels, logits),
            )
        )
    return results


def clean_patients(patients: pd.DataFrame) -> pd.DataFrame:
    """The clean rows indexed by patient_id; raises ValueError when there are none."""
    clean = _by_patient(patients, CLEAN)
    if clean.empty:
        raise ValueError(f"no rows with attack_id {CLEAN!r}; score the images without an attack first")
    return clean


def rows_of_attack(patients: pd.DataFrame, attack_id: str) -> pd.DataFrame:
    """The rows of one attack indexed and sorted by patient_id, checked to be whole exams of patients scored clean."""
    clean = clean_patients(patients)
    rows = _by_patient(patients, attack_id)
    unknown = rows.index.difference(clean.index)
    if len(unknown):
        raise ValueError(f"patient {unknown[0]} was scored under {attack_id} but not clean; score every patient clean")
    for column in ("images", "breasts"):
        differs = rows[column].to_numpy() != clean.loc[rows.index, column].to_numpy()
        if differs.any():
            who = rows.index[differs][0]
            raise ValueError(
                f"patient {who} has {rows.loc[who, column]} {column} under {attack_id} but {clean.loc[who, column]} "
                "clean; score whole exams under every attack"
            )
    return rows


def ordered_attacks(patients: pd.DataFrame) -> list[str]:
    """Names of the attacks, "clean" first, then by norm (the maximum norm first), budget and name."""
    attacks = patients.drop_duplicates("attack_id")

    def place(row: dict[str, Any]) -> tuple[bool, bool, str, float, str]:
        norm = text_or_none(row.get("norm"))
        return (
            row["attack_id"] != CLEAN,
            not is_maximum_norm(norm),
            norm or "",
            float(row.get("budget", 0.0)),
            str(row["attack_id"]),
        )

    return [str(row["attack_id"]) for row in sorted(attacks.to_dict("records"), key=place)]


def text_or_none(value: object) -> str | None:
    """The value as text, or None when it is empty, NaN or the name of the clean "attack"."""
    return None if value is None or pd.isna(value) or value in ("", "none") else str(value)


def is_maximum_norm(norm: str | None) -> bool:
    """Whether a norm's name means the largest change of any pixel ("linf", "l_inf", "inf", "max")."""
    return norm is not None and norm.lower().replace("_", "").startswith(("linf", "inf", "max"))


def _by_patient(patients: pd.DataFrame, attack_id: str) -> pd.DataFrame:
    rows = patients[patients["attack_id"] == attack_id].set_index("patient_id").sort_index()
    if not rows.index.is_unique:
        who = rows.index[rows.index.duplicated()][0]
        raise ValueError(f"patient {who} stands twice under {attack_id}; pass one partition and one fold")
    return rows


def _whole(value: object) -> int | None:
    return None if value is None or pd.isna(value) else int(value)  # type: ignore[call-overload]


def _grey_levels(norm: str | None, budget: float) -> dict[str, float]:
    if not is_maximum_norm(norm):
        return {}
    return {depth: budget * levels for depth, levels in GREY_LEVELS.items()}


def _roc(labels: np.ndarray, logits: Floats) -> dict[str, list[float]] | None:
    try:
        curve = roc_curve(labels, logits)
    except NotEstimable:
        return None
    return {"false_alarms": curve.false_alarms.tolist(), "sensitivity": curve.sensitivity.tolist()}
