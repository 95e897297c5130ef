"""Cohort table: who was studied, partition by partition, and which files were refused."""

from __future__ import annotations

from typing import Any

import pandas as pd

PARTITIONS = ("training", "validation", "test")
UNKNOWN = "unknown"


def cohort_summary(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Patients and images of every partition.

    Args:
        images: One row per image with patient_id, laterality, view, patient_label, partition; optional age (years),
            density, vendor.

    Returns:
        One dictionary per partition present (training, validation, test, then others) with the counts ``patients``,
        ``malignant``, ``benign``, ``unknown``, ``images``, the counts of images per ``views`` and ``sides``, and, for
        each optional column present, the counts of patients per value under ``density`` and ``vendor`` (a patient with
        two values counts under both) and median and quartiles of the patients' ``age``.

    Raises:
        ValueError: a patient stands in two partitions.
    """
    across = images.groupby("patient_id")["partition"].nunique()
    if (across > 1).any():
        raise ValueError(f"patient {across[across > 1].index[0]} stands in two partitions; split the cohort by patient")
    present = [str(name) for name in images["partition"].dropna().unique()]
    order = [name for name in PARTITIONS if name in present]
    order += sorted(name for name in present if name not in PARTITIONS)
    return [_partition(name, images[images["partition"] == name]) for name in order]


def refusal_counts(rejects: pd.DataFrame) -> list[dict[str, Any]]:
    """Refused files per reason code, most frequent first.

    Args:
        rejects: Rows with image, patient_id, code, reason.

    Returns:
        Dictionaries with ``code``, ``files``, ``patients`` and ``example``, the first reason given under the code.
    """
    if rejects.empty:
        return []
    table = rejects.groupby("code", sort=True).agg(
        files=("image", "size"), patients=("patient_id", "nunique"), example=("reason", "first")
    )
    table = table.reset_index().sort_values(["files", "code"], ascending=[False, True], kind="stable")
    return [
        {
            "code": str(row["code"]),
            "files": int(row["files"]),
            "patients": int(row["patients"]),
            "example": "" if pd.isna(row["example"]) else str(row["example"]),
        }
        for row in table.to_dict("records")
    ]


def _partition(name: str, images: pd.DataFrame) -> dict[str, Any]:
    patients = images.drop_duplicates("patient_id")
    labels = pd.to_numeric(patients["patient_label"], errors="coerce")
    summary: dict[str, Any] = {
        "partition": name,
        "patients": len(patients),
        "malignant": int((labels == 1).sum()),
        "benign": int((labels == 0).sum()),
        "unknown": int(labels.isna().sum()),
        "images": len(images),
        "views": _counts(images["view"]),
        "sides": _counts(images["laterality"]),
    }
    for column in ("density", "vendor"):
        if column in images.columns and images[column].notna().any():
            summary[column] = _counts(images.drop_duplicates(["patient_id", column])[column])
    if "age" in images.columns:
        age = pd.to_numeric(patients["age"], errors="coerce").dropna()
        if len(age):
            lower, median, upper = age.quantile([0.25, 0.5, 0.75])
            summary["age"] = {
                "patients": len(age),
                "median": float(median),
                "lower_quartile": float(lower),
                "upper_quartile": float(upper),
            }
    return summary


def _counts(values: pd.Series) -> dict[str, int]:
    named = values.astype("string").fillna(UNKNOWN)
    return {str(key): int(count) for key, count in named.value_counts().sort_index().items()}
