"""Calibration: whether patients given a risk of 30% turn out to be malignant in 30% of cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from pipeline.statistics.arrays import Flags, Floats, check_confidence, check_scores
from pipeline.statistics.bootstrap import percentile_interval, plain_draws
from pipeline.statistics.estimate import Estimate, Proportion
from pipeline.statistics.logistic import fit_logistic
from pipeline.statistics.operating_points import proportion

MINIMUM_PER_CLASS = 10
"""Ours. Fewer patients of a class say nothing of calibration; a trustworthy curve needs 200 of each (Van Calster et al.
2016, Journal of Clinical Epidemiology 74:167)."""

MINIMUM_PER_BIN = 10
"""Ours: a bin of the curve holds at least about so many patients, else there are fewer bins."""

LEAST_ESTIMABLE = 0.95
"""An interval is given where the figure exists in at least this share of the resamples."""

FIGURES = ("intercept", "slope", "in_the_large", "brier", "scaled_brier", "ece")


@dataclass(frozen=True)
class CalibrationBin:
    """Patients of similar predicted risk: the mean of the predictions and the share that is malignant."""

    predicted: float
    observed: Proportion

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {"predicted": self.predicted, "observed": self.observed.to_dict()}


@dataclass(frozen=True)
class Calibration:
    """Agreement of predicted risks with outcomes.

    Attributes:
        curve: Bins of equal numbers of patients, by rising risk, with Wilson intervals.
        intercept: a of the logistic regression logit P = a + b z on the predicted logit z; 0 is right.
        slope: b of it; 1 is right, below 1 the risks are too extreme.
        in_the_large: Intercept with the slope fixed at 1; above 0 the risks are too low on the whole.
        brier: Mean squared difference of risk and outcome; 0 is best.
        scaled_brier: 1 - brier / (p (1 - p)) with p the share of malignant patients; 1 is best, 0 is no better than p.
        ece: Expected calibration error over the bins: mean of |observed - predicted| weighted by patients.
    """

    curve: list[CalibrationBin]
    intercept: Estimate
    slope: Estimate
    in_the_large: Estimate
    brier: Estimate
    scaled_brier: Estimate
    ece: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "curve": [part.to_dict() for part in self.curve],
            **{name: getattr(self, name).to_dict() for name in FIGURES},
        }


def calibration(
    labels: ArrayLike,
    logits: ArrayLike,
    *,
    bins: int = 10,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Calibration:
    """Calibration of the risks sigmoid(z), with percentiles of a plain patient bootstrap.

    The resamples are not stratified: calibration depends on how many patients are malignant, which is itself a matter
    of chance. The bins of the calibration error are those of the data in every resample. The error is at least 0 and
    its mean over samples lies above the truth, the more so the fewer patients; its interval inherits that.

    Args:
        labels: (N,) of 0 and 1, one per patient.
        logits: (N,) finite predicted logits z, one per patient.
        bins: Most bins of the curve; fewer where a bin would hold under 10 patients or equal risks would be torn apart.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The calibration; each figure None with a reason under 10 patients of a class, and intercept and slope also
        where the logits of the classes do not overlap (the regression has no finite fit).

    Raises:
        ValueError: labels, logits or settings that are not allowed.
    """
    check_confidence(confidence)
    if bins < 1 or resamples < 1:
        raise ValueError(f"bins is {bins} and resamples is {resamples}; allowed are 1 or more")
    positive, z = check_scores(labels, logits)
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < MINIMUM_PER_CLASS:
        reason = (
            f"calibration needs at least {MINIMUM_PER_CLASS} patients of each class; "
            f"there are {counts[0]} malignant and {counts[1]} benign"
        )
        return Calibration([], *[Estimate(None, None, None, *counts, "none", reason, confidence) for _ in FIGURES])
    code = equal_mass_bins(expit(z), bins=min(bins, max(1, len(z) // MINIMUM_PER_BIN)))
    values = _figures(positive, z, code, np.ones((1, len(z)), dtype=np.int32), None)[:, 0]
    drawn = np.empty((len(FIGURES), resamples))
    for rows, weights in plain_draws(len(z), resamples=resamples, seed=seed):
        drawn[:, rows] = _figures(positive, z, code, weights, values)
    estimates = [
        bootstrap_estimate(float(value), row, counts, missing=NO_FIT, confidence=confidence)
        for value, row in zip(values, drawn, strict=True)
    ]
    return Calibration(_curve(positive, expit(z), code, confidence), *estimates)


NO_FIT = "the logits of malignant and benign patients do not overlap, so that a logistic regression has no finite fit"


def bootstrap_estimate(
    value: float, drawn: Floats, counts: tuple[int, int], *, missing: str, confidence: float
) -> Estimate:
    """Estimate from a value and its resamples, either of which may be NaN where the figure does not exist."""
    if not np.isfinite(value):
        return Estimate(None, None, None, *counts, "none", missing, confidence)
    found = drawn[np.isfinite(drawn)]
    if found.size < LEAST_ESTIMABLE * drawn.size:
        reason = f"only {found.size} of {drawn.size} resamples have the figure; an interval needs more patients"
        return Estimate(value, None, None, *counts, "none", reason, confidence)
    return Estimate(value, *percentile_interval(found, confidence=confidence), *counts, "bootstrap", None, confidence)


def equal_mass_bins(probabilities: Floats, *, bins: int) -> NDArray[np.intp]:
    """Bin of each patient, cut at quantiles of the predicted risk; equal risks share a bin, so that bins may be empty.

    The cuts are those of scikit-learn's ``calibration_curve(strategy="quantile")``.
    """
    edges = np.quantile(probabilities, np.linspace(0.0, 1.0, bins + 1))
    return np.searchsorted(edges[1:-1], probabilities)


def _curve(positive: Flags, probabilities: Floats, code: NDArray[np.intp], confidence: float) -> list[CalibrationBin]:
    found = []
    for number in np.unique(code):
        at = code == number
        observed = proportion(int(positive[at].sum()), int(at.sum()), nobody="", confidence=confidence)
        found.append(CalibrationBin(float(probabilities[at].mean()), observed))
    return found


def _figures(positive: Flags, z: Floats, code: NDArray[np.intp], weights: np.ndarray, start: Floats | None) -> Floats:
    """``FIGURES`` for each row of weights, (6, R); ``start`` holds those of the data, from which the fits start."""
    risk, total = np.asarray(expit(z)), weights.sum(axis=1, dtype=np.float64)
    both, level = (None, None) if start is None else (start[:2], np.array([start[2], 1.0]))
    regression = fit_logistic(positive, z, weights, terms="intercept and slope", start=both)
    in_the_large = fit_logistic(positive, z, weights, terms="intercept", start=level)[:, 0]
    brier = weights @ (risk - positive) ** 2 / total
    share = weights @ positive.astype(np.float64) / total
    spread = share * (1.0 - share)
    ratio = np.divide(brier, spread, out=np.full_like(brier, np.nan), where=spread > 0)
    of_bin = np.zeros((len(z), int(code.max()) + 1))
    of_bin[np.arange(len(z)), code] = positive - risk
    ece = np.abs(weights @ of_bin).sum(axis=1) / total
    return np.stack([regression[:, 0], regression[:, 1], in_the_large, brier, 1.0 - ratio, ece])
