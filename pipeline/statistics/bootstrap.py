"""Patient bootstrap, stratified or plain, and that of the AUC by ranks: no resample is ever sorted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.arrays import Floats, check_confidence, check_scores, require_both_classes

Counts = NDArray[np.int32]
Places = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]

_CELLS = 1 << 20
"""Resamples are drawn in blocks of about this many patients, which bounds the memory to some tens of MB."""


def resample_counts(size: int, *, resamples: int, rng: np.random.Generator) -> Counts:
    """How often each of ``size`` patients is drawn in each resample of ``size`` patients with replacement.

    Returns:
        (resamples, size) int32; every row sums to ``size``.
    """
    drawn = rng.integers(0, size, size=(resamples, size), dtype=np.int32).astype(np.int64)
    drawn += np.arange(resamples, dtype=np.int64)[:, None] * size
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.int32)


def bootstrap_auc(labels: ArrayLike, scores: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Floats:
    """AUC of every stratified resample, for several scores of the same patients on the same resamples.

    Malignant and benign patients are resampled apart, so every resample has both classes. With c_i the number of times
    that patient i is drawn, AUC = sum over malignant i of c_i (N_<(i) + N_<=(i)) / (2 n_positive n_negative), where
    N_< and N_<= count drawn benign patients scored below and not above patient i: cumulative sums in an order that is
    found once.

    Args:
        labels: (N,) of 0 and 1, both present.
        scores: (A, N): A scores of each patient, for example one per attack.
        resamples: Number of resamples, at least 1.
        seed: Seed; the resamples depend on it and on the labels only, hence are the same for all A scores.

    Returns:
        (A, resamples) AUCs in [0, 1].

    Raises:
        NotEstimable: only one class is present.
        ValueError: arguments that are not allowed.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; allowed are 1 or more")
    positive, numbers = check_scores(labels, scores)
    if numbers.ndim != 2:
        raise ValueError(f"scores have shape {numbers.shape}; allowed is (attacks, patients)")
    require_both_classes(positive, what="a bootstrap of the AUC")
    at = [places(row[positive], row[~positive]) for row in numbers]
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    result = np.empty((len(numbers), resamples))
    for rows, malignant, benign in stratified_draws(n_positive, n_negative, resamples=resamples, seed=seed):
        for index, place in enumerate(at):
            result[index, rows] = pairs_in_order(place, malignant, benign) / (n_positive * n_negative)
    return result


def pairs_in_order(place: Places, malignant: Counts, benign: Counts) -> Floats:
    """Drawn (malignant, benign) pairs in the right order, ties half, of each resample (r,).

    Args:
        place: What ``places`` found for the scores of the malignant and benign rows.
        malignant: (r, P) how often each malignant row is drawn.
        benign: (r, Q) how often each benign row is drawn.
    """
    order_positive, order_negative, left, right = place
    below = np.zeros((len(benign), benign.shape[1] + 1), dtype=np.int32)
    np.cumsum(benign[:, order_negative], axis=1, dtype=np.int32, out=below[:, 1:])
    twice = below[:, left] + below[:, right]
    return np.einsum("rp,rp->r", malignant[:, order_positive], twice, dtype=np.float64) / 2.0


def stratified_draws(
    n_positive: int, n_negative: int, *, resamples: int, seed: int
) -> Iterator[tuple[slice, Counts, Counts]]:
    """Resamples of malignant and of benign patients apart, in blocks: ``bootstrap_auc`` and its kin see the same ones.

    Yields:
        Place of the block among the resamples, and how often each malignant (r, n_positive) and each benign patient
        (r, n_negative) is drawn.
    """
    rng = np.random.default_rng(seed)
    for rows in _blocks(resamples, n_positive + n_negative):
        size = rows.stop - rows.start
        malignant = resample_counts(n_positive, resamples=size, rng=rng)
        yield rows, malignant, resample_counts(n_negative, resamples=size, rng=rng)


def plain_draws(size: int, *, resamples: int, seed: int) -> Iterator[tuple[slice, Counts]]:
    """Resamples of all patients together, in blocks, for figures that depend on the share of malignant patients.

    Yields:
        Place of the block among the resamples, and how often each patient (r, size) is drawn.
    """
    rng = np.random.default_rng(seed)
    for rows in _blocks(resamples, size):
        yield rows, resample_counts(size, resamples=rows.stop - rows.start, rng=rng)


def percentile_interval(values: Floats, *, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided percentile interval of resampled values (R,)."""
    check_confidence(confidence)
    tail = (1.0 - confidence) / 2.0
    lower, upper = np.quantile(values, [tail, 1.0 - tail])
    return float(lower), float(upper)


def places(malignant: Floats, benign: Floats) -> Places:
    """Orders of both classes by score, and how many benign scores lie below and not above each malignant one."""
    order_malignant, order_benign = np.argsort(malignant, kind="stable"), np.argsort(benign, kind="stable")
    malignant, benign = malignant[order_malignant], benign[order_benign]
    left = np.searchsorted(benign, malignant, side="left")
    right = np.searchsorted(benign, malignant, side="right")
    return order_malignant, order_benign, left, right


def _blocks(resamples: int, patients: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(patients, 1))
    for start in range(0, resamples, step):
        yield slice(start, min(start + step, resamples))
