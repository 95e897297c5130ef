"""Subgroups: AUC by view set, density, age, vendor, lesion or scanner, and whether it differs by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from pipeline.statistics.arrays import check_confidence
from pipeline.statistics.auc import auc_estimate
from pipeline.statistics.comparison import holm
from pipeline.statistics.delong import delong_covariance
from pipeline.statistics.estimate import Estimate

MINIMUM_PER_CLASS = 10
"""Ours: fewer malignant or benign patients than this, and a group's AUC is not shown."""

UNKNOWN = "unknown"
"""Group of the patients for whom the fact is not recorded; shown, but no part of the test."""

AGES = (40, 50, 60, 70)
"""Years at which age groups begin, by decades as screening statistics have them."""


@dataclass(frozen=True)
class Group:
    """Patients who share a fact.

    Attributes:
        name: Value of the fact.
        patients: Patients in the group.
        auc: AUC of the group, or None with the reason; the numbers of malignant and benign patients are always given.
        suppressed: Whether the AUC is withheld because a class has too few patients.
        tested: Whether the group takes part in the interaction test.
    """

    name: str
    patients: int
    auc: Estimate
    suppressed: bool
    tested: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**vars(self), "auc": self.auc.to_dict()}


@dataclass(frozen=True)
class Subgroups:
    """Groups of one fact, and the test of "the AUC is the same in all of them".

    Attributes:
        variable: Name of the fact.
        groups: Groups by name, "unknown" last.
        statistic: Chi-square of the interaction test, or None.
        degrees: Its degrees of freedom, groups tested less one, or None.
        p_value: Its p-value, or None.
        p_holm: The p-value adjusted for all facts that were tested (Holm), or None.
        reason: Why there is no test, or which groups are no part of it; None otherwise.
    """

    variable: str
    groups: list[Group]
    statistic: float | None
    degrees: int | None
    p_value: float | None
    p_holm: float | None
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**vars(self), "groups": [group.to_dict() for group in self.groups]}


def patient_facts(images: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row of facts per patient from one row per image.

    A patient whose images differ gets all values in order, joined by " + ": of ``view`` this is the view set, such as
    "CC + MLO". The column ``age`` (years) becomes a group by decades, from the median over the patient's images.

    Args:
        images: One row per image with patient_id and the columns.
        columns: Facts to keep.

    Returns:
        Text, indexed by patient_id; "unknown" where no image has a value.

    Raises:
        ValueError: a column that the table lacks.
    """
    missing = [name for name in ("patient_id", *columns) if name not in images.columns]
    if missing:
        raise ValueError(
            f"the table of images lacks {', '.join(missing)}; it has {', '.join(map(str, images.columns))}"
        )
    groups = images.groupby("patient_id", sort=True)
    facts = pd.DataFrame(index=pd.Index(sorted(images["patient_id"].unique()), name="patient_id"))
    for name in columns:
        facts[name] = groups["age"].median().map(_age_group) if name == "age" else groups[name].agg(_joined)
    return facts


def subgroups(
    patients: pd.DataFrame,
    facts: pd.DataFrame,
    *,
    minimum: int = MINIMUM_PER_CLASS,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Subgroups]:
    """AUC in the groups of every fact, with an interaction test per fact and Holm over the facts.

    The groups of a fact share no patient, so that their AUCs are independent. With l_g = logit AUC_g and its DeLong
    variance v_g (delta method), the sum of (l_g - mean)^2 / v_g around the mean weighted by 1 / v_g is chi-square with
    groups - 1 degrees of freedom where the AUCs are equal (Cochran 1954, Biometrics 10:101). The logit keeps the level
    of the test in small groups. Suppressed and unknown groups, and groups with an AUC of exactly 0 or 1, whose DeLong
    variance is 0, are no part of the test.

    Args:
        patients: One row per patient with patient_id, patient_label and logit: one attack_id, partition and fold.
        facts: Facts by patient, indexed by patient_id, as ``patient_facts`` returns them; every column is a variable.
        minimum: Fewest patients of each class for which an AUC is shown, at least 2.
        resamples: Number of bootstrap resamples of each group.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        One entry per column of ``facts``, in that order.

    Raises:
        ValueError: a patient who stands twice, facts of other patients, or settings that are not allowed.
    """
    check_confidence(confidence)
    if minimum < 2:
        raise ValueError(f"minimum is {minimum}; allowed are 2 patients of each class or more")
    for name, ids in (("patients", patients["patient_id"]), ("facts", facts.index.to_series())):
        if ids.duplicated().any():
            raise ValueError(
                f"patient {ids[ids.duplicated()].iloc[0]} stands twice in {name}; pass one row per patient"
            )
    if len(patients) and not patients["patient_id"].isin(facts.index).any():
        raise ValueError(f"none of the {len(patients)} patients stands in facts; index facts by the same patient_id")
    of_patient = facts.reindex(patients["patient_id"]).astype(object)
    found = []
    for variable in facts.columns:
        values = of_patient[variable]
        names = np.where(values.isna() | (values == ""), UNKNOWN, values.astype(str))
        groups, logits, variances = [], [], []
        for name in sorted(set(names), key=lambda name: (name == UNKNOWN, name)):
            rows = patients[names == name]
            group = _group(name, rows, minimum=minimum, resamples=resamples, seed=seed, confidence=confidence)
            groups.append(group)
            if group.tested:
                value, covariance = delong_covariance(rows["patient_label"], rows["logit"].to_numpy(np.float64)[None])
                logits.append(float(np.log(value[0] / (1.0 - value[0]))))
                variances.append(float(covariance[0, 0] / (value[0] * (1.0 - value[0])) ** 2))
        found.append(_tested(str(variable), groups, np.array(logits), np.array(variances)))
    adjusted = holm([np.nan if entry.p_value is None else entry.p_value for entry in found])
    return [
        entry if entry.p_value is None else Subgroups(**{**vars(entry), "p_holm": float(p)})
        for entry, p in zip(found, adjusted, strict=True)
    ]


def _group(name: str, rows: pd.DataFrame, *, minimum: int, resamples: int, seed: int, confidence: float) -> Group:
    labels = rows["patient_label"].to_numpy()
    n_positive, n_negative = int((labels == 1).sum()), int((labels == 0).sum())
    if min(n_positive, n_negative) < minimum:
        reason = (
            f"suppressed: an AUC needs {minimum} patients of each class; "
            f"there are {n_positive} malignant and {n_negative} benign"
        )
        withheld = Estimate(None, None, None, n_positive, n_negative, "none", reason, confidence)
        return Group(name, len(rows), withheld, suppressed=True, tested=False)
    scores = rows["logit"].to_numpy(np.float64)
    estimate = auc_estimate(labels, scores, resamples=resamples, seed=seed, confidence=confidence)
    flat = estimate.value in (None, 0.0, 1.0) or np.unique(scores).size == 1
    return Group(name, len(rows), estimate, suppressed=False, tested=name != UNKNOWN and not flat)


def _tested(variable: str, groups: list[Group], logits: np.ndarray, variances: np.ndarray) -> Subgroups:
    out = [group.name for group in groups if not group.tested]
    reason = f"no part of the test: {', '.join(out)}" if out else None
    if len(logits) < 2:
        reason = f"an interaction test needs two groups of sufficient size; there are {len(logits)}"
        return Subgroups(variable, groups, None, None, None, None, reason)
    weights = 1.0 / variances
    statistic = float((weights * (logits - np.average(logits, weights=weights)) ** 2).sum())
    degrees = len(logits) - 1
    return Subgroups(variable, groups, statistic, degrees, float(chi2.sf(statistic, degrees)), None, reason)


def _joined(values: pd.Series) -> str:
    names = sorted({str(value) for value in values.dropna()} - {""})
    return " + ".join(names) or UNKNOWN


def _age_group(years: float) -> str:
    if np.isnan(years):
        return UNKNOWN
    for start, end in zip(AGES, AGES[1:], strict=False):
        if start <= years < end:
            return f"{start} to {end - 1}"
    return f"below {AGES[0]}" if years < AGES[0] else f"from {AGES[-1]}"
