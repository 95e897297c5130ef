"""The way back from a pseudonym to the files of an archive, for whoever has its key."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pipeline.cohort.errors import CohortError
from pipeline.cohort.pseudonyms import Kind, Pseudonyms
from pipeline.cohort.sources.identity import tag_text
from pipeline.imaging import Refusal
from pipeline.imaging.parsing import open_dataset, silenced

TAGS = {Kind.PATIENT: "PatientID", Kind.STUDY: "StudyInstanceUID"}


def files_of(root: str | Path, names: Collection[str], *, pseudonyms: Pseudonyms) -> dict[str, list[str]]:
    """Find the files that pseudonyms of ``manifest folder`` stand for.

    A file's pseudonym is that of its path below the root, in the manifest (with links) and in its rejects alike; those
    of patients and examinations are of PatientID and Study Instance UID, for which the headers are read.

    Args:
        root: folder of the archive, the same that the manifest was made of.
        names: pseudonyms, ``f-...``, ``p-...`` or ``s-...``; the ending of a link's name does not matter.
        pseudonyms: with the key that made them.

    Returns:
        Pseudonym -> paths below the root, in order; empty where there is none.

    Raises:
        CohortError: the root is no folder, or a name is no pseudonym.
    """
    home = Path(root)
    if not home.is_dir():
        raise CohortError("--root is not a folder; give the folder that the manifest was made of")
    wanted = {name.strip().removesuffix(".dcm"): name for name in names}
    kinds = {short.partition("-")[0] for short in wanted}
    if strange := kinds - set(Kind):
        raise CohortError(f"{len(strange)} of the names are no pseudonyms: give f-..., p-... or s-...")
    found: dict[str, list[str]] = {name: [] for name in names}
    paths = sorted(
        (Path(folder) / name).relative_to(home).as_posix() for folder, _, files in os.walk(home) for name in files
    )
    for path in paths:
        own = {pseudonyms(Kind.FILE, path)} if Kind.FILE in kinds else set()
        headers = [kind for kind in TAGS if kind in kinds]
        if headers:
            own |= _of_header(home / path, headers, pseudonyms)
        for short in own & wanted.keys():
            found[wanted[short]].append(path)
    return found


def _of_header(file: Path, kinds: list[Kind], pseudonyms: Pseudonyms) -> set[str]:
    try:
        with silenced():
            dataset = open_dataset(file)
    except (Refusal, OSError):  # no image: it has no ids
        return set()
    return {pseudonyms(kind, text) for kind in kinds if (text := tag_text(dataset, TAGS[kind]))}
