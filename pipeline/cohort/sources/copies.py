"""Copies of an image: the same object twice in a folder, and the same pixels under two patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.cohort.sources.files import ImageFile

DUPLICATE, UID_CONFLICT = "duplicate", "uid_conflict"


def without_copies(files: Iterable[ImageFile]) -> list[ImageFile]:
    """Refuse second copies of an object (same SOP Instance UID, patient and pixels; the first path stays).

    Objects of one UID with unlike pixels cannot both be right (PS3.3 C.12.1: the UID is unique): all are refused.

    Args:
        files: records in the order of their paths.

    Returns:
        All records; refused ones with the code ``duplicate`` or ``uid_conflict``.
    """
    files = list(files)
    objects: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        if not file.code and file.sop_uid:
            objects[file.sop_uid].append(index)
    for places in objects.values():
        if len({files[place].pixels for place in places}) > 1:
            for place in places:
                reason = "another file has the same SOP Instance UID and other pixels; keep the right one"
                files[place] = replace(files[place], code=UID_CONFLICT, reason=reason)
            continue
        seen: set[str] = set()
        for place in places:
            if files[place].patient_id in seen:
                reason = "a copy of another file: same SOP Instance UID, same pixels"
                files[place] = replace(files[place], code=DUPLICATE, reason=reason)
            seen.add(files[place].patient_id)
    return files


def groups_of_identical(patients: list[str], pixels: list[str]) -> dict[str, str]:
    """Join patients that share an image, also through others.

    Args:
        patients: patient of each image.
        pixels: pixel digest of each image; "" joins nobody.

    Returns:
        patient -> group, which is named after its first patient in the order of the names.
    """
    names, patient = np.unique(np.asarray(patients, dtype=object), return_inverse=True)
    digests, digest = np.unique(np.asarray(pixels, dtype=object), return_inverse=True)
    told = np.asarray([bool(text) for text in pixels], dtype=bool)
    size = len(names) + len(digests)
    edges = coo_array((np.ones(told.sum()), (patient[told], len(names) + digest[told])), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    first: dict[int, str] = {}
    for name, part in zip(names, component[: len(names)], strict=True):
        first.setdefault(int(part), str(name))
    return {str(name): first[int(part)] for name, part in zip(names, component[: len(names)], strict=True)}
