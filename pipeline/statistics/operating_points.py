"""Operating points: a threshold frozen on validation patients, and what it does to the test patients."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from pipeline.statistics.arrays import check_confidence, check_scores, require_both_classes
from pipeline.statistics.estimate import NotEstimable, Proportion

Rule = Literal["sensitivity", "youden"]


@dataclass(frozen=True)
class Threshold:
    """A threshold on the patient logit, chosen once; a patient at or above it is called positive.

    Attributes:
        rule: "sensitivity" or "youden".
        target: Sensitivity asked for on validation (rule "sensitivity"), else None.
        value: Threshold (logit), or None when it is not estimable.
        sensitivity: Sensitivity on the patients that it was chosen on.
        specificity: Specificity on the patients that it was chosen on.
        n_positive: Malignant patients that it was chosen on.
        n_negative: Benign patients that it was chosen on.
        reason: Why it is missing; None when it is given.
    """

    rule: str
    target: float | None
    value: float | None
    sensitivity: float | None
    specificity: float | None
    n_positive: int
    n_negative: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def freeze_threshold(
    labels: ArrayLike, scores: ArrayLike, *, rule: Rule = "sensitivity", target: float = 0.9
) -> Threshold:
    """Choose a threshold on validation patients.

    "sensitivity": the highest score at which the sensitivity is at least ``target``. "youden": the score at which
    sensitivity + specificity is largest (Youden 1950), the lowest such score (more sensitive) when several tie.

    Args:
        labels: (N,) of 0 and 1, the validation patients.
        scores: (N,) their clean patient logits.
        rule: "sensitivity" or "youden".
        target: Sensitivity asked for, in (0, 1]; used by rule "sensitivity".

    Returns:
        The threshold; with a reason instead of a value when validation lacks a class.

    Raises:
        ValueError: arguments that are not allowed.
    """
    if rule not in ("sensitivity", "youden"):
        raise ValueError(f"rule is {rule!r}; allowed are 'sensitivity' and 'youden'")
    if not 0.0 < target <= 1.0:
        raise ValueError(f"target is {target}; allowed is a sensitivity above 0 and up to 1")
    positive, numbers = check_scores(labels, scores)
    goal = target if rule == "sensitivity" else None
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    try:
        require_both_classes(positive, what="a threshold frozen on validation")
    except NotEstimable as error:
        return Threshold(rule, goal, None, None, None, n_positive, n_negative, str(error))
    malignant, benign = np.sort(numbers[positive]), np.sort(numbers[~positive])
    if rule == "sensitivity":
        needed = math.ceil(target * n_positive - 1e-9)
        value = float(malignant[n_positive - needed])
    else:
        candidates = np.unique(numbers)
        missed = np.searchsorted(malignant, candidates, side="left")
        spared = np.searchsorted(benign, candidates, side="left")
        gain = spared * n_positive - missed * n_negative
        value = float(candidates[int(np.argmax(gain))])
    sensitivity = float((malignant >= value).mean())
    specificity = float((benign < value).mean())
    return Threshold(rule, goal, value, sensitivity, specificity, n_positive, n_negative)


def wilson_interval(successes: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), within [0, 1].

    Raises:
        NotEstimable: total is 0.
        ValueError: successes outside 0 to total.
    """
    check_confidence(confidence)
    if total == 0:
        raise NotEstimable("a proportion needs at least one patient; there are 0")
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}; allowed are 0 to {total}")
    z = float(norm.ppf(0.5 + confidence / 2.0))
    share = successes / total
    scale = 1.0 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z * math.sqrt(share * (1.0 - share) / total + z * z / (4.0 * total * total)) / scale
    lower = 0.0 if successes == 0 else middle - half
    upper = 1.0 if successes == total else middle + half
    return lower, upper


def proportion(successes: int, total: int, *, nobody: str, confidence: float = 0.95) -> Proportion:
    """A share with its Wilson interval, or ``nobody`` as the reason when total is 0."""
    if total == 0:
        return Proportion(None, None, None, 0, 0, nobody, confidence)
    lower, upper = wilson_interval(successes, total, confidence=confidence)
    return Proportion(successes / total, lower, upper, successes, total, None, confidence)


def sensitivity_specificity(
    labels: ArrayLike, scores: ArrayLike, threshold: float, *, confidence: float = 0.95
) -> tuple[Proportion, Proportion]:
    """Sensitivity and specificity at a given threshold, with Wilson intervals.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) patient logits.
        threshold: A patient at or above it is called positive; choose it on other patients.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        Sensitivity, specificity; each with a reason when its class is absent.
    """
    positive, numbers = check_scores(labels, scores)
    called = numbers >= threshold
    return (
        proportion(
            int((called & positive).sum()),
            int(positive.sum()),
            nobody="sensitivity needs malignant patients; there are 0",
            confidence=confidence,
        ),
        proportion(
            int((~called & ~positive).sum()),
            int((~positive).sum()),
            nobody="specificity needs benign patients; there are 0",
            confidence=confidence,
        ),
    )
