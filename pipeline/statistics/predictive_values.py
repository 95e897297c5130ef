"""Predictive values at stated prevalences: what a positive or a negative call would mean in a clinic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.statistics.arrays import check_confidence
from pipeline.statistics.estimate import Estimate, Proportion
from pipeline.statistics.operating_points import wilson_interval

METHOD = "MOVER-R of Wilson intervals"


@dataclass(frozen=True)
class PredictiveValues:
    """Positive and negative predictive value at one prevalence.

    Attributes:
        prevalence: Share of malignant patients that the values are stated for, in (0, 1).
        ppv: Share of malignant among the patients called positive.
        npv: Share of benign among the patients called negative.
    """

    prevalence: float
    ppv: Estimate
    npv: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {"prevalence": self.prevalence, "ppv": self.ppv.to_dict(), "npv": self.npv.to_dict()}


def predictive_values(
    sensitivity: Proportion, specificity: Proportion, *, prevalences: Sequence[float], confidence: float = 0.95
) -> list[PredictiveValues]:
    """PPV and NPV by Bayes' rule from sensitivity and specificity, with intervals from their Wilson intervals.

    The odds of PPV are prevalence / (1 - prevalence) times the likelihood ratio sensitivity / (1 - specificity), whose
    two parts come from different patients. The interval of the ratio is MOVER-R on Wilson's intervals, recommended for
    a ratio of two proportions by Fagerland, Lydersen and Laake (2015, Statistical Methods in Medical Research 24:224);
    it exists and covers at proportions of 0 and 1 too. Exact enumeration over sizes from 20 + 30 to 100 + 300 patients:
    at least 94%, where the logit with the delta method falls to 87%. The prevalence counts as known.

    Args:
        sensitivity: Malignant patients called positive, as ``sensitivity_specificity`` returns it.
        specificity: Benign patients called negative.
        prevalences: Shares of malignant patients in (0, 1) to state the values for.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        One entry per prevalence; None with a reason where a class is absent or nobody is called so.

    Raises:
        ValueError: a prevalence or confidence that is not allowed.
    """
    check_confidence(confidence)
    for prevalence in prevalences:
        if not 0.0 < prevalence < 1.0:
            raise ValueError(f"prevalence is {prevalence}; allowed is a share strictly between 0 and 1, such as 0.006")
    caught, malignant = sensitivity.successes, sensitivity.total
    spared, benign = specificity.successes, specificity.total
    return [
        PredictiveValues(
            prevalence,
            _value(prevalence, caught, benign - spared, malignant, benign, called="positive", confidence=confidence),
            _negative(prevalence, malignant - caught, spared, malignant, benign, confidence=confidence),
        )
        for prevalence in prevalences
    ]


def _negative(
    prevalence: float, missed: int, spared: int, malignant: int, benign: int, *, confidence: float
) -> Estimate:
    """NPV is one less the share of malignant among those called negative."""
    share = _value(prevalence, missed, spared, malignant, benign, called="negative", confidence=confidence)
    if share.value is None or share.lower is None or share.upper is None:
        return share
    return Estimate(
        1.0 - share.value, 1.0 - share.upper, 1.0 - share.lower, malignant, benign, METHOD, None, confidence
    )


def _value(
    prevalence: float, of_malignant: int, of_benign: int, malignant: int, benign: int, *, called: str, confidence: float
) -> Estimate:
    """Share of malignant among the patients of one call."""
    reason = ""
    if malignant == 0 or benign == 0:
        reason = f"predictive values need both classes; there are {malignant} malignant and {benign} benign patients"
    elif of_malignant == of_benign == 0:
        reason = f"no patient is called {called}"
    if reason:
        return Estimate(None, None, None, malignant, benign, "none", reason, confidence)
    one, other = prevalence * of_malignant / malignant, (1.0 - prevalence) * of_benign / benign
    odds = prevalence / (1.0 - prevalence)
    lower, upper = (
        odds * ratio / (1.0 + odds * ratio) if math.isfinite(ratio) else 1.0
        for ratio in _ratio_interval(of_malignant, malignant, of_benign, benign, confidence=confidence)
    )
    return Estimate(one / (one + other), lower, upper, malignant, benign, METHOD, None, confidence)


def _ratio_interval(above: int, of_above: int, below: int, of_below: int, *, confidence: float) -> tuple[float, float]:
    """Interval of (above / of_above) / (below / of_below) by MOVER-R; not both counts are 0."""
    first, second = above / of_above, below / of_below
    least, most = wilson_interval(above, of_above, confidence=confidence)
    bottom, top = wilson_interval(below, of_below, confidence=confidence)
    square, high, low = (first * second) ** 2, top * (2 * second - top), bottom * (2 * second - bottom)
    # Rounding may leave a product a hair above the square that it equals.
    lower = (first * second - math.sqrt(max(0.0, square - least * (2 * first - least) * high))) / high
    if below == 0:
        return lower, math.inf
    return lower, (first * second + math.sqrt(max(0.0, square - most * (2 * first - most) * low))) / low
