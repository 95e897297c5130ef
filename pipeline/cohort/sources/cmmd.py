"""CMMD (Chinese Mammography Database, Cui et al. 2021, doi 10.7937/tcia.eqde4b16): a manifest from the download.

Rules. Patient, side and view come from the tags (the view stands in ViewCodeSequence only; the order of the files and
their numbers mean nothing). ``label`` is the breast's row in the clinical table, empty where the breast has none: the
other breast of 729 patients. ``patient_label`` is 1 if any of the patient's rows is malignant; 30 patients have one
malignant and one benign breast, which keep their own labels. Patients that share an image (D1-0202 and D2-0284,
D1-0808 and D1-1292) share a ``group_id``, so that no split parts them; nothing is dropped. The two 16-bit images
(D1-1343) stay: their window says "full width", as that of the 8-bit ones. ``vendor`` holds the sub-cohort, D1 or D2,
since no file names its maker. The ids are public pseudonyms and are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.errors import CohortError
from pipeline.cohort.schema import LATERALITIES, OLDEST
from pipeline.cohort.sources.copies import groups_of_identical, without_copies
from pipeline.cohort.sources.files import ImageFile, read_files
from pipeline.cohort.sources.listing import REJECT_COLUMNS, ROW_WITHOUT_FILE, Listing, ordered, rejects_of
from pipeline.cohort.sources.tables import LINE, need_columns, read_table

PATIENT_ID = re.compile(r"(D[12])-\d{4}")
CLASSES = {"Benign": 0.0, "Malignant": 1.0}
COLUMNS = ["ID1", "LeftRight", "Age", "abnormality", "classification"]
PUBLISHED_PATIENTS, PUBLISHED_IMAGES = 1775, 5202  # the collection's page at the archive, version 1
OPTION = "--clinical"


def cmmd_manifest(
    root: str | Path, clinical: str | Path, *, apart_from: tuple[Path, ...] = (), progress: bool = True
) -> Listing:
    """Build the manifest of a download of CMMD, in either folder layout of the archive's data retriever.

    Args:
        root: folder of the download; it becomes the data root.
        clinical: CMMD_clinicaldata_revision.xlsx, or the same as CSV.
        apart_from: files below the root that are not images.
        progress: show a bar.

    Returns:
        The manifest and what was left out: files that are no image of the collection (``no_patient``,
        ``no_row``, copies, refusals of the imaging room) and rows without a file.

    Raises:
        CohortError: the clinical table is missing or wrong, the folder is missing or empty, or no image is left.
    """
    table = read_clinical(clinical)
    files = without_copies(read_files(root, apart_from=(*apart_from, Path(clinical)), progress=progress))
    known = set(table["ID1"])
    files = [_checked(file, known) for file in files]
    images = [file for file in files if not file.code]
    rejects = pd.concat([rejects_of(files), rows_without_files(table, images)], ignore_index=True)
    if not images:
        counts = ", ".join(f"{code} {count}" for code, count in rejects["code"].value_counts().items())
        raise CohortError(
            f"none of {len(files)} files below --root is an image of CMMD with a row in the clinical table ({counts}); "
            "is --root the folder of the download?"
        )
    manifest = _manifest(images, table)
    return Listing(manifest, rejects, tuple(_notes(manifest, images, files)))


def read_clinical(path: str | Path) -> pd.DataFrame:
    """Read and check the clinical table: one row per breast.

    Returns:
        ID1, LeftRight, Age (float64), abnormality, ``label`` (1.0 malignant, 0.0 benign) and the line of each row.

    Raises:
        CohortError: no such table, columns missing, or cells outside the vocabulary, with their lines.
    """
    table = read_table(path, option=OPTION)
    need_columns(table, COLUMNS, option=OPTION)
    table = table[[*COLUMNS, LINE]].assign(
        Age=pd.to_numeric(table["Age"], errors="coerce"), label=table["classification"].map(CLASSES)
    )
    wrong = {
        "ID1 (D1-0001, D2-0001, ...)": ~table["ID1"].str.fullmatch(PATIENT_ID.pattern),
        f"LeftRight ({', '.join(LATERALITIES)})": ~table["LeftRight"].isin(LATERALITIES),
        f"Age (0 to {OLDEST})": ~table["Age"].between(0, OLDEST),
        f"classification ({', '.join(CLASSES)})": table["label"].isna(),
        "LeftRight (one row per breast)": table.duplicated(["ID1", "LeftRight"]),
    }
    problems = [
        f"{name}: {found.sum()} rows, the first in line {table.loc[found, LINE].iloc[0]}"
        for name, found in wrong.items()
        if found.any()
    ]
    if problems:
        raise CohortError(f"{OPTION}: cells that are not allowed in {Path(path).name}; " + "; ".join(problems))
    return table


def _checked(file: ImageFile, known: set[str]) -> ImageFile:
    if file.code:
        return file
    if PATIENT_ID.fullmatch(file.patient_id) is None:
        return replace(
            file, code="no_patient", reason="PatientID (0010,0020) is none of CMMD's (D1-0001, D2-0001, ...)"
        )
    if file.patient_id not in known:
        return replace(file, code="no_row", reason=f"patient {file.patient_id} has no row in the clinical table")
    if not file.view:
        return replace(file, code="unknown_view", reason="no view in ViewCodeSequence (0054,0220) or ViewPosition")
    if not file.laterality:
        return replace(file, code="unknown_side", reason="no side in ImageLaterality (0020,0062) or Laterality")
    return file


def rows_without_files(table: pd.DataFrame, images: Iterable[ImageFile]) -> pd.DataFrame:
    """Rows of the clinical table whose breast has no image, as rejects with an empty ``image``."""
    there = {(file.patient_id, file.laterality) for file in images}
    rows = [
        ("", patient, ROW_WITHOUT_FILE, f"line {line} of the clinical table: no image of breast {side}")
        for patient, side, line in zip(table["ID1"], table["LeftRight"], table[LINE], strict=True)
        if (patient, side) not in there
    ]
    return pd.DataFrame(rows, columns=list(REJECT_COLUMNS), dtype="str")


def _manifest(images: list[ImageFile], table: pd.DataFrame) -> pd.DataFrame:
    breasts = table.set_index(["ID1", "LeftRight"])
    labels, lesions = breasts["label"].to_dict(), breasts["abnormality"].to_dict()
    patients = table.groupby("ID1").agg(label=("label", "max"), age=("Age", "first"))
    groups = groups_of_identical([file.patient_id for file in images], [file.pixels for file in images])
    rows = [
        {
            "image": file.path,
            "patient_id": file.patient_id,
            "laterality": file.laterality,
            "view": file.view,
            "label": labels.get((file.patient_id, file.laterality), np.nan),
            "patient_label": int(patients.at[file.patient_id, "label"]),
            "group_id": groups[file.patient_id],
            "age": patients.at[file.patient_id, "age"],
            "vendor": file.patient_id[:2],
            "lesion": lesions.get((file.patient_id, file.laterality), ""),
        }
        for file in images
    ]
    return ordered(pd.DataFrame(rows), [file.sop_uid for file in images])


def _notes(manifest: pd.DataFrame, images: list[ImageFile], files: list[ImageFile]) -> list[str]:
    patients = manifest["patient_id"].nunique()
    notes = []
    if (patients, len(manifest)) != (PUBLISHED_PATIENTS, PUBLISHED_IMAGES):
        notes.append(
            f"not the whole collection: {patients} of {PUBLISHED_PATIENTS} patients, "
            f"{len(manifest)} of {PUBLISHED_IMAGES} images"
        )
    stray = {file.path for file in files if file.code == "no_row"}
    if stray:
        notes.append(f"{len(stray)} files show patients without a row in the clinical table: left out")
    unlabelled = manifest[manifest["label"].isna()]
    notes.append(
        f"{len(unlabelled)} images of {unlabelled['patient_id'].nunique()} patients show a breast without a row: "
        "label empty, patient_label set"
    )
    mixed = manifest.groupby("patient_id")["label"].nunique().gt(1).sum()
    notes.append(f"{mixed} patients have one malignant and one benign breast: label per breast, patient_label 1")
    groups = manifest.groupby("group_id")["patient_id"].unique()
    shared = [" and ".join(sorted(names)) for names in groups if len(names) > 1]
    if shared:
        notes.append(f"identical pixels, one group_id each, nothing dropped: {'; '.join(sorted(shared))}")
    deep = sorted({file.patient_id for file in images if file.bits > 8})
    if deep:
        count = sum(file.bits > 8 for file in images)
        notes.append(f"{count} images have 16 bits, the others 8: {', '.join(deep)}; kept, shown at full width")
    notes.append(confound(manifest))
    return notes


def confound(manifest: pd.DataFrame) -> str:
    """Say how the sub-cohorts D1 and D2 split the labels: whoever tells them apart knows every patient of D2."""
    breasts = manifest.drop_duplicates(["patient_id", "laterality"])
    parts = []
    for name, rows in breasts.groupby("vendor"):
        malignant, benign = int((rows["label"] == 1).sum()), int((rows["label"] == 0).sum())
        patients = rows.drop_duplicates("patient_id")["patient_label"]
        parts.append(
            f"{name} has {malignant} malignant and {benign} benign breasts, "
            f"{patients.sum()} of {len(patients)} patients with a malignant one"
        )
    return "; ".join(parts) + ". The sub-cohort (column vendor) gives the label away: report figures within D1 too"
