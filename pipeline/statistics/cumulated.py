"""Patients at or above each score, cumulated, for the data and for every resample: the stuff of ROC and precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.arrays import Flags, Floats
from pipeline.statistics.bootstrap import stratified_draws

Curves = Callable[[Floats, Floats], Floats]
"""From malignant and benign patients at or above each distinct score, (r, G) both, to one figure per row (r,)."""


def descending_groups(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Order of falling score (N,), place in it of each distinct score's last patient (G,), and these scores (G,)."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    return order, last, falling[last]


def of_data(positive: Flags, scores: Floats, figure: Curves) -> float:
    """The figure of the patients as they are."""
    order, last, _ = descending_groups(scores)
    hits = positive[order].astype(np.float64)
    true, false = (np.cumsum(part)[last][None] for part in (hits, 1.0 - hits))
    return float(figure(true, false)[0])


def of_resamples(positive: Flags, scores: Floats, figure: Curves, *, resamples: int, seed: int) -> Floats:
    """The figure of every stratified resample (resamples,), on the draws of ``bootstrap_auc``."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; allowed are 1 or more")
    order, last, _ = descending_groups(scores)
    hits = positive[order]
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    # Place of each patient among those of its class, so that a seed draws the same patients as in bootstrap_auc.
    of_class = np.where(positive, np.cumsum(positive) - 1, np.cumsum(~positive) - 1)[order]
    values = np.empty(resamples)
    for rows, malignant, benign in stratified_draws(n_positive, n_negative, resamples=resamples, seed=seed):
        drawn = np.zeros((2, len(malignant), len(order)), dtype=np.int32)
        drawn[0][:, hits] = malignant[:, of_class[hits]]
        drawn[1][:, ~hits] = benign[:, of_class[~hits]]
        true, false = np.cumsum(drawn, axis=2, dtype=np.int32)[:, :, last].astype(np.float64)
        values[rows] = figure(true, false)
    return values
