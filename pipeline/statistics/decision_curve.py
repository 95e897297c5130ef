"""Decision curve: the net benefit of acting on the model, on everybody and on nobody, at every risk threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.arrays import Flags, Floats, check_confidence, check_scores
from pipeline.statistics.auc import MINIMUM_PER_CLASS
from pipeline.statistics.bootstrap import plain_draws, stratified_draws

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))
"""Risks from 1% to 99%."""


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit over risk thresholds, in true positives per patient; acting on nobody has 0 everywhere.

    Attributes:
        thresholds: Risks at or above which a patient is acted on, in (0, 1).
        model: Net benefit of acting on the model's risks; empty when it is not estimable.
        model_lower, model_upper: Its pointwise interval; empty when it is not estimable.
        treat_all: Net benefit of acting on everybody.
        treat_all_lower, treat_all_upper: Its pointwise interval; equal to ``treat_all`` at a stated prevalence.
        treat_none: Net benefit of acting on nobody: 0.
        prevalence: Share of malignant patients that the curve holds for.
        stated: Whether that share was stated, rather than counted in the data.
        n_positive: Malignant patients.
        n_negative: Benign patients.
        reason: Why curve or intervals are missing; None when both are given.
        confidence: Coverage that the intervals aim at.
    """

    thresholds: list[float]
    model: list[float]
    model_lower: list[float]
    model_upper: list[float]
    treat_all: list[float]
    treat_all_lower: list[float]
    treat_all_upper: list[float]
    treat_none: list[float]
    prevalence: float | None
    stated: bool
    n_positive: int
    n_negative: int
    reason: str | None
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def decision_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    prevalence: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> DecisionCurve:
    """Net benefit (Vickers and Elkin 2006, Medical Decision Making 26:565) with bootstrap intervals.

    At threshold t: sensitivity p - (1 - specificity) (1 - p) t / (1 - t), with p the share of malignant patients in the
    data or the stated prevalence. Without a stated one patients are resampled all together, since their mix is a matter
    of chance; with one, malignant and benign patients are resampled apart.

    Args:
        labels: (N,) of 0 and 1, one per patient.
        probabilities: (N,) risks in [0, 1], calibrated for the prevalence of the curve: recalibrate them on validation
            patients first, and move them with ``at_prevalence`` where a prevalence is stated.
        thresholds: Risks strictly between 0 and 1.
        prevalence: Share of malignant patients to state the curve for, in (0, 1), or None for that of the data.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, at each threshold by itself, in (0, 1).

    Raises:
        ValueError: arguments that are not allowed.
    """
    check_confidence(confidence)
    positive, risks = check_scores(labels, probabilities)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.ndim != 1 or not cuts.size or not ((cuts > 0.0) & (cuts < 1.0)).all():
        raise ValueError(f"thresholds are {list(thresholds)}; allowed are risks strictly between 0 and 1, at least one")
    if ((risks < 0.0) | (risks > 1.0)).any():
        raise ValueError("a probability lies outside 0 to 1; pass risks, not logits")
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise ValueError(f"prevalence is {prevalence}; allowed is a share strictly between 0 and 1, or None")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; allowed are 1 or more")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    # Counts below 2^24 are exact in float32, which halves the time.
    called = (risks[:, None] >= cuts).astype(np.float32)

    def curve(
        model: Floats, treat_all: Floats, bounds: tuple[Floats, ...], share: float | None, reason: str | None
    ) -> DecisionCurve:
        lower, upper, all_lower, all_upper = (bound.tolist() for bound in bounds)
        return DecisionCurve(
            thresholds=cuts.tolist(),
            model=model.tolist(),
            model_lower=lower,
            model_upper=upper,
            treat_all=treat_all.tolist(),
            treat_all_lower=all_lower,
            treat_all_upper=all_upper,
            treat_none=[0.0] * len(model),
            prevalence=share,
            stated=prevalence is not None,
            n_positive=n_positive,
            n_negative=n_negative,
            reason=reason,
            confidence=confidence,
        )

    nothing = (np.empty(0),) * 4
    if min(n_positive, n_negative) == 0:
        reason = f"a decision curve needs both classes; there are {n_positive} malignant and {n_negative} benign"
        return curve(nothing[0], nothing[0], nothing, prevalence, reason)
    values, everybody = _benefit(positive, called, cuts, np.ones((1, len(risks))), prevalence)
    share = prevalence if prevalence is not None else float(positive.mean())
    if min(n_positive, n_negative) < MINIMUM_PER_CLASS:
        reason = f"an interval needs at least {MINIMUM_PER_CLASS} patients of each class"
        return curve(values[0], everybody[0], nothing, share, reason)
    drawn = np.empty((2, resamples, len(cuts)))
    for rows, weights in _draws(positive, prevalence, resamples=resamples, seed=seed):
        drawn[:, rows] = _benefit(positive, called, cuts, weights, prevalence)
    tail = (1.0 - confidence) / 2.0
    (lower, all_lower), (upper, all_upper) = np.quantile(drawn, [tail, 1.0 - tail], axis=1)
    return curve(values[0], everybody[0], (lower, upper, all_lower, all_upper), share, None)


def _draws(
    positive: Flags, prevalence: float | None, *, resamples: int, seed: int
) -> Iterator[tuple[slice, np.ndarray]]:
    if prevalence is None:
        yield from plain_draws(positive.size, resamples=resamples, seed=seed)
        return
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    for rows, malignant, benign in stratified_draws(n_positive, n_negative, resamples=resamples, seed=seed):
        weights = np.empty((len(malignant), positive.size), dtype=np.int32)
        weights[:, positive], weights[:, ~positive] = malignant, benign
        yield rows, weights


def _benefit(
    positive: Flags, called: np.ndarray, cuts: Floats, weights: np.ndarray, prevalence: float | None
) -> tuple[Floats, Floats]:
    """Net benefit (R, T) of the model and of acting on everybody, for each row of weights."""
    heavy = weights.astype(np.float32)
    true, false = (np.asarray(heavy[:, part] @ called[part], dtype=np.float64) for part in (positive, ~positive))
    malignant, benign = (heavy[:, part].sum(axis=1, dtype=np.float64)[:, None] for part in (positive, ~positive))
    odds = cuts / (1.0 - cuts)
    if prevalence is None:
        total = malignant + benign
        return (true - false * odds) / total, (malignant - benign * odds) / total
    model = prevalence * true / malignant - (1.0 - prevalence) * odds * false / benign
    return model, np.broadcast_to(prevalence - (1.0 - prevalence) * odds, model.shape)
