"""AUC of images and of breasts, several of which belong to one patient: the patient is resampled with all its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pipeline.statistics.arrays import Floats, check_confidence, check_scores, require_both_classes
from pipeline.statistics.auc import MINIMUM_PER_CLASS, auc_estimate
from pipeline.statistics.bootstrap import pairs_in_order, percentile_interval, places, plain_draws, stratified_draws
from pipeline.statistics.estimate import Estimate


@dataclass(frozen=True)
class ClusteredAuc:
    """AUC over rows (images or breasts) with the interval that knows their patients, beside the one that does not.

    Attributes:
        estimate: AUC with the interval of the clustered bootstrap; its numbers are patients with a malignant row, and
            patients without one.
        naive_delong: The same AUC with DeLong's interval as if every row were a patient of its own; its numbers are
            rows. It is too narrow: shown for comparison with papers that report it.
        rows_positive: Malignant rows.
        rows_negative: Benign rows.
        patients: Patients.
    """

    estimate: Estimate
    naive_delong: Estimate
    rows_positive: int
    rows_negative: int
    patients: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**vars(self), "estimate": self.estimate.to_dict(), "naive_delong": self.naive_delong.to_dict()}


def clustered_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> ClusteredAuc:
    """AUC of rows that are grouped in patients, with percentiles of a patient bootstrap.

    Four views of a patient are no four patients: at 200 patients with four views each and a correlation of 0.7 within a
    patient, DeLong's interval over images covers about 74% instead of 95% (on such data: Obuchowski 1997,
    Biometrics 53:567). At an AUC of exactly 1 or 0 the bound of ``auc_estimate`` is used, over pairs
    without a common patient.

    Args:
        labels: (N,) of 0 and 1, one per row; the rows of a patient may differ, such as a healthy second breast.
        scores: (N,) finite numbers, one per row.
        patients: (N,) the patient of each row, names or numbers.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Raises:
        ValueError: labels, scores, patients or settings that are not allowed.
    """
    check_confidence(confidence)
    positive, numbers = check_scores(labels, scores)
    codes, sick = _patients(positive, patients)
    n_sick, n_well = int(sick.sum()), int((~sick).sum())
    n_benign = int(np.unique(codes[~positive]).size)
    naive = auc_estimate(positive, numbers, interval="delong", confidence=confidence)
    smaller = min(n_sick, n_benign, len(sick) // 2)
    value, method, reason = naive.value, "none", naive.reason
    bounds: tuple[float | None, float | None] = (None, None)
    if value is not None and smaller < MINIMUM_PER_CLASS:
        reason = (
            f"an interval needs {2 * MINIMUM_PER_CLASS} patients, {MINIMUM_PER_CLASS} with malignant and "
            f"{MINIMUM_PER_CLASS} with benign rows; there are {len(sick)}, {n_sick} and {n_benign}"
        )
    elif value in (0.0, 1.0):
        bound = ((1.0 - confidence) / 2.0) ** (1.0 / smaller)
        bounds, method, reason = ((bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)), "disjoint pairs", None
    elif value is not None:
        drawn = clustered_bootstrap_auc(positive, numbers[None], patients, resamples=resamples, seed=seed)[0]
        bounds = percentile_interval(drawn[np.isfinite(drawn)], confidence=confidence)
        method, reason = "clustered bootstrap", None
    estimate = Estimate(value, *bounds, n_sick, n_well, method, reason, confidence)
    return ClusteredAuc(estimate, naive, int(positive.sum()), int((~positive).sum()), len(sick))


def clustered_bootstrap_auc(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> Floats:
    """AUC of every resample of patients, each with all its rows, for several scores of the same rows.

    Patients with a malignant row and patients without one are resampled apart (all together where fewer than two have
    none). With c the number of times that a row's patient is drawn, the AUC is the weighted share of pairs in order, as
    in ``bootstrap_auc``.

    Args:
        labels: (N,) of 0 and 1, both present.
        scores: (A, N): A scores of each row, for example one per attack.
        patients: (N,) the patient of each row.
        resamples: Number of resamples, at least 1.
        seed: Seed; the resamples are the same for all A scores.

    Returns:
        (A, resamples) AUCs in [0, 1]; NaN where a resample lacks a class, which can happen only where fewer than two
        patients have no malignant row.

    Raises:
        NotEstimable: only one class is present.
        ValueError: arguments that are not allowed.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; allowed are 1 or more")
    positive, numbers = check_scores(labels, scores)
    if numbers.ndim != 2:
        raise ValueError(f"scores have shape {numbers.shape}; allowed is (attacks, rows)")
    require_both_classes(positive, what="a bootstrap of the AUC")
    codes, sick = _patients(positive, patients)
    at = [places(row[positive], row[~positive]) for row in numbers]
    n_sick, n_well = int(sick.sum()), int((~sick).sum())
    column = np.empty(len(sick), dtype=np.intp)
    column[np.flatnonzero(sick)], column[np.flatnonzero(~sick)] = np.arange(n_sick), n_sick + np.arange(n_well)
    of_row = column[codes]
    if n_well >= MINIMUM_PER_CLASS:
        parts = stratified_draws(n_sick, n_well, resamples=resamples, seed=seed)
        blocks = ((rows, np.concatenate([ones, others], axis=1)) for rows, ones, others in parts)
    else:
        blocks = (block for block in plain_draws(len(sick), resamples=resamples, seed=seed))
    result = np.empty((len(numbers), resamples))
    for rows, drawn in blocks:
        malignant, benign = drawn[:, of_row[positive]], drawn[:, of_row[~positive]]
        pairs = malignant.sum(axis=1, dtype=np.float64) * benign.sum(axis=1, dtype=np.float64)
        for index, place in enumerate(at):
            hits = pairs_in_order(place, malignant, benign)
            result[index, rows] = np.divide(hits, pairs, out=np.full_like(hits, np.nan), where=pairs > 0)
    return result


def pool_breasts(scores: pd.DataFrame, *, within_breast: str = "mean") -> pd.DataFrame:
    """Pool image logits into one logit per breast and attack, for a breast-level AUC.

    Args:
        scores: Rows of scores.csv with patient_id, laterality, attack_id, logit and label (the breast's: 0, 1, or NaN
            where unknown); study_id, partition and fold are kept apart where present.
        within_breast: "mean" or "max" over the images of one breast.

    Returns:
        One row per breast whose label is known, with label, logit and the number of ``images``.

    Raises:
        ValueError: a missing column, a pooling that is not allowed, or a breast with two labels.
    """
    needed = ("patient_id", "laterality", "attack_id", "logit", "label")
    missing = [name for name in needed if name not in scores.columns]
    if missing:
        raise ValueError(
            f"the table of scores lacks {', '.join(missing)}; a breast-level AUC needs {', '.join(needed)}"
        )
    if within_breast not in ("mean", "max"):
        raise ValueError(f"within_breast is {within_breast!r}; allowed are 'mean' and 'max'")
    keys = [
        name for name in ("partition", "fold", "patient_id", "study_id", "laterality", "attack_id") if name in scores
    ]
    known = scores[scores["label"].notna()]
    groups = known.groupby(keys, sort=True, observed=True, dropna=False)
    labels = groups["label"]
    twice = labels.nunique() > 1
    if twice.any():
        who = twice.index.get_level_values("patient_id")[twice][0]
        raise ValueError(f"a breast of patient {who} has two labels; allowed is one per breast and examination")
    table = groups.agg(label=("label", "first"), logit=("logit", within_breast), images=("logit", "size"))
    return table.reset_index().astype({"label": "int64", "logit": "float64", "images": "int64"})


def _patients(positive: np.ndarray, patients: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Code of each row's patient (N,), and whether each patient has a malignant row (P,)."""
    codes, names = pd.factorize(np.asarray(patients), sort=True)
    if codes.shape != positive.shape or (codes < 0).any():
        raise ValueError(f"{codes.size} patients, {int((codes < 0).sum())} of them empty, meet {positive.size} rows")
    return codes, np.bincount(codes[positive], minlength=len(names)) > 0
