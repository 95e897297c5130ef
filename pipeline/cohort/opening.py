"""Opening a cohort: manifest or phantoms -> prepared images -> partitions, with the count of what was lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.transforms import Compose

from pipeline.cohort.auditing.leaks import leaks_of_opened, refuse_leaks
from pipeline.cohort.errors import CohortError
from pipeline.cohort.folds import check_classes, check_disjoint, patient_folds, patient_table
from pipeline.cohort.listed import listed_images, refuse_none
from pipeline.cohort.preparing import REJECT_COLUMNS, prepare_images
from pipeline.cohort.schema import OPTIONAL, PARTITIONS
from pipeline.cohort.subset import draw_patients
from pipeline.imaging import ImageStore

LABEL_POLICIES = ("patient", "breast")
PURPOSES = ("training", "scoring")
LOST = "patient_lost"
SHOWN_PATIENTS = 10


@dataclass(frozen=True)
class Cohort:
    """The patients of one fold, their prepared images and what was lost on the way.

    Attributes:
        table: one row per kept image: the manifest's columns, ``prepared`` (path), ``fold`` and ``partition``.
        rejects: image, patient_id, code, reason; one row per rejected image, and one with an empty image and the code
            "patient_lost" for each patient without any image left.
        flow: ordered counts, stage -> {"files", "patients", "note"}.
        digest: SHA-256 of the manifest file.
        root: the data root that the manifest's paths are below.
        label_policy: "patient" or "breast", see ``items``.
        leaks: ``allowed`` (bool), whether leaks were allowed, and ``found``, the messages of those found.
    """

    table: pd.DataFrame
    rejects: pd.DataFrame
    flow: dict[str, dict[str, Any]]
    digest: str
    root: Path
    label_policy: str = field(default="patient")
    leaks: dict[str, Any] = field(default_factory=dict)

    def items(self, partition: str, purpose: str = "training") -> list[dict[str, Any]]:
        """List the items of a partition, in the order of the manifest.

        Args:
            partition: "training", "validation" or "test".
            purpose: "training" applies the label policy ("patient": the patient's label for every image; "breast":
                the breast's own label, images without one are left out). "scoring" gives every image with its
                patient's label, which is the outcome that an attack on the patient is after.

        Returns:
            Dicts with image (path of the prepared image), label (float32 (1,)), breast_label (float, NaN unknown),
            patient_label (int), patient_id, study_id (empty if the manifest has none), laterality, view, image_id
            (path in the manifest), partition, fold.

        Raises:
            CohortError: unknown partition or purpose, or no image in the partition.
        """
        _one_of("partition", partition, PARTITIONS)
        _one_of("purpose", purpose, PURPOSES)
        rows = self.table[self.table["partition"] == partition]
        if purpose == "training" and self.label_policy == "breast":
            rows = rows[rows["label"].notna()]
            labels = rows["label"]
        else:
            labels = rows["patient_label"]
        if rows.empty:
            present = ", ".join(self.table["partition"].unique())
            raise CohortError(f"no image in partition '{partition}'; the cohort has images in: {present}")
        return [
            {
                "image": row.prepared,
                "label": np.array([label], dtype=np.float32),
                "breast_label": float(row.label),
                "patient_label": int(row.patient_label),
                "patient_id": row.patient_id,
                "study_id": getattr(row, "study_id", ""),
                "laterality": row.laterality,
                "view": row.view,
                "image_id": row.image,
                "partition": row.partition,
                "fold": int(row.fold),
            }
            for row, label in zip(rows.itertuples(index=False), labels, strict=True)
        ]

    def digests(self, *partitions: str) -> list[str]:
        """Digests of the patients (of their ids) and of the prepared images of some partitions, sorted.

        They let another cohort be checked for overlap. An image is known again under another patient's id, as long as
        its file and the preparation are the same.
        """
        rows = self.table[self.table["partition"].isin(partitions)]
        patients = (f"patient:{hashlib.sha256(name.encode()).hexdigest()}" for name in rows["patient_id"].unique())
        images = (f"image:{Path(path).stem.partition('.')[0]}" for path in rows["prepared"])
        return sorted({*patients, *images})

    def save(self, run_dir: str | Path) -> None:
        """Write cohort.csv, rejects.csv and flow.json into a run directory.

        Args:
            run_dir: the run directory; made where missing.
        """
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        columns = ["image", "patient_id", "laterality", "view", "label", "patient_label", "fold", "partition"]
        columns += [name for name in OPTIONAL if name in self.table and name not in columns]
        self.table[columns].rename(columns={"image": "image_id"}).to_csv(run_dir / "cohort.csv", index=False)
        self.rejects.to_csv(run_dir / "rejects.csv", index=False)
        stages = [{"stage": stage, **counts} for stage, counts in self.flow.items()]
        (run_dir / "flow.json").write_text(json.dumps(stages, indent=2) + "\n", encoding="utf-8")


def open_cohort(
    manifest: str | Path | None = None,
    *,
    dataset_dir: str | Path | None = None,
    preprocessing: Compose,
    store_dir: str | Path,
    fold: int | None = 0,
    folds: int = 5,
    seed: int = 0,
    label_policy: str = "patient",
    phantom: Mapping[str, Any] | None = None,
    patients: int | None = None,
    allow_raw_ids: bool = False,
    allow_leaks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Cohort:
    """Open the cohort of one fold: read, prepare what is not prepared yet, split, check.

    Args:
        manifest: a manifest file; None for phantoms.
        dataset_dir: data root of the manifest, by default its folder. For phantoms the folder to build them in,
            unless ``phantom["dir"]`` names one.
        preprocessing: the chain that turns a file into a prepared image.
        store_dir: the image store.
        fold: which fold to use, 0 to folds - 1; None puts every patient into test (an external test).
        folds: number of test folds.
        seed: seed of the folds and of the subset.
        label_policy: "patient" or "breast", see ``Cohort.items``.
        phantom: settings of the phantom cohort (patients, seed, height, difficulty, ..., dir), used when ``manifest``
            is None. Built once, in a folder named by the settings.
        patients: take a subset of so many patients, stratified by class and, if fixed, partition. Drawn by the seed;
            a larger subset contains the smaller one, up to rounding.
        allow_raw_ids: accept ids that equal a DICOM PatientID.
        allow_leaks: open a cohort in which different patients of two partitions show the same or nearly the same
            picture; ``Cohort.leaks`` then says which, for the record of the run.
        workers: processes that prepare images; 0 is in this process, None one per core.
        progress: show a progress bar.

    Returns:
        The cohort. No patient or group stands in two partitions; each partition has both classes.

    Raises:
        CohortError: anything above cannot be had as asked; ManifestError lists every bad row, LeakError every leak.
    """
    _one_of("label_policy", label_policy, LABEL_POLICIES)
    listed, root = listed_images(
        manifest, dataset_dir=dataset_dir, phantom=phantom, allow_raw_ids=allow_raw_ids, progress=progress
    )
    digest = listed.attrs["digest"]
    flow = {"files in manifest": _counts(listed)}
    if patients is not None:
        listed = draw_patients(listed, patients, seed=seed)
        flow[f"subset of {patients} patients"] = _counts(listed)
    split = _split(listed, fold=fold, folds=folds, seed=seed)
    prepared, rejects = prepare_images(
        listed,
        dataset_dir=root,
        chain=preprocessing,
        store=ImageStore(Path(store_dir)),
        workers=workers,
        progress=progress,
        allow_raw_ids=allow_raw_ids,
    )
    refuse_none(prepared, rejects, root)
    rejects, lost = _name_lost_patients(listed, prepared, rejects)
    flow["prepared"] = _counts(prepared, _loss_note(rejects, lost))
    table = prepared.drop(columns="partition", errors="ignore").merge(split, on="patient_id", how="left")
    if label_policy == "breast":
        labelled = table[table["label"].notna()]
        flow["with a breast label"] = _counts(labelled, "images of training; validation and test score whole exams")
    for name in PARTITIONS:
        flow[name] = _counts(table[table["partition"] == name])
    where = "the manifest's column 'partition'" if "partition" in listed else f"fold {fold} after rejects"
    may_be_empty = fold is None or "partition" in listed
    check_classes(table.drop_duplicates("patient_id"), where, may_be_empty=may_be_empty)
    check_disjoint(table)
    _check_training_labels(table, label_policy)
    leaks = leaks_of_opened(table)
    if not allow_leaks:
        refuse_leaks(leaks)
    found = {"allowed": allow_leaks, "found": [leak.message for leak in leaks]}
    return Cohort(table, rejects, flow, digest, root, label_policy=label_policy, leaks=found)


def _split(manifest: pd.DataFrame, *, fold: int | None, folds: int, seed: int) -> pd.DataFrame:
    if fold is None:
        split = patient_table(manifest)[["patient_id"]].assign(fold=0, partition=PARTITIONS[2])
        return split
    split = patient_folds(manifest, folds=folds, seed=seed)
    there = sorted(split["fold"].unique())
    if fold not in there:
        source = "the manifest has a fixed split (column 'partition')" if "partition" in manifest else f"{folds} folds"
        raise CohortError(f"fold {fold} does not exist: {source}; allowed: {', '.join(map(str, there))}")
    return split[split["fold"] == fold]


def _name_lost_patients(
    listed: pd.DataFrame, prepared: pd.DataFrame, rejects: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    kept = set(prepared["patient_id"])
    lost = [name for name in listed["patient_id"].unique() if name not in kept]
    reason = "none of the patient's images could be prepared"
    rows = [{"image": "", "patient_id": name, "code": LOST, "reason": reason} for name in lost]
    if not rows:
        return rejects, lost
    return pd.concat([rejects, pd.DataFrame(rows, columns=list(REJECT_COLUMNS))], ignore_index=True), lost


def _loss_note(rejects: pd.DataFrame, lost: list[str]) -> str:
    codes = rejects.loc[rejects["code"] != LOST, "code"].value_counts()
    note = "; ".join(f"{count} rejected as {code}" for code, count in codes.items())
    if lost:
        more = f" and {len(lost) - SHOWN_PATIENTS} more" if len(lost) > SHOWN_PATIENTS else ""
        note += f"; lost patients: {', '.join(lost[:SHOWN_PATIENTS])}{more}"
    return note


def _counts(rows: pd.DataFrame, note: str = "") -> dict[str, Any]:
    people = rows.drop_duplicates("patient_id")
    malignant = int((people["patient_label"] == 1).sum())
    classes = f"patients: {malignant} malignant, {len(people) - malignant} benign or negative"
    return {"files": len(rows), "patients": len(people), "note": f"{classes}; {note}" if note else classes}


def _check_training_labels(table: pd.DataFrame, label_policy: str) -> None:
    training = table[table["partition"] == PARTITIONS[0]]
    if label_policy == "breast" and len(training) and training["label"].dropna().nunique() < 2:
        raise CohortError(
            "label_policy 'breast': the labelled training images are of one class only; take more patients, fill the "
            "column label, or set label_policy to 'patient'"
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise CohortError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
