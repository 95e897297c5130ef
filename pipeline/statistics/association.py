"""Does a fact that is no finding tell the classes apart: AUC and test of a number or of a category."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu
from scipy.stats.contingency import crosstab

from pipeline.statistics.arrays import Flags, Floats, check_scores, require_both_classes
from pipeline.statistics.auc import MINIMUM_PER_CLASS, auc_estimate
from pipeline.statistics.comparison import pooled_auc
from pipeline.statistics.estimate import Estimate

FOLDS = 5
PERMUTATIONS = 9999
"""The least p-value is 1e-4, so that one strong category stays below 0.05 among 500 questions (Holm)."""


@dataclass(frozen=True)
class Association:
    """How far a fact tells malignant from benign patients.

    Attributes:
        kind: "number" or "category".
        values: number of different values.
        auc: AUC with its interval; of a category, the AUC of its out-of-fold share of malignant patients.
        p_value: two-sided, of "the fact has one distribution in both classes".
        cramers_v: bias-corrected Cramér's V in [0, 1] of a category, None for a number.
    """

    kind: str
    values: int
    auc: Estimate
    p_value: float
    cramers_v: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def number_association(labels: ArrayLike, numbers: ArrayLike) -> Association:
    """AUC of a number with DeLong's interval, and the Mann-Whitney test of it.

    The test is the normal approximation with the variance under the null hypothesis, corrected for ties and continuity:
    exact tails of 1,000 patients take minutes and change nothing.

    Args:
        labels: (N,) of 0 and 1, both present.
        numbers: (N,) finite numbers, one per patient.

    Raises:
        NotEstimable: one class only.
        ValueError: labels or numbers that are not allowed.
    """
    positive, values = check_scores(labels, numbers)
    require_both_classes(positive, what="an association")
    different = int(np.unique(values).size)
    p_value = 1.0
    if different > 1:
        p_value = float(mannwhitneyu(values[positive], values[~positive], method="asymptotic").pvalue)
    constant = different == 1 or min(positive.sum(), (~positive).sum()) < MINIMUM_PER_CLASS
    estimate = auc_estimate(positive, values, interval="bootstrap", resamples=0) if constant else None
    return Association(
        "number", different, estimate or auc_estimate(positive, values, interval="delong"), p_value, None
    )


def category_association(
    labels: ArrayLike, categories: ArrayLike, *, permutations: int = PERMUTATIONS, resamples: int = 1000, seed: int = 0
) -> Association:
    """Chi-square test of a category by permutation, Cramér's V, and the AUC of out-of-fold shares.

    The p-value is that of Pearson's chi-square under random assignment of the labels, (1 + hits) / (1 + permutations):
    right for sparse categories too. V is Bergsma's bias-corrected one (2013, Journal of the Korean Statistical Society
    42:323). For the AUC each patient gets the share of malignant patients of its category among the *other* folds
    (smoothed by one patient of the overall share), and only patients of one fold are compared: shares of the patient's
    own fold would find a signal in noise.

    Args:
        labels: (N,) of 0 and 1, both present.
        categories: (N,) names.
        permutations: number of permutations, at least 1.
        resamples: bootstrap resamples of the AUC's interval.
        seed: seed of folds, permutations and resamples.

    Raises:
        NotEstimable: one class only.
        ValueError: labels that are not allowed.
    """
    codes, names = pd.factorize(np.asarray(categories, dtype=str), sort=True)
    positive, _ = check_scores(labels, codes.astype(np.float64))
    require_both_classes(positive, what="an association")
    rng = np.random.default_rng(seed)
    sizes = np.bincount(codes, minlength=len(names))
    hits = np.bincount(codes[positive], minlength=len(names))
    n_positive = int(positive.sum())
    p_value, strength = 1.0, 0.0
    if len(names) > 1:
        observed = _chi_square(hits, sizes, n_positive)
        drawn = rng.multivariate_hypergeometric(sizes, n_positive, size=permutations, method="marginals")
        as_far = int((_chi_square(drawn, sizes, n_positive) >= observed * (1 - 1e-9)).sum())
        p_value = (1 + as_far) / (1 + permutations)
        strength = _bergsma_v(float(observed), len(positive), len(names))
    estimate = _out_of_fold_auc(positive, codes, rng=rng, resamples=resamples, seed=seed)
    return Association("category", len(names), estimate, p_value, strength)


def category_counts(labels: ArrayLike, categories: ArrayLike) -> dict[str, tuple[int, int]]:
    """Malignant and benign patients of each category, in the order of the names."""
    table = crosstab(np.asarray(categories, dtype=str), np.asarray(labels).astype(int), levels=(None, [0, 1]))
    (names, _), counts = table.elements, table.count
    return {str(name): (int(row[1]), int(row[0])) for name, row in zip(names, counts, strict=True)}


def _chi_square(hits: np.ndarray, sizes: np.ndarray, n_positive: int) -> np.ndarray:
    """Pearson's chi-square of a 2 x K table (..., K) with fixed margins."""
    share = n_positive / sizes.sum()
    return ((hits - sizes * share) ** 2 / (sizes * share * (1 - share))).sum(axis=-1)


def _bergsma_v(chi_square: float, patients: int, categories: int) -> float:
    if patients < 3:
        return 0.0
    phi = max(0.0, chi_square / patients - (categories - 1) / (patients - 1))
    columns = categories - (categories - 1) ** 2 / (patients - 1)
    rows = 2 - 1 / (patients - 1)
    room = min(columns, rows) - 1
    return float(min(1.0, np.sqrt(phi / room))) if room > 0 else 0.0


def _out_of_fold_auc(
    positive: Flags, codes: np.ndarray, *, rng: np.random.Generator, resamples: int, seed: int
) -> Estimate:
    smaller = int(min(positive.sum(), (~positive).sum()))
    folds = min(FOLDS, smaller // MINIMUM_PER_CLASS)
    if folds < 2:
        reason = f"out-of-fold shares need {2 * MINIMUM_PER_CLASS} patients of each class; one class has {smaller}"
        return Estimate(None, None, None, int(positive.sum()), int((~positive).sum()), "none", reason)
    fold = np.empty(positive.size, dtype=int)
    for of_class in (positive, ~positive):
        fold[of_class] = rng.permutation(np.arange(int(of_class.sum())) % folds)
    shares: Floats = np.empty(positive.size)
    for held in range(folds):
        rest, out = fold != held, fold == held
        overall = positive[rest].mean()
        size = np.bincount(codes[rest], minlength=codes.max() + 1)
        hits = np.bincount(codes[rest & positive], minlength=codes.max() + 1)
        shares[out] = ((hits + overall) / (size + 1))[codes[out]]
    return pooled_auc(positive, shares, folds=fold, resamples=resamples, seed=seed)
