"""Two methods on the same patients and folds: the difference of their AUCs and every test of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from pipeline.statistics import (
    NotEstimable,
    auc,
    corrected_t,
    delong_difference,
    mann_whitney,
    pooled_auc_difference,
)

FIGURES = (
    "difference", "lower", "upper", "delong_p", "fold_difference", "t_lower", "t_upper", "t_p", "mann_whitney_u",
    "mann_whitney_p", "mann_whitney_least_p",
)  # fmt: skip


def compare(
    one: pd.DataFrame, two: pd.DataFrame, *, test_share: float, resamples: int, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Compare the scores of two methods under one attack, on the patients that both scored.

    Args:
        one: fold, patient_id, patient_label, logit of the first method, finite, a row per patient and fold.
        two: Those of the second.
        test_share: n_test / n_train, for the corrected t-test.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        ``FIGURES`` (NaN where not estimable) with the numbers of folds and patients behind them, and remarks.
    """
    figures: dict[str, Any] = {"folds": 0, "patients": 0, **dict.fromkeys(FIGURES, math.nan)}
    both = one.merge(two[["fold", "patient_id", "logit"]], on=["fold", "patient_id"], suffixes=("", "_of_two"))
    notes = _not_shared(one, two, both)
    labels, folds = both["patient_label"].to_numpy(), both["fold"].to_numpy()
    first, second = (both[name].to_numpy(dtype=np.float64) for name in ("logit", "logit_of_two"))
    values, used = [], []
    for fold in np.unique(folds):
        at = folds == fold
        try:
            values.append((auc(labels[at], first[at]), auc(labels[at], second[at])))
            used.append(fold)
        except NotEstimable as error:
            notes.append(f"fold {fold} left out: {error}")
    if not used:
        return figures, [*notes, "no fold that both have can be compared"]
    keep = np.isin(folds, used)
    labels, folds, first, second = labels[keep], folds[keep], first[keep], second[keep]
    figures |= {"folds": len(used), "patients": len(labels)}
    estimate = pooled_auc_difference(labels, first, second, folds=folds, resamples=resamples, seed=seed)
    for name, number in (("difference", estimate.value), ("lower", estimate.lower), ("upper", estimate.upper)):
        figures[name] = math.nan if number is None else number
    notes += [f"interval: {estimate.reason}"] if estimate.reason else []
    try:
        figures["delong_p"] = delong_difference(labels, first, second, folds=folds).p_value
    except NotEstimable as error:
        notes.append(f"DeLong: {error}")
    of_first, of_second = np.array(values).T
    figures["fold_difference"] = float((of_first - of_second).mean())
    try:
        test = corrected_t(of_first, of_second, test_share=test_share)
        figures |= {"t_lower": test.low, "t_upper": test.high, "t_p": test.p_value}
    except NotEstimable as error:
        notes.append(f"corrected t: {error}")
    ranks = mann_whitney(of_first, of_second)
    figures |= {"mann_whitney_u": ranks.statistic, "mann_whitney_p": ranks.p_value}
    return figures | {"mann_whitney_least_p": ranks.smallest_p_value}, notes


def _not_shared(one: pd.DataFrame, two: pd.DataFrame, both: pd.DataFrame) -> list[str]:
    """What only one of the two has, and patients who count more than once."""
    notes = []
    single = sorted(set(one["fold"]) ^ set(two["fold"]))
    if single:
        notes.append(f"folds of one method only: {', '.join(str(fold) for fold in single)}")
    common = set(both["fold"])
    lost = sum(int(table["fold"].isin(common).sum()) for table in (one, two)) - 2 * len(both)
    if lost:
        notes.append(f"{lost} patients scored by one method only are left out")
    repeated = len(both) - both["patient_id"].nunique()
    if repeated:
        notes.append(f"{repeated} patients are tested in several folds: intervals and DeLong's p are too narrow")
    return notes
