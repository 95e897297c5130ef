"""Two runs on the same patients: AUCs clean and under each common attack, and calls that differ at their thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from pipeline.statistics.arrays import Flags, check_confidence
from pipeline.statistics.auc import auc_difference, auc_estimate
from pipeline.statistics.comparison import delong_difference, holm
from pipeline.statistics.estimate import Estimate, NotEstimable
from pipeline.statistics.flips import Flips, flips
from pipeline.statistics.robustness import CLEAN, clean_patients, ordered_attacks, rows_of_attack, text_or_none

SETTINGS = ("norm", "budget", "steps", "restarts")


@dataclass(frozen=True)
class CallChange:
    """Calls of two runs on the same patients, each at its own frozen threshold.

    Attributes:
        to_second: Changes from the first run's calls to the second's: ``newly_missed`` are malignant patients whom only
            the first run calls positive, ``newly_alarmed`` benign patients whom only the second calls positive.
        to_first: The same from the second run to the first: the other direction.
        p_malignant: Exact two-sided McNemar test of equal sensitivity, or None where no malignant call differs.
        p_benign: The same of equal specificity.
    """

    to_second: Flips
    to_first: Flips
    p_malignant: float | None
    p_benign: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**vars(self), "to_second": self.to_second.to_dict(), "to_first": self.to_first.to_dict()}


@dataclass(frozen=True)
class AttackComparison:
    """Two runs under one attack that both were scored under.

    Attributes:
        attack_id: Name of the attack, or "clean".
        norm: Norm of the budget, or None.
        budget: Budget, on images in [0, 1].
        patients: Patients compared.
        first: AUC of the first run.
        second: AUC of the second run.
        difference: AUC of the second less that of the first, with a paired patient bootstrap.
        delong: The same difference with DeLong's interval; its reason says why there is none.
        p_value: DeLong's two-sided p-value, or None.
        p_holm: That p-value adjusted for all attacks compared (Holm), or None.
        calls: Calls that differ at the frozen thresholds; None without thresholds.
    """

    attack_id: str
    norm: str | None
    budget: float
    patients: int
    first: Estimate
    second: Estimate
    difference: Estimate
    delong: Estimate
    p_value: float | None
    p_holm: float | None
    calls: CallChange | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        fields: dict[str, Any] = dict(vars(self))
        for name in ("first", "second", "difference", "delong"):
            fields[name] = fields[name].to_dict()
        fields["calls"] = None if self.calls is None else self.calls.to_dict()
        return fields


@dataclass(frozen=True)
class RunComparison:
    """Two runs under every common attack, and why the other attacks are not compared."""

    attacks: list[AttackComparison]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {"attacks": [attack.to_dict() for attack in self.attacks], "left_out": dict(self.left_out)}


def compare_runs(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    thresholds: tuple[float, float] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> RunComparison:
    """Compare two runs on the same patients, clean and under each attack that both were scored under.

    Args:
        first: What ``pool_patients`` returned for one run, one partition and fold.
        second: The same for the other run.
        thresholds: Logits frozen on validation, of the first and of the second run, or None for no calls.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        The comparison. An attack that one run lacks, or that the runs made with other settings or on other patients, is
        left out with the reason.

    Raises:
        ValueError: the runs were scored clean on other patients, other exams or with other labels.
    """
    check_confidence(confidence)
    _same_patients(clean_patients(first), clean_patients(second))
    mine, theirs = ordered_attacks(first), ordered_attacks(second)
    left_out = {name: "scored in the first run only" for name in mine if name not in theirs}
    left_out |= {name: "scored in the second run only" for name in theirs if name not in mine}
    found = []
    for attack_id in (name for name in mine if name in theirs):
        one, two = rows_of_attack(first, attack_id), rows_of_attack(second, attack_id)
        reason = None if attack_id == CLEAN else _differ(one, two)
        if reason:
            left_out[attack_id] = reason
            continue
        found.append(_compare(attack_id, one, two, thresholds, resamples=resamples, seed=seed, confidence=confidence))
    adjusted = holm([np.nan if entry.p_value is None else entry.p_value for entry in found])
    attacks = [
        entry if entry.p_value is None else AttackComparison(**{**vars(entry), "p_holm": float(p)})
        for entry, p in zip(found, adjusted, strict=True)
    ]
    return RunComparison(attacks, left_out)


def _compare(
    attack_id: str,
    one: pd.DataFrame,
    two: pd.DataFrame,
    thresholds: tuple[float, float] | None,
    *,
    resamples: int,
    seed: int,
    confidence: float,
) -> AttackComparison:
    labels = one["patient_label"].to_numpy()
    old, new = one["logit"].to_numpy(dtype=np.float64), two["logit"].to_numpy(dtype=np.float64)
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "confidence": confidence}
    difference = auc_difference(labels, new, old, **settings)
    counts, p_value = (difference.n_positive, difference.n_negative), None
    try:
        tested = delong_difference(labels, new, old, confidence=confidence)
        p_value = tested.p_value
        delong = Estimate(tested.difference, tested.low, tested.high, *counts, "delong", None, confidence)
    except NotEstimable as error:
        delong = Estimate(difference.value, None, None, *counts, "none", str(error), confidence)
    row = one.iloc[0]
    return AttackComparison(
        attack_id=attack_id,
        norm=text_or_none(row.get("norm")),
        budget=float(row.get("budget", 0.0)),
        patients=len(one),
        first=auc_estimate(labels, old, **settings),
        second=auc_estimate(labels, new, **settings),
        difference=difference,
        delong=delong,
        p_value=p_value,
        p_holm=None,
        calls=None if thresholds is None else _calls(labels, old, new, thresholds, confidence=confidence),
    )


def _calls(
    labels: np.ndarray, old: np.ndarray, new: np.ndarray, thresholds: tuple[float, float], *, confidence: float
) -> CallChange:
    # x - t >= 0 holds in floating point exactly where x >= t does, so that one threshold of 0 serves both runs.
    before, after, positive = old - thresholds[0], new - thresholds[1], labels == 1
    gained, lost = (before < 0) & (after >= 0), (before >= 0) & (after < 0)
    return CallChange(
        to_second=flips(labels, before, after, 0.0, confidence=confidence),
        to_first=flips(labels, after, before, 0.0, confidence=confidence),
        p_malignant=_mcnemar(gained & positive, lost & positive),
        p_benign=_mcnemar(gained & ~positive, lost & ~positive),
    )


def _mcnemar(gained: Flags, lost: Flags) -> float | None:
    more, total = int(gained.sum()), int(gained.sum() + lost.sum())
    return None if total == 0 else float(binomtest(more, total).pvalue)


def _same_patients(one: pd.DataFrame, two: pd.DataFrame) -> None:
    only = one.index.symmetric_difference(two.index)
    if len(only):
        where = "first" if only[0] in one.index else "second"
        raise ValueError(
            f"patient {only[0]} was scored in the {where} run only ({len(only)} such patients); compare runs that were "
            "scored on the same patients"
        )
    for column, what in (("patient_label", "label"), ("images", "number of images"), ("breasts", "number of breasts")):
        differs = one[column].to_numpy() != two[column].to_numpy()
        if differs.any():
            who = one.index[differs][0]
            raise ValueError(
                f"patient {who} has {what} {one.loc[who, column]} in the first run and {two.loc[who, column]} in the "
                f"second ({int(differs.sum())} such patients); compare runs that were scored on the same cohort"
            )


def _differ(one: pd.DataFrame, two: pd.DataFrame) -> str | None:
    """Why an attack of one name is not the same attack on the same patients, or None where it is."""
    for name in SETTINGS:
        mine, theirs = one.iloc[0].get(name), two.iloc[0].get(name)
        if not (mine == theirs or (pd.isna(mine) and pd.isna(theirs))):
            return f"the first run made it with {name} {mine}, the second with {theirs}"
    if not one.index.equals(two.index):
        return f"scored on {len(one)} patients of the first run and {len(two)} of the second, not the same ones"
    return None
