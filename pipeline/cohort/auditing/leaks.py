"""Leaks: one person, or one picture, in two partitions of a split; as a whole for an audit, at once for training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from pipeline.cohort.auditing.findings import Finding, Severity, some
from pipeline.cohort.auditing.looks import near_pairs, read_looks, same_pixels
from pipeline.cohort.errors import CohortError

AT_OPENING = 0.60
"""Agreement of hashes from which a pair is looked at when a cohort is opened. Of the copies named at ``CANDIDATE``
it finds 100 of 100 mirrored or upside down, 91 to 96 resampled, 83 of JPEG quality 50, 60 to 82 of the others but those
turned by 2 degrees (55); 0.7 s of processor time for the 2,000 images of DDSM."""
WHAT_TO_DO = "give them one group_id, drop one of them, or mend the column 'partition'"


class LeakError(CohortError):
    """The split of a cohort leaks: what a network is tested on stands in its training data."""


class Places:
    """In which partition each image stands, for every fold that is looked at.

    Args:
        partitions: (N, F) names; F is 0 where no split is known, and any two images may then be torn apart.
    """

    def __init__(self, partitions: np.ndarray) -> None:
        self.partitions = partitions

    def torn(self, first: int, second: int) -> bool:
        """Whether two images stand in different partitions in any fold."""
        one, two = self.partitions[first], self.partitions[second]
        return not one.size or bool((one != two).any())

    def where(self, first: int, second: int) -> str:
        """The partitions of the first fold that tears two images, in words."""
        one, two = self.partitions[first], self.partitions[second]
        if not one.size:
            return "any split may tear them apart"
        apart = np.flatnonzero(one != two)
        fold = int(apart[0]) if apart.size else 0
        several = f" in {apart.size} of {one.size} folds" if one.size > 1 and apart.size else ""
        return (
            f"{one[fold]} and {two[fold]}{several}" if apart.size else f"both {one[0]}" if one.size == 1 else "together"
        )


def torn_people(table: pd.DataFrame, places: Places) -> list[Finding]:
    """Patients and groups in two partitions of any fold.

    Args:
        table: one row per image with patient_id and group_id.
        places: where each row stands.
    """
    found = []
    for column, code, what in (
        ("patient_id", "patient_in_two_partitions", "patients stand"),
        ("group_id", "group_in_two_partitions", "groups (group_id) stand"),
    ):
        torn = pd.Series(False, index=table[column].unique())
        for fold in range(places.partitions.shape[1]):
            counts = pd.Series(places.partitions[:, fold]).groupby(table[column].to_numpy()).nunique()
            torn |= (counts > 1).reindex(torn.index)
        names = torn.index[torn].tolist()
        if code.startswith("group"):  # a torn patient is named as such
            alone = table.groupby("group_id")["patient_id"].nunique()
            names = [name for name in names if alone[name] > 1]
        if names:
            rows = table[table[column].isin(names)]
            found.append(
                Finding(
                    code,
                    Severity.LEAK,
                    f"{len(names)} {what} in two partitions: {some(rows['patient_id'].unique().tolist())}; "
                    "a patient and its group stay together: mend the column 'partition' or group_id",
                    patients=tuple(rows["patient_id"].unique()),
                )
            )
    return found


def pair_findings(table: pd.DataFrame, pairs: pd.DataFrame, places: Places) -> list[Finding]:
    """One finding for each kind of repeated picture, apart for pairs that a split tears (leaks) and others (warnings).

    Args:
        table: one row per image with image, patient_id, patient_label.
        pairs: ``first``, ``second`` (positions in ``table``), ``kind``, ``similarity``, ``flip``.
        places: where each row stands.
    """
    found = []
    for kind, rows in pairs.groupby("kind", sort=False):
        for leak in (True, False):
            chosen = [row for row in rows.itertuples() if places.torn(row.first, row.second) == leak]
            if not chosen:
                continue
            told, people, images = [], [], []
            for row in chosen:
                one, two = table.iloc[row.first], table.iloc[row.second]
                flip = f", {row.flip}" if row.flip else ""
                likeness = f", correlation {row.similarity:.2f}{flip}" if kind == "near_same_pixels" else ""
                told.append(
                    f"{one['patient_id']} and {two['patient_id']} ({places.where(row.first, row.second)}; "
                    f"{one['image']}, {two['image']}{likeness})"
                )
                people += [one["patient_id"], two["patient_id"]]
                images += [one["image"], two["image"]]
            verdict = "in two partitions" if leak else "in one partition of this split, as luck has it"
            found.append(
                Finding(
                    f"{kind}_in_two_partitions" if leak else f"{kind}_in_two_patients",
                    Severity.LEAK if leak else Severity.WARNING,
                    f"{KINDS[kind]} in {len(chosen)} pairs of patients' images, {verdict}: {some(told)}; {WHAT_TO_DO}",
                    patients=tuple(dict.fromkeys(people)),
                    images=tuple(dict.fromkeys(images)),
                )
            )
    return found


KINDS = {
    "same_sop_uid": "the same SOP Instance UID",
    "same_pixels": "the same pixels",
    "near_same_pixels": "nearly the same pixels",
}


def pair_table(pairs: Iterable[tuple[int, int]], kind: str) -> pd.DataFrame:
    """Pairs of equal images as rows of one kind; a similarity of 1."""
    table = pd.DataFrame(list(pairs), columns=["first", "second"], dtype=np.int64)
    return table.assign(kind=kind, similarity=1.0, flip="")


def leaks_of_opened(table: pd.DataFrame) -> list[Finding]:
    """Leaks of an opened cohort: images that are the same or nearly the same across partitions.

    ``audit``'s leakage part, for the time that a training run can spare: SOP Instance UIDs and stored pixels by the
    digests taken when the images were prepared, so that no file is read; of the nearly same, hard candidates (strong
    crops, other contrast) are left to ``audit``.

    Args:
        table: a cohort's table with image, patient_id, group_id, prepared, sop_digest, stored_digest, partition;
            partitions disjoint in people.
    """
    if table["partition"].nunique() < 2:
        return []
    table = table.reset_index(drop=True)
    parts = table["partition"].to_numpy(dtype=str)
    looks = read_looks(table["prepared"].tolist())
    people = table["group_id"].to_numpy(dtype=str)
    places = Places(parts[:, None])
    uids = pair_table(same_pixels(table["sop_digest"].tolist(), people), "same_sop_uid")
    near = near_pairs(looks, people, parts=parts, candidate=AT_OPENING).assign(kind="near_same_pixels")
    pictures = repeated_pictures(table["stored_digest"].tolist(), looks.digests, people, near)
    found = pair_findings(table, uids, places) + pair_findings(table, pictures, places)
    return [one for one in found if one.severity is Severity.LEAK]


def repeated_pictures(
    stored: Sequence[str], prepared: Sequence[str], people: np.ndarray, near: pd.DataFrame
) -> pd.DataFrame:
    """Pairs of different people with the same pixels, stored or prepared, or nearly the same ones; each pair once.

    Args:
        stored: N digests of the stored pixels, "" unknown.
        prepared: N digests of the prepared pixels.
        people: (N,) who each image belongs to.
        near: nearly same pairs, from ``near_pairs`` with their kind.
    """
    same = [pair_table(same_pixels(digests, people), "same_pixels") for digests in (stored, prepared)]
    pairs = pd.concat([*same, near], ignore_index=True)
    return pairs.drop_duplicates(["first", "second"]).reset_index(drop=True)


def refuse_leaks(leaks: list[Finding]) -> None:
    """Raise when there is a leak.

    Raises:
        LeakError: names the patients' pseudonyms and what to do.
    """
    if leaks:
        lines = "\n  ".join(leak.message for leak in leaks)
        raise LeakError(
            f"the split leaks, so that test figures would be those of training images:\n  {lines}\n"
            "`python -m pipeline audit MANIFEST` lists everything; a run that is to leak on purpose takes "
            "--cohort#allow_leaks True, and its provenance says so"
        )
