"""Audit of a cohort: leaks between partitions, contradictions, and shortcuts that would make a network look good."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.transforms import Compose

from pipeline.cohort.auditing.consistency import (
    exam_findings,
    label_findings,
    refusal_findings,
    repeated_findings,
    side_findings,
)
from pipeline.cohort.auditing.findings import Finding, Severity
from pipeline.cohort.auditing.images import image_facts
from pipeline.cohort.auditing.leaks import Places, pair_findings, pair_table, repeated_pictures, torn_people
from pipeline.cohort.auditing.looks import near_pairs, read_looks, same_pixels
from pipeline.cohort.auditing.reading import read_for_audit
from pipeline.cohort.auditing.shortcuts import ALPHA, Shortcut, patient_facts, scan, shortcut_findings
from pipeline.cohort.errors import CohortError
from pipeline.cohort.folds import patient_folds
from pipeline.cohort.listed import refuse_none
from pipeline.cohort.preparing import prepare_images
from pipeline.imaging import ImageStore

VERSION = 1
"""Version of the keys of the JSON; raised when one is renamed or removed."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        digest: SHA-256 of the manifest file, "" for a table.
        counts: patients, malignant, benign, images, prepared, refused.
        split: which split was looked at, in words.
        findings: leaks first, then warnings, then notes.
        shortcuts: every fact asked, the most telling first.
    """

    digest: str
    counts: dict[str, int]
    split: str
    findings: list[Finding]
    shortcuts: list[Shortcut] = field(default_factory=list)

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity is severity]

    @property
    def leaks(self) -> list[Finding]:
        """The leaks; a cohort with any must not be trained on."""
        return self.of(Severity.LEAK)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON values, with the version of its keys."""
        return {
            "version": VERSION,
            "manifest_digest": self.digest,
            "counts": self.counts,
            "split": self.split,
            "leaks": [finding.to_dict() for finding in self.leaks],
            "warnings": [finding.to_dict() for finding in self.of(Severity.WARNING)],
            "notes": [finding.to_dict() for finding in self.of(Severity.NOTE)],
            "multiplicity": {"method": "Holm", "alpha": ALPHA, "questions": sum(map(_was_asked, self.shortcuts))},
            "shortcuts": [shortcut.to_dict() for shortcut in self.shortcuts],
        }

    def save(self, path: str | Path) -> None:
        """Write the JSON, under a temporary name first."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)


def audit(
    manifest: str | Path | pd.DataFrame,
    *,
    dataset_dir: str | Path | None = None,
    preprocessing: Compose | None = None,
    store_dir: str | Path | None = None,
    fold: int | None = None,
    folds: int = 5,
    seed: int = 0,
    allow_raw_ids: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Audit:
    """Look for leaks, contradictions and shortcuts in a cohort.

    Leaks are of people and pictures that a split tears apart: the manifest's fixed split, or every fold of
    ``patient_folds`` (or the one given). The same or nearly the same pixels in two patients of one partition are a
    warning, since another seed would tear them; patients that share a ``group_id`` are known to be one person.

    Args:
        manifest: a manifest file, or a table as ``read_manifest`` returns it.
        dataset_dir: data root of the manifest, by default its folder.
        preprocessing: chain that prepares the images; None looks at the table alone, and at no image.
        store_dir: image store to take prepared images from and to add to; None prepares in a temporary folder.
        fold: the fold to look at; None for all of them. A fixed split has fold 0 only.
        folds: number of folds.
        seed: seed of the folds, and of folds and permutations of the scan.
        allow_raw_ids: accept ids equal to the DICOM PatientID (public pseudonyms); else they are a leak, and no id is
            named in any finding.
        workers: processes that prepare images; 0 for this one, None for one per core.
        progress: show bars.

    Returns:
        The audit.

    Raises:
        CohortError: the manifest cannot be read, there is no such fold, no data root, or not one image can be prepared.
    """
    if isinstance(manifest, pd.DataFrame):
        listed, root = manifest.reset_index(drop=True), Path(dataset_dir or ".")
        if "group_id" not in listed:
            listed = listed.assign(group_id=listed["patient_id"])
    else:
        root = Path(dataset_dir) if dataset_dir is not None else Path(manifest).parent
        listed = read_for_audit(manifest, dataset_dir=root)
    if preprocessing is not None and not root.is_dir():
        raise CohortError(f"the data root {root} is not a folder; set dataset_dir to where the manifest's paths begin")
    split, partitions, findings = _partitions(listed, fold=fold, folds=folds, seed=seed)
    findings += torn_people(listed, Places(partitions))
    findings += label_findings(listed) + exam_findings(listed)
    measured = rejects = pd.DataFrame()
    if preprocessing is not None:
        temporary = tempfile.TemporaryDirectory() if store_dir is None else nullcontext(str(store_dir))
        with temporary as folder:
            store = ImageStore(folder)
            prepared, rejects = prepare_images(
                listed.assign(position=np.arange(len(listed))), dataset_dir=root, chain=preprocessing, store=store,
                workers=workers, progress=progress, allow_raw_ids=True,
            )  # fmt: skip
            refuse_none(prepared, rejects, root)
            measured = prepared.join(image_facts(prepared, root=root, store=store, progress=progress))
            findings += refusal_findings(listed, rejects)
            if len(measured):
                findings += _pictures(measured, Places(partitions[measured["position"].to_numpy(dtype=int)]))
                findings += side_findings(measured) + repeated_findings(measured, "stored_digest")
    shortcuts = scan(patient_facts(listed, measured, rejects), seed=seed)
    findings += shortcut_findings(shortcuts)
    raw = set(measured.loc[measured["raw_id"], "patient_id"]) if len(measured) and not allow_raw_ids else set()
    if raw:
        findings = [_raw_ids(len(raw)), *(_without_names(finding) for finding in findings)]
        shortcuts = [replace(one, categories=None) if one.name == "id_prefix" else one for one in shortcuts]
    order = list(Severity)
    people = listed.groupby("patient_id")["patient_label"].max()
    counts = {
        "patients": len(people),
        "malignant": int((people == 1).sum()),
        "benign": int((people == 0).sum()),
        "images": len(listed),
        "prepared": len(measured),
        "refused": len(rejects),
    }
    return Audit(
        digest=str(listed.attrs.get("digest", "")),
        counts=counts,
        split=split,
        findings=sorted(findings, key=lambda finding: order.index(finding.severity)),
        shortcuts=shortcuts,
    )


def _partitions(
    listed: pd.DataFrame, *, fold: int | None, folds: int, seed: int
) -> tuple[str, np.ndarray, list[Finding]]:
    """The split in words, the partition of every row in each of its folds (N, F), and what stands in the way of one."""
    if "partition" in listed:
        if fold not in (None, 0):
            raise CohortError(f"fold {fold} does not exist: the manifest has a fixed split; allowed: 0")
        return "fixed (column 'partition')", listed[["partition"]].to_numpy(dtype=str), []
    if fold is not None and not 0 <= fold < folds:
        raise CohortError(f"fold {fold} does not exist: {folds} folds; allowed: {', '.join(map(str, range(folds)))}")
    try:
        split = patient_folds(listed, folds=folds, seed=seed)
    except CohortError as error:
        message = f"no folds, so that any repeated picture counts as a leak: {error}"
        return "none", np.empty((len(listed), 0), dtype=str), [Finding("no_folds", Severity.WARNING, message)]
    wide = split.pivot(index="patient_id", columns="fold", values="partition")
    wide = wide if fold is None else wide[[fold]]
    name = f"fold {fold} of {folds}, seed {seed}" if fold is not None else f"all {folds} folds, seed {seed}"
    return name, wide.loc[listed["patient_id"]].to_numpy(dtype=str), []


def _pictures(measured: pd.DataFrame, places: Places) -> list[Finding]:
    """Repeated pictures and SOP Instance UIDs of different people."""
    people = measured["group_id"].to_numpy(dtype=str)
    looks = read_looks(measured["prepared"].tolist())
    uids = pair_table(same_pixels(measured["sop_digest"].tolist(), people), "same_sop_uid")
    near = near_pairs(looks, people).assign(kind="near_same_pixels")
    pictures = repeated_pictures(measured["stored_digest"].tolist(), looks.digests, people, near)
    twice = measured.loc[measured.duplicated(["group_id", "sop_digest"], keep=False) & (measured["sop_digest"] != "")]
    findings = pair_findings(measured, uids, places) + pair_findings(measured, pictures, places)
    if len(twice):
        names = tuple(twice["image"])
        message = f"{len(names)} images of one patient share a SOP Instance UID with another of its images"
        findings.append(Finding("sop_uid_twice", Severity.WARNING, message, tuple(twice["patient_id"].unique()), names))
    return findings


def _raw_ids(patients: int) -> Finding:
    message = (
        f"patient_id equals the DICOM PatientID of the file for {patients} patients; a manifest holds pseudonyms only. "
        "Write it with other ids, or allow raw ids where the PatientID is itself a public pseudonym (--allow-raw-ids). "
        "Ids and paths are left out of this audit"
    )
    return Finding("raw_ids", Severity.LEAK, message)


def _without_names(finding: Finding) -> Finding:
    """The finding without ids and paths, which may be real ones; the counts stay."""
    if finding.code.startswith("shortcut_"):  # names a fact, no patient
        return finding
    message = f"{len(finding.patients)} patients, {len(finding.images)} images (names left out: raw ids)"
    return replace(finding, message=message, patients=(), images=())


def _was_asked(shortcut: Shortcut) -> bool:
    return shortcut.association is not None
