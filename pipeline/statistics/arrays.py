"""Checks shared by all statistics: labels are 0 or 1, scores are finite, both have one entry per patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.estimate import NotEstimable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless ``confidence`` lies strictly between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; allowed is a share strictly between 0 and 1, such as 0.95")


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[Flags, Floats]:
    """Check labels against scores.

    Args:
        labels: (N,) of 0 and 1 (or False and True); 1 is malignant.
        scores: (..., N) finite numbers, larger is more suspicious.

    Returns:
        Boolean labels (N,) and float64 scores (..., N).

    Raises:
        ValueError: labels other than 0/1, scores that are not finite, or unequal lengths.
    """
    plain = np.asarray(labels)
    numbers = np.asarray(scores, dtype=np.float64)
    if plain.ndim != 1:
        raise ValueError(f"labels have shape {plain.shape}; allowed is one dimension, one entry per patient")
    if numbers.ndim == 0 or numbers.shape[-1] != plain.shape[0]:
        raise ValueError(f"{plain.shape[0]} labels meet scores of shape {numbers.shape}; pass one score per label")
    if not np.isin(plain, (0, 1)).all():
        wrong = sorted({str(value) for value in plain[~np.isin(plain, (0, 1))]})
        raise ValueError(f"labels contain {', '.join(wrong)}; allowed are 0 and 1; drop unknown labels first")
    if not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise ValueError(f"{count} of {numbers.size} scores are NaN or infinite; score these images again first")
    return plain.astype(bool), numbers


def require_both_classes(labels: Flags, *, what: str) -> None:
    """Raise NotEstimable unless there is at least one malignant and one benign patient."""
    positive, negative = int(labels.sum()), int((~labels).sum())
    if positive == 0 or negative == 0:
        raise NotEstimable(
            f"{what} needs malignant and benign patients; there are {positive} malignant and {negative} benign"
        )
