"""Joining a table of labels to image files by their ids, and the labels of breasts and patients that follow."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from pipeline.cohort.sources.cbis import cbis_id, cbis_patient
from pipeline.cohort.sources.files import ImageFile
from pipeline.cohort.sources.labels import FILE_NAME, LABEL, PATIENT, SIDE, VIEW, LabelColumns
from pipeline.imaging import Laterality, View

FIELDS = {
    "PatientID": "patient_id",
    "AccessionNumber": "accession",
    "StudyInstanceUID": "study_uid",
    "SeriesInstanceUID": "series_uid",
    "SOPInstanceUID": "sop_uid",
    FILE_NAME: "path",
}
Breast = tuple[str, str, str]  # patient, examination, side


@dataclass
class Labels:
    """What the matched rows say.

    Args:
        breasts: (patient, examination, side) -> values 1.0 and 0.0 of its rows.
        patients: patient -> values of all its rows, also those that name no side.
    """

    breasts: dict[Breast, set[float]] = field(default_factory=lambda: defaultdict(set))
    patients: dict[str, set[float]] = field(default_factory=lambda: defaultdict(set))

    def breast(self, file: ImageFile) -> float:
        """1.0 if any row of the breast says so, else 0.0 if any does, NaN unknown."""
        return max(self.breasts.get((file.patient_id, file.study_uid, file.laterality), ()), default=np.nan)


def with_cbis(file: ImageFile) -> ImageFile:
    """Take the PatientID of a CBIS-DDSM file apart: patient, side, view, and no examination."""
    parts = cbis_id(file.patient_id)
    if parts is None:
        return file
    for told, tag, code in ((parts.laterality, file.laterality, "side"), (parts.view, file.view, "view")):
        if tag and tag != told and not file.code:
            reason = f"PatientID says {told}, the tags say {tag}"
            file = replace(file, code=f"{code}_conflict", reason=reason)
    if parts.finding is not None and not file.code:
        file = replace(file, code="not_mammogram", reason="mask or cut-out of a finding, no whole mammogram")
    file = replace(file, patient_id=parts.patient, study_uid="", public=True)
    return replace(file, laterality=parts.laterality, view=parts.view)


def join(files: list[ImageFile], table: pd.DataFrame, columns: LabelColumns) -> list[list[int]]:
    """Find the rows of each file: those that agree with it in every id column.

    Args:
        files: records; those without ids (no DICOM) match nothing.
        table: from ``read_labels``.
        columns: which ids the table holds.

    Returns:
        Positions of the rows in the table, for each file.
    """
    keywords = sorted(columns.ids.values())
    cells = table[keywords].copy()
    if FILE_NAME in cells:
        finder = _FileFinder([file.path for file in files])
        cells[FILE_NAME] = cells[FILE_NAME].map(finder)
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, key in enumerate(cells.itertuples(index=False, name=None)):
        if all(key):
            rows[key].append(position)
    return [rows.get(tuple(getattr(file, FIELDS[keyword]) for keyword in keywords), []) for file in files]


class _FileFinder:
    """Finds the one file that a cell names: its path, its name, or its name without the ending."""

    def __init__(self, paths: list[str]) -> None:
        self._named: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem}:
                self._named[name].append(path)

    def __call__(self, cell: str) -> str:
        wanted = cell.replace("\\", "/").removeprefix("./").strip("/")
        found = self._named.get(wanted.rpartition("/")[2], [])
        if len(found) > 1:
            ends = [path for path in found if wanted in _endings(path)]
            found = [path for path in found if path == wanted] or ends
        return found[0] if len(found) == 1 else ""


def _endings(path: str) -> set[str]:
    """Every tail of a path, with and without the ending of the file's name."""
    parts = PurePosixPath(path).parts
    tails = {"/".join(parts[start:]) for start in range(len(parts))}
    return tails | {str(PurePosixPath(tail).with_suffix("")) for tail in tails}


def complete(file: ImageFile, rows: list[int], table: pd.DataFrame, columns: LabelColumns) -> ImageFile:
    """Fill in what the tags lack from the rows of one image (patient, side, view); refuse what is still missing.

    Args:
        file: record that may carry a refusal already, which stays.
        rows: its rows.
        table: from ``read_labels``.
        columns: what the table holds.

    Returns:
        The record, refused with ``no_patient``, ``no_row``, ``side_conflict``, ``view_conflict``, ``unknown_side`` or
        ``unknown_view`` where it cannot be used.
    """
    if columns.per_image and rows:
        if columns.patient:
            patient = _only(table, rows, PATIENT)
            file = replace(file, patient_id=cbis_patient(patient) or patient if patient else file.patient_id)
        file = _told(file, "laterality", "side", _only(table, rows, SIDE), tuple(Laterality))
        file = _told(file, "view", "view", _only(table, rows, VIEW).upper(), tuple(View))
    if file.code:
        return file
    if not file.patient_id:
        reason = "no PatientID (0010,0020); for files without one, --patient-column names the table's column"
        return replace(file, code="no_patient", reason=reason)
    if not rows:
        return replace(file, code="no_row", reason="no row of the label table has these ids")
    if not file.view:
        return replace(file, code="unknown_view", reason="no view in the tags; --view-column can give it")
    if not file.laterality:
        return replace(file, code="unknown_side", reason="no side in the tags; --side-column can give it for one image")
    return file


def _only(table: pd.DataFrame, rows: list[int], column: str) -> str:
    """The one text that rows of an image give, "" for none or several."""
    texts = {text for text in table[column].iloc[rows] if text}
    return texts.pop() if len(texts) == 1 else ""


def _told(file: ImageFile, name: str, what: str, told: str, allowed: tuple[str, ...]) -> ImageFile:
    known = getattr(file, name)
    if not told or told == known or file.code:
        return file
    if told not in allowed:
        return replace(file, code=f"unknown_{what}", reason=f"the {what} in the table is none of {', '.join(allowed)}")
    if known:
        return replace(file, code=f"{what}_conflict", reason=f"the tags say {known}, the label table {told}")
    return replace(file, laterality=told) if name == "laterality" else replace(file, view=told)


def gather(files: list[ImageFile], rows: list[list[int]], table: pd.DataFrame, columns: LabelColumns) -> Labels:
    """Labels of breasts and patients from the rows of all files, also refused ones.

    A row with a side is about that breast, a row about one image about the breast in the image. A row without a side
    says 0 of both breasts, or 1 of one of them: then only the patient's label is known.
    """
    labels = Labels()
    sides, values = table[SIDE].tolist(), table[LABEL].tolist()
    for file, positions in zip(files, rows, strict=True):
        if not file.patient_id:
            continue
        for position in positions:
            value = values[position]
            if np.isnan(value):
                continue
            labels.patients[file.patient_id].add(value)
            side = sides[position] or (file.laterality if columns.per_image else "")
            both = value == 0 and not columns.per_image
            about = (side,) if side else ("L", "R") if both else ()
            for each in about:
                labels.breasts[(file.patient_id, file.study_uid, each)].add(value)
    return labels
