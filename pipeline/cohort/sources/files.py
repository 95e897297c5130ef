"""The image files below a folder: tags and a hash of the stored pixels, read in threads, one record per file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from tqdm import tqdm

from pipeline.cohort.errors import CohortError
from pipeline.cohort.sources.identity import age_years, maker, path_identifies, tag_text
from pipeline.imaging import Refusal, RefusalCode, View, explain
from pipeline.imaging.decoding import RawPolicy, check_object
from pipeline.imaging.facts import read_laterality, read_view
from pipeline.imaging.parsing import open_dataset, silenced
from pipeline.imaging.special import KEPT, checked_keep


@dataclass(frozen=True)
class ImageFile:
    """What a manifest needs of one file. Ids are those of the file: never write them out as they are.

    Args:
        path: below the root, with ``/``.
        patient_id, accession, study_uid, series_uid, sop_uid: ids of the header, "" where empty.
        laterality: L, R, or "" where no tag says it.
        view: view, or "" where no tag says it.
        age: in years, at most 90; None unknown.
        vendor: maker of the device, "" unknown.
        bits: bits stored.
        pixels: SHA-256 of shape, depth and stored pixel bytes; "" for a picture of one value.
        path_identifies: the path holds an id, name or date of the header.
        public: the patient's id is a public pseudonym already.
        code: why the file cannot be used, "" if it can.
        reason: the same in words, free of personal data.
    """

    path: str
    patient_id: str = ""
    accession: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    laterality: str = ""
    view: str = ""
    age: float | None = None
    vendor: str = ""
    bits: int = 0
    pixels: str = ""
    path_identifies: bool = False
    public: bool = False
    code: str = ""
    reason: str = ""


def read_files(
    root: str | Path,
    *,
    apart_from: tuple[Path, ...] = (),
    keep: Collection[str] = KEPT,
    for_processing: RawPolicy | str = RawPolicy.REFUSE,
    progress: bool = True,
) -> list[ImageFile]:
    """Read every file below a folder, in the order of the paths; a bad file becomes a record with a code.

    Args:
        root: folder of the archive; links to folders are not followed.
        apart_from: files that are not images (tables of labels, results of an earlier run).
        keep: kinds of unusual images that are no refusals, see :class:`~pipeline.imaging.special.Special`.
        for_processing: ``refuse`` raw detector values, or ``log``: take them as they are.
        progress: show a bar with files per second.

    Returns:
        One record per file.

    Raises:
        CohortError: the folder is missing or holds no file, or an unknown kind or policy.
    """
    try:
        kinds = checked_keep(keep)
    except ValueError as error:
        raise CohortError(str(error)) from error
    if for_processing not in set(RawPolicy):
        raise CohortError(f"for_processing {str(for_processing)!r}: {' or '.join(RawPolicy)}")
    raw = RawPolicy(for_processing)
    home = Path(root)
    if not home.is_dir():
        raise CohortError("--root is not a folder; give the folder that the images were downloaded to")
    left_out = {path.resolve() for path in apart_from}
    paths = sorted(
        (Path(folder) / name).relative_to(home).as_posix() for folder, _, names in os.walk(home) for name in names
    )
    paths = [path for path in paths if (home / path).resolve() not in left_out]
    if not paths:
        raise CohortError("--root holds no file; give the folder that the images were downloaded to")
    with silenced(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda path: _silently(home, path, kinds, raw), paths)
        return list(tqdm(found, total=len(paths), desc="reading", unit="file", disable=not progress))


def _silently(root: Path, path: str, keep: tuple[str, ...], for_processing: RawPolicy) -> ImageFile:
    with silenced():  # a thread has its own
        return read_file(root, path, keep, for_processing)


def read_file(root: Path, path: str, keep: tuple[str, ...], for_processing: RawPolicy) -> ImageFile:
    """Read the record of one file; whatever is wrong with it stands in ``code`` and ``reason``."""
    record = ImageFile(path)
    try:
        dataset = open_dataset(root / path)
        record = _identified(dataset, path)
        check_object(dataset, keep=keep, for_processing=for_processing)
        side, view = side_and_view(dataset)
        return replace(
            record,
            laterality=side,
            view=view,
            age=age_years(dataset),
            vendor=maker(dataset),
            bits=int(dataset.get("BitsStored") or 0),
            pixels=pixel_digest(dataset),
        )
    except Exception as error:  # one bad file never ends a run
        code, reason = explain(error)
        return replace(record, code=code, reason=reason)


def _identified(dataset: Dataset, path: str) -> ImageFile:
    return ImageFile(
        path,
        patient_id=tag_text(dataset, "PatientID"),
        accession=tag_text(dataset, "AccessionNumber"),
        study_uid=tag_text(dataset, "StudyInstanceUID"),
        series_uid=tag_text(dataset, "SeriesInstanceUID"),
        sop_uid=tag_text(dataset, "SOPInstanceUID"),
        path_identifies=path_identifies(dataset, path),
    )


def pixel_digest(dataset: Dataset) -> str:
    """SHA-256 of Rows, Columns, bits and the bytes of Pixel Data as they are stored, compressed or not.

    A native picture of one value only says nothing about whose it is, so it gets "".

    Raises:
        Refusal: ``no_pixels``.
    """
    value = dataset.get("PixelData")
    if not value:
        raise Refusal(RefusalCode.NO_PIXELS, "Pixel Data (7FE0,0010) is missing or empty")
    allocated = int(dataset.get("BitsAllocated") or 8)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and allocated in (8, 16):
        values = np.frombuffer(value, dtype=f"u{allocated // 8}", count=len(value) // (allocated // 8))
        if values.min() == values.max():
            return ""
    shape = "x".join(str(dataset.get(keyword)) for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored"))
    digest = hashlib.sha256(f"{shape}:".encode())
    digest.update(value)
    return digest.hexdigest()


def side_and_view(dataset: Dataset) -> tuple[str, str]:
    """Side and view by the tags, "" for what no tag says.

    Raises:
        Refusal: ``side_conflict`` or ``view_conflict`` where tags disagree.
    """
    try:
        view = str(read_view(dataset)[0])
    except Refusal as refusal:
        if refusal.code != RefusalCode.UNKNOWN_VIEW:
            raise
        view = ""
    try:
        side = str(read_laterality(dataset, View(view or "CC"))[0])  # a CC view lends no side: nothing is guessed
    except Refusal as refusal:
        if refusal.code != RefusalCode.UNKNOWN_SIDE:
            raise
        side = ""
    return side, view
