"""What a source hands over: the manifest, the table of what was left out, notes; written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.cohort.schema import ALLOWED
from pipeline.cohort.sources.files import ImageFile

REJECT_COLUMNS = ("image", "patient_id", "code", "reason")
ROW_WITHOUT_FILE = "row_without_file"


@dataclass(frozen=True)
class Listing:
    """The result of a source.

    Args:
        manifest: one row per image.
        rejects: image, patient_id, code, reason of every file that was left out, and of every row of a table without a
            file (``image`` empty).
        notes: sentences for the summary.
    """

    manifest: pd.DataFrame
    rejects: pd.DataFrame
    notes: tuple[str, ...] = ()


def ordered(manifest: pd.DataFrame, keys: Iterable[str]) -> pd.DataFrame:
    """Columns in the order of the schema, rows by patient, side, view and a last key, whatever the folders are called.

    Args:
        manifest: one row per image.
        keys: text of each image that settles ties, for example its SOP Instance UID.
    """
    sorting = manifest.assign(_key=list(keys))
    by = [name for name in ("patient_id", "study_id", "laterality", "view", "_key", "image") if name in sorting]
    sorting = sorting.sort_values(by, kind="stable").reset_index(drop=True)
    return sorting[[name for name in ALLOWED if name in sorting]]


def rejects_of(files: Iterable[ImageFile]) -> pd.DataFrame:
    """Table of the refused among some records, under their paths and without a patient."""
    rows = [(file.path, "", file.code, file.reason) for file in files if file.code]
    return pd.DataFrame(rows, columns=list(REJECT_COLUMNS), dtype="str")


def rejects_path(manifest: Path) -> Path:
    """Where the table of what was left out stands: beside the manifest, ``cmmd.csv`` -> ``cmmd.rejects.csv``."""
    return manifest.with_name(f"{manifest.stem}.rejects.csv")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table under a temporary name and rename it; the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            table.to_csv(stream, index=False, float_format="%g", lineterminator="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def summary(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count a manifest by class of the patient.

    Returns:
        One row per class and a row "all": patients, images, breasts, and breasts labelled 1, labelled 0, unlabelled.
    """
    breasts = manifest.drop_duplicates(["patient_id", "laterality"])
    rows = {}
    for name, label in (("malignant", 1), ("benign", 0), ("all", None)):
        images = manifest if label is None else manifest[manifest["patient_label"] == label]
        sides = breasts if label is None else breasts[breasts["patient_label"] == label]
        rows[name] = {
            "patients": images["patient_id"].nunique(),
            "images": len(images),
            "breasts": len(sides),
            "breasts_labelled_1": int((sides["label"] == 1).sum()),
            "breasts_labelled_0": int((sides["label"] == 0).sum()),
            "breasts_unlabelled": int(sides["label"].isna().sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
