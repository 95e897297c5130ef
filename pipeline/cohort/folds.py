"""Who trains, validates and tests: partitions by patient, stratified by class, never splitting a group."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.cohort.errors import CohortError
from pipeline.cohort.schema import PARTITIONS

FEWEST = 3  # folds: with two, four patients of each class are needed, with three, three
VALIDATION_SHARE = 0.10  # of all patients, as in the paper (70 / 10 / 20 % with five folds)


def patient_table(manifest: pd.DataFrame) -> pd.DataFrame:
    """Reduce a manifest to one row per patient, sorted by patient_id.

    Args:
        manifest: one row per image with patient_id, patient_label and, if given, group_id and partition.

    Returns:
        patient_id (str), group_id (str), patient_label (int) and, if given, partition.
    """
    table = manifest.assign(group_id=manifest["group_id"] if "group_id" in manifest else manifest["patient_id"])
    columns = ["patient_id", "group_id", "patient_label"] + (["partition"] if "partition" in table else [])
    patients = table[columns].drop_duplicates().sort_values("patient_id", kind="stable").reset_index(drop=True)
    if patients["patient_id"].duplicated().any():
        twice = patients.loc[patients["patient_id"].duplicated(), "patient_id"].unique()
        raise CohortError(
            f"{len(twice)} patients have two values of patient_label, group_id or partition (such as {twice[0]!r}); "
            "read the manifest with read_manifest, which lists them"
        )
    return patients


def patient_folds(manifest: pd.DataFrame, folds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Assign every patient to training, validation or test, once per fold.

    Every patient is tested in exactly one fold. Of each fold 1/folds of the patients test, about 10 % of all patients
    validate and the rest trains: 70 / 10 / 20 with five folds (Sec. 3.1 of the paper states the shares and not how
    they were drawn). Both cuts are stratified by patient_label and keep every group_id whole. Where a class has few
    patients the validation share grows, so that it holds both classes. The result depends on the set of patients and
    the seed, not on the order of rows. A ``partition`` column, a fixed split, replaces all of this by one fold 0.

    Args:
        manifest: as read by ``read_manifest``, one row per image.
        folds: number of test folds, at least 2.
        seed: seed of both cuts.

    Returns:
        One row per (patient, fold): patient_id (str), fold (int), partition (training, validation or test).

    Raises:
        CohortError: fewer patients (or groups, or patients of a class) than folds, or one class only in a partition.
    """
    patients = patient_table(manifest)
    if "partition" in patients:
        fixed = patients.assign(fold=0)
        check_classes(fixed, "the manifest's column 'partition'")
        return fixed[["patient_id", "fold", "partition"]]
    _check_size(patients, folds)
    labels, groups = patients["patient_label"].to_numpy(), patients["group_id"].to_numpy()
    everyone = np.arange(len(patients))
    parts = []
    for fold, (rest, test) in enumerate(_cut(labels, groups, pieces=folds, seed=_seed(seed))):
        partition = np.full(len(patients), PARTITIONS[0], dtype=object)
        partition[test] = PARTITIONS[2]
        pieces = _validation_pieces(patients.iloc[rest], folds)
        _, validation = _cut(labels[rest], groups[rest], pieces=pieces, seed=_seed(seed, fold))[0]
        partition[everyone[rest][validation]] = PARTITIONS[1]
        part = patients.assign(fold=fold, partition=partition)
        check_classes(part, f"fold {fold} of {folds}", may_be_empty=False)
        parts.append(part[["patient_id", "fold", "partition"]])
    return pd.concat(parts, ignore_index=True).astype({"partition": "str"})


def check_classes(patients: pd.DataFrame, where: str, *, may_be_empty: bool = True) -> None:
    """Refuse a split with a partition that holds patients of one class only.

    Args:
        patients: one row per patient with patient_label and partition.
        where: name of the split for the message.
        may_be_empty: let a partition without any patient pass: an external test has no training patients.

    Raises:
        CohortError: names the partitions, with counts.
    """
    poor = []
    for name in PARTITIONS:
        labels = patients.loc[patients["partition"] == name, "patient_label"]
        if labels.nunique() < 2 and not (labels.empty and may_be_empty):
            poor.append(f"{name} has {int((labels == 1).sum())} malignant and {int((labels == 0).sum())} benign")
    if poor:
        raise CohortError(
            f"one class only in a partition of {where}: {'; '.join(poor)}. Every partition needs patients of both "
            "classes: take more patients, fewer folds, smaller groups, or fix the column 'partition'"
        )


def check_disjoint(table: pd.DataFrame) -> None:
    """Refuse a table in which a patient or a group stands in two partitions.

    Raises:
        CohortError: names the first of them, with the count.
    """
    for column in ("patient_id", "group_id"):
        counts = table.groupby(column)["partition"].nunique()
        torn = counts.index[counts > 1]
        if len(torn):
            raise CohortError(
                f"{len(torn)} values of {column} stand in two partitions (first: {torn[0]!r}); a patient and its group "
                "must stay together, or test figures are those of training images. Fix group_id or partition"
            )


def _check_size(patients: pd.DataFrame, folds: int) -> None:
    if folds < 2:
        raise CohortError(f"folds is {folds}, it must be 2 or more; for one fixed split use the column 'partition'")
    if len(patients) < folds:
        raise CohortError(f"{len(patients)} patients are fewer than {folds} folds; {_remedy(patients)}")
    groups = patients["group_id"].nunique()
    if groups < folds:
        raise CohortError(f"{groups} groups are fewer than {folds} folds; {_remedy(patients)}, or make groups smaller")
    counts = patients["patient_label"].value_counts()
    for label, name in ((1, "malignant"), (0, "benign or negative")):
        count = int(counts.get(label, 0))
        if count < folds or count - math.ceil(count / folds) < 2:  # one for each test, two for the rest
            raise CohortError(
                f"{count} of {len(patients)} patients are {name} (patient_label {label}), too few for {folds} folds: "
                f"one class only would be in a partition. At least {max(folds, 4 if folds == 2 else 3)} of each class "
                f"are needed; {_remedy(patients)}"
            )


def _remedy(patients: pd.DataFrame) -> str:
    """What to do about too few patients: the largest number of folds that they allow, and the options that set it."""
    classes = patients["patient_label"].value_counts()
    most = min(int(classes.get(0, 0)), int(classes.get(1, 0)), patients["group_id"].nunique())
    if most < FEWEST:
        return (
            f"take more patients: {FEWEST} folds, the fewest that can be recommended, need {FEWEST} of each class; or "
            "fix the split in the column 'partition'"
        )
    return f"take more patients, or set folds to {most}: --cohort#folds {most} in the bundle, --folds {most} in audit"


def _validation_pieces(rest: pd.DataFrame, folds: int) -> int:
    """In how many pieces to cut the rest so that one of them is about 10 % of all patients and holds both classes."""
    wanted = round((1 - 1 / folds) / VALIDATION_SHARE)
    fewest = int(rest.groupby("patient_label")["group_id"].nunique().min())
    return max(2, min(wanted, fewest))


def _cut(labels: np.ndarray, groups: np.ndarray, *, pieces: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(np.unique(groups)) < pieces:
        raise CohortError(f"all patients besides those of a test fold are in one group; {pieces} groups are needed")
    cutter = StratifiedGroupKFold(n_splits=pieces, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # scikit-learn warns of small classes; check_classes raises where that matters
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(cutter.split(np.zeros(len(labels)), labels, groups))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
