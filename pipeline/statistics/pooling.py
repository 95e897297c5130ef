"""Pooling: from one logit per image to one logit per patient, the unit of every figure."""

from __future__ import annotations

from typing import Literal

import pandas as pd

Pool = Literal["mean", "max"]

_ALLOWED = ("mean", "max")
_REQUIRED = ("patient_id", "laterality", "patient_label", "attack_id", "logit")
_STRATA = ("partition", "fold")
_ATTACK = ("norm", "budget", "steps", "restarts")


def pool_patients(scores: pd.DataFrame, within_breast: Pool = "mean", across_breasts: Pool = "max") -> pd.DataFrame:
    """Pool image logits into patient logits, separately under each attack.

    The logits of a breast in one examination, (patient, study, laterality), are pooled first, then these of the
    patient: an earlier normal examination does not dilute a later cancer. Pooling acts on logits; the sigmoid comes
    after. The pooling is not stated in the paper.

    Args:
        scores: One row per image and attack with the columns patient_id, laterality, patient_label, attack_id and
            logit; if present, study_id tells examinations apart, partition and fold are kept apart, and norm, budget,
            steps, restarts are carried along.
        within_breast: "mean" or "max" over the images of one breast.
        across_breasts: "mean" or "max" over the breasts of one patient.

    Returns:
        One row per (partition, fold,) patient_id and attack_id, sorted by these, with patient_label, logit, the
        numbers ``images`` and ``breasts`` that were pooled, and the carried columns.

    Raises:
        ValueError: a missing column, a value that is not allowed, a logit that is not finite, an image that stands
            twice under one attack, or a patient with two labels.
    """
    for name, pool in (("within_breast", within_breast), ("across_breasts", across_breasts)):
        if pool not in _ALLOWED:
            raise ValueError(f"{name} is {pool!r}; allowed are {', '.join(map(repr, _ALLOWED))}")
    missing = [column for column in _REQUIRED if column not in scores.columns]
    if missing:
        raise ValueError(f"the table of scores lacks {', '.join(missing)}; it needs {', '.join(_REQUIRED)}")
    strata = [column for column in _STRATA if column in scores.columns]
    patient = [*strata, "patient_id", "attack_id"]
    _check(scores, strata)
    if scores.empty:
        return scores.reindex(columns=[*patient, "patient_label", "logit", "images", "breasts"])

    carried = {column: (column, "first") for column in _ATTACK if column in scores.columns}
    breast = [*patient, "study_id", "laterality"] if "study_id" in scores.columns else [*patient, "laterality"]
    breasts = scores.groupby(breast, sort=True, observed=True, dropna=False).agg(
        patient_label=("patient_label", "first"), logit=("logit", within_breast), images=("logit", "size"), **carried
    )
    carried = {column: (column, "first") for column in carried}
    patients = breasts.groupby(level=patient, sort=True, observed=True).agg(
        patient_label=("patient_label", "first"),
        logit=("logit", across_breasts),
        images=("images", "sum"),
        breasts=("images", "size"),
        **carried,
    )
    table = patients.reset_index()
    return table.astype({"patient_label": "int64", "images": "int64", "breasts": "int64", "logit": "float64"})


def _check(scores: pd.DataFrame, strata: list[str]) -> None:
    for column in [*_REQUIRED, *strata]:
        empty = scores[column].isna()
        if empty.any():
            who = _some(scores.loc[empty, "patient_id"])
            raise ValueError(f"{column} is empty or NaN for patient {who}; every scored image needs it")
    finite = scores["logit"].astype("float64").abs() < float("inf")
    if not finite.all():
        who = _some(scores.loc[~finite, "patient_id"])
        raise ValueError(f"the logit is infinite for patient {who}; score these images again")
    labels = scores["patient_label"]
    if not labels.isin([0, 1]).all():
        raise ValueError(f"patient_label is {_some(labels[~labels.isin([0, 1])])}; allowed are 0 and 1")
    if "image_id" in scores.columns:
        twice = scores.duplicated([*strata, "image_id", "attack_id"])
        if twice.any():
            raise ValueError(
                f"image {_some(scores.loc[twice, 'image_id'])} stands twice under one attack; "
                "remove the rows that pad the last batch of a rank before pooling"
            )
    counts = scores.groupby("patient_id", observed=True)["patient_label"].nunique()
    if (counts > 1).any():
        raise ValueError(f"patient {_some(counts[counts > 1].index.to_series())} has two labels; allowed is one")


def _some(values: pd.Series) -> str:
    names = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
