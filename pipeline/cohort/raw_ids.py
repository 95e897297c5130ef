"""Real patient ids: a manifest whose ids are the PatientID of its DICOM files is refused, unless it is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.cohort.errors import CohortError
from pipeline.imaging.parsing import open_dataset, refusing
from pipeline.imaging.refusal import Refusal


class RawIdsError(CohortError):
    """Ids of the manifest equal the PatientID in their files. The message holds a count, never an id."""


def is_raw_id(path: Path, patient_id: str) -> bool:
    """Compare an id with PatientID (0010,0020) of a DICOM file (PS3.3 C.7.1.1), ignoring case and blanks.

    Args:
        path: the image file. A file that is missing, damaged or not DICOM has no PatientID to be equal to: what is
            wrong with it is found when it is read.
        patient_id: the id that the manifest gives.

    Returns:
        True where both are the same and not empty.
    """
    try:
        with refusing("DICOM file"):
            header = open_dataset(path, header_only=True, tags=["PatientID"])
            stored = str(header.get("PatientID", "")).strip()
    except Refusal:
        return False
    return stored != "" and stored.casefold() == patient_id.strip().casefold()


def refuse_raw_ids(ids_and_paths: Iterable[tuple[str, Path]]) -> None:
    """Raise when any id equals the PatientID of its file.

    Args:
        ids_and_paths: pairs (id of the manifest, image file).

    Raises:
        RawIdsError: with the number of patients.
    """
    raise_for_raw({patient_id for patient_id, path in ids_and_paths if is_raw_id(path, patient_id)})


def raise_for_raw(patients: set[str]) -> None:
    """Raise when the set of patients whose id is a PatientID is not empty.

    Raises:
        RawIdsError: with the number of patients.
    """
    if patients:
        count = f"{len(patients)} patient" + ("s" if len(patients) != 1 else "")
        raise RawIdsError(
            f"patient_id equals the DICOM PatientID of the file for {count}; a manifest holds pseudonyms only. "
            "Write the manifest with other ids, or allow raw ids where the PatientID is itself a public "
            "pseudonym (bundle: --cohort#allow_raw_ids True; python -m pipeline prepare: --allow-raw-ids)"
        )
