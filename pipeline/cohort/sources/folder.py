"""Any DICOM tree and a table of labels: a manifest with pseudonyms, and everything that found no partner.

Rules. Patient, examination, side and view come from the tags; a table with one row per image may fill what they lack
and must not contradict them. A breast is 1 if any of its rows is malignant, else 0 if any is benign, else unknown. A
row without a side makes both breasts 0 or, if malignant, only ``patient_label`` 1. ``patient_label`` is 1 if any row of
the patient is malignant. Patients that share an image share a ``group_id``. Ids become pseudonyms, unless they are
public.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.misc import is_dicom

from pipeline.cohort.errors import CohortError
from pipeline.cohort.pseudonyms import Kind, Pseudonyms
from pipeline.cohort.sources.copies import groups_of_identical, without_copies
from pipeline.cohort.sources.files import ImageFile, read_files
from pipeline.cohort.sources.joining import Labels, complete, gather, join, with_cbis
from pipeline.cohort.sources.labels import PATIENT, TABLE, LabelColumns, read_labels
from pipeline.cohort.sources.links import check_links, link_files
from pipeline.cohort.sources.listing import REJECT_COLUMNS, ROW_WITHOUT_FILE, Listing, ordered
from pipeline.cohort.sources.tables import LINE
from pipeline.imaging import RefusalCode
from pipeline.imaging.decoding import RawPolicy
from pipeline.imaging.special import KEPT

NO_DICOM = "no_dicom"
PERSONAL_COLUMNS = ("PatientID", "AccessionNumber", PATIENT)


@dataclass(frozen=True)
class _Names:
    """How ids are written: as pseudonyms, or as they are where they are public."""

    pseudonyms: Pseudonyms | None
    public: frozenset[str]  # patients of CBIS-DDSM; a "P_00173" of any other archive is somebody's real id

    def patient(self, patient_id: str) -> str:
        if self.pseudonyms is None or not patient_id or patient_id in self.public:
            return patient_id
        return self.pseudonyms(Kind.PATIENT, patient_id)

    def study(self, study_uid: str) -> str:
        return study_uid if self.pseudonyms is None or not study_uid else self.pseudonyms(Kind.STUDY, study_uid)

    def file(self, path: str) -> str:
        return path if self.pseudonyms is None else self.pseudonyms(Kind.FILE, path)


def folder_manifest(
    root: str | Path,
    labels: list[Path],
    columns: LabelColumns,
    *,
    pseudonyms: Pseudonyms | None,
    links: Path | None = None,
    apart_from: tuple[Path, ...] = (),
    keep: Collection[str] = KEPT,
    for_processing: RawPolicy | str = RawPolicy.REFUSE,
    progress: bool = True,
) -> Listing:
    """Build the manifest of a tree of DICOM files from tables of labels.

    Args:
        root: folder of the archive; the data root, unless ``links`` is given.
        labels: tables of labels.
        columns: what their columns hold.
        pseudonyms: makes the ids; None keeps them, for archives whose ids are public pseudonyms already.
        links: new folder of hard links under pseudonymous names, which becomes the data root: for archives whose paths
            hold ids, names or dates.
        apart_from: files below the root that are not images.
        keep: kinds of unusual images that stand in the manifest, see :class:`~pipeline.imaging.special.Special`; the
            reader of the preparation must keep them too.
        for_processing: ``log`` lets raw images stand in the manifest; the reader must show them.
        progress: show a bar.

    Returns:
        The manifest and what was left out. In the rejects of a private archive files and patients are pseudonyms; rows
        are named by the number of their table and their line.

    Raises:
        CohortError: wrong tables or settings; paths that identify somebody and no ``links``; or no image is left.
        Messages hold counts and lines, never ids.
    """
    if links is not None:
        if pseudonyms is None:
            raise CohortError("--links: an archive with public ids needs no other names; leave one of the two options")
        check_links(Path(root), links)
    table = read_labels(labels, columns)
    found = read_files(
        root, apart_from=(*apart_from, *labels), keep=keep, for_processing=for_processing, progress=progress
    )
    files = [with_cbis(_told_apart(Path(root), file)) for file in without_copies(found)]
    rows = join(files, table, columns)
    files = [complete(file, own, table, columns) for file, own in zip(files, rows, strict=True)]
    said = gather(files, rows, table, columns)
    files = [_labelled(file, said) for file in files]
    images = [file for file in files if not file.code]
    zeros = _zeros_lost(files, rows, table)
    if not images:
        counts = ", ".join(f"{code} {count}" for code, count in sorted(Counter(file.code for file in files).items()))
        raise CohortError(
            f"none of {len(files)} files below --root can stand in the manifest ({counts}). "
            + (zeros or "no_row: compare the ids of the table (--id-columns) with those of the files")
        )
    names = _Names(pseudonyms, frozenset(file.patient_id for file in files if file.public))
    notes = []
    if pseudonyms is None:
        paths = [file.path for file in images]
    elif links is None:
        _refuse_telling_paths(images, table)
        paths = [file.path for file in images]
    else:
        paths = [f"{names.patient(file.patient_id)}/{names.file(file.path)}.dcm" for file in images]
        linked, copied = link_files(
            (Path(root) / file.path, links / path) for file, path in zip(images, paths, strict=True)
        )
        notes.append(
            f"{linked} files linked and {copied} copied under pseudonymous names. Only the names are pseudonyms: the "
            "headers still hold names, ids and dates, and to edit a linked file is to edit the archive"
        )
    manifest, cleared = _manifest(images, paths, said, names)
    notes += _notes(manifest, said, cleared)
    unmatched = _rows_left(files, rows, table, names)
    notes += [zeros] if zeros else []
    refused = [
        (names.file(file.path), names.patient(file.patient_id), file.code, file.reason) for file in files if file.code
    ]
    return Listing(manifest, pd.DataFrame(refused + unmatched, columns=list(REJECT_COLUMNS), dtype="str"), tuple(notes))


def _told_apart(root: Path, file: ImageFile) -> ImageFile:
    """Of the unreadable files, those that never were DICOM get a code of their own: a report, a picture, a list."""
    try:
        if file.code != RefusalCode.UNREADABLE or is_dicom(root / file.path):
            return file
    except OSError:
        return file
    return replace(file, code=NO_DICOM, reason="not a DICOM file (no DICM marker)")


def _labelled(file: ImageFile, said: Labels) -> ImageFile:
    if file.code or said.patients.get(file.patient_id):
        return file
    return replace(file, code="no_label", reason="the rows of this patient have no label: patient_label is not known")


def _refuse_telling_paths(images: list[ImageFile], table: pd.DataFrame) -> None:
    ids = {text.casefold() for name in PERSONAL_COLUMNS if name in table for text in table[name] if text}
    telling = 0
    for file in images:
        if file.public:
            continue
        low = file.path.casefold()
        parts = {*re.split(r"[^0-9a-z]+", low), *low.split("/"), *(part.rpartition(".")[0] for part in low.split("/"))}
        telling += file.path_identifies or bool(parts & ids)
    if telling:
        raise CohortError(
            f"the paths of {telling} of {len(images)} images hold the patient's id or name, an accession number, a UID "
            "or a date, and a manifest names files by their paths. Give --links DIR: a folder of hard links under "
            "pseudonymous names, the data root of this manifest; or --public-ids where all of this is public already"
        )


def _manifest(images: list[ImageFile], paths: list[str], said: Labels, names: _Names) -> tuple[pd.DataFrame, int]:
    """The manifest, and how many patients had both breasts labelled 0 though one is malignant, not known which."""
    groups = groups_of_identical([names.patient(file.patient_id) for file in images], [file.pixels for file in images])
    manifest = pd.DataFrame(
        {
            "image": path,
            "patient_id": (patient := names.patient(file.patient_id)),
            "laterality": file.laterality,
            "view": file.view,
            "label": said.breast(file),
            "patient_label": int(max(said.patients[file.patient_id])),
            "group_id": groups[patient],
            "study_id": names.study(file.study_uid),
            "age": np.nan if file.age is None else file.age,
            "vendor": file.vendor,
        }
        for file, path in zip(images, paths, strict=True)
    )
    by_patient = manifest.groupby("patient_id")
    whole = by_patient["laterality"].transform("nunique") == 2
    zeros = by_patient["label"].transform(lambda label: bool((label == 0).all())).astype(bool)
    unclear = whole & zeros & (manifest["patient_label"] == 1)
    manifest.loc[unclear, "label"] = np.nan
    for name in ("study_id", "age", "vendor"):
        if manifest[name].isin(["", np.nan]).all():
            manifest = manifest.drop(columns=name)
    keys = [names.file(file.sop_uid or file.path) for file in images]
    return ordered(manifest, keys), manifest.loc[unclear, "patient_id"].nunique()


def _notes(manifest: pd.DataFrame, said: Labels, cleared: int) -> list[str]:
    notes = []
    both = sum(len(values) > 1 for values in said.breasts.values())
    if both:
        notes.append(f"{both} breasts have malignant and benign rows: malignant counts")
    if cleared:
        notes.append(
            f"{cleared} patients have a malignant row that names no breast in the images: their 0 is now unknown"
        )
    unlabelled = manifest[manifest["label"].isna()]
    if len(unlabelled):
        notes.append(f"{len(unlabelled)} images show a breast of unknown label: label empty, patient_label set")
    groups = manifest.groupby("group_id")["patient_id"].nunique()
    if (groups > 1).any():
        count = int(groups[groups > 1].sum())
        notes.append(f"{count} patients share images with identical pixels: {int((groups > 1).sum())} common group_ids")
    return notes


def _rows_left(
    files: list[ImageFile], rows: list[list[int]], table: pd.DataFrame, names: _Names
) -> list[tuple[str, str, str, str]]:
    """Rows whose files are missing or all refused."""
    met = {position for positions in rows for position in positions}
    used = {position for file, positions in zip(files, rows, strict=True) if not file.code for position in positions}
    left = []
    for position, row in enumerate(table.to_dict("records")):
        if position in used:
            continue
        patient = names.patient(row.get("PatientID", "") or row[PATIENT])
        why = "every file with these ids was refused" if position in met else "no file has these ids"
        left.append(("", patient, ROW_WITHOUT_FILE, f"table {row[TABLE]}, line {row[LINE]}: {why}"))
    return left


def _zeros_lost(files: list[ImageFile], rows: list[list[int]], table: pd.DataFrame) -> str:
    """What to do where leading zeros would have made the difference, "" where not."""
    met = {position for positions in rows for position in positions}
    there = {getattr(file, name).lstrip("0") for file in files for name in ("patient_id", "accession")} - {""}
    zeros = 0
    for position, row in enumerate(table.to_dict("records")):
        ids = [row[name].lstrip("0") for name in ("PatientID", "AccessionNumber") if row.get(name)]
        zeros += position not in met and bool(ids) and all(text in there for text in ids)
    if not zeros:
        return ""
    return (
        f"{zeros} {'row' if zeros == 1 else 'rows'} without a file would find one but for leading zeros, which a "
        "spreadsheet cuts off: export the table anew with its ids as text (cells formatted as Text before they are "
        "filled)"
    )
