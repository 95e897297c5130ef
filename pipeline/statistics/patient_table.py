"""Patient table: what the model said of every patient, clean and under each attack, at the frozen threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from pipeline.statistics.arrays import Floats
from pipeline.statistics.robustness import CLEAN, clean_patients, ordered_attacks, rows_of_attack


def probability(logits: ArrayLike) -> Floats:
    """Sigmoid of logits: the model's output in [0, 1], which is not a calibrated risk."""
    return np.asarray(expit(np.asarray(logits, dtype=np.float64)))


def patient_table(patients: pd.DataFrame, *, threshold: float | None) -> list[dict[str, Any]]:
    """One entry per patient with its probabilities, calls and flips.

    Args:
        patients: What ``pool_patients`` returned, one partition and fold.
        threshold: Frozen threshold (logit), or None when it is not estimable; calls and flips are then None.

    Returns:
        Dictionaries with patient_id, label, images, ``logits``, ``probabilities``, ``called`` and ``flips`` (one entry
        per attack in the order of ``ordered_attacks``, None where the patient was not scored; a flip is "to benign",
        "to malignant" or "" against clean), ``right`` (the clean call agrees with the label). Malignant patients come
        first, then by falling clean logit.
    """
    clean = clean_patients(patients)
    attacks = ordered_attacks(patients)
    logits = pd.DataFrame(index=clean.index)
    for attack_id in attacks:
        logits[attack_id] = rows_of_attack(patients, attack_id)["logit"].reindex(clean.index)
    order = clean.sort_values(["patient_label", "logit"], ascending=[False, False], kind="stable").index
    rows = []
    for patient_id in order:
        values = [None if np.isnan(value) else float(value) for value in logits.loc[patient_id]]
        label = int(clean.loc[patient_id, "patient_label"])
        called = [None if value is None or threshold is None else value >= threshold for value in values]
        before = called[attacks.index(CLEAN)]
        rows.append(
            {
                "patient_id": str(patient_id),
                "label": label,
                "images": int(clean.loc[patient_id, "images"]),
                "logits": values,
                "probabilities": [None if value is None else float(probability(value)) for value in values],
                "called": called,
                "flips": [_flip(before, after) for after in called],
                "right": None if before is None else before == bool(label),
            }
        )
    return rows


def _flip(before: bool | None, after: bool | None) -> str | None:
    if before is None or after is None:
        return None
    if before == after:
        return ""
    return "to malignant" if after else "to benign"
