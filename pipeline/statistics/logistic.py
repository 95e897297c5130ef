"""Logistic regression of the outcome on a logit, for the patients and for every resample of them at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import expit

from pipeline.statistics.arrays import Flags, Floats

ITERATIONS = 60
"""Newton's method with halved steps needs about 6; beyond this a row is given up (NaN)."""

LONG_STEP = 1.0
"""In standard deviations of the logit; only longer steps are checked for overshooting, since the check costs most."""

TOLERANCE = 1e-12
"""Largest score (gradient) per patient at which the fit counts as found."""

Terms = Literal["intercept", "intercept and slope"]


def fit_logistic(
    positive: Flags, logits: Floats, weights: np.ndarray, *, terms: Terms, start: Floats | None = None
) -> Floats:
    """Maximum-likelihood fits of logit P(malignant) = a + b z, each with its own weights of the patients.

    The fit exists if and only if both classes are present and, with a slope, their logits overlap (Albert and Anderson
    1984, Biometrika 71:1); both are checked, not guessed from a fit that ran away.

    Args:
        positive: (N,) whether the patient is malignant.
        logits: (N,) finite z.
        weights: (R, N) how often each patient counts in each fit.
        start: (2,) of a and b to start from, such as the fit of the data for those of its resamples; None for 0.
        terms: "intercept" finds a with b fixed at 1; "intercept and slope" finds both.

    Returns:
        (R, 2) of a and b; NaN where the fit does not exist.
    """
    slope = terms == "intercept and slope"
    # With centred and scaled z the Hessian is well conditioned; the fit is turned back at the end.
    centre, scale = (float(logits.mean()), float(logits.std()) or 1.0) if slope else (0.0, 1.0)
    z = (logits - centre) / scale
    result = np.full((len(weights), 2), np.nan)
    at = np.flatnonzero(_exists(positive, z, weights > 0, slope))
    if not at.size:
        return result
    heavy, total = weights[at].astype(np.float64), weights[at].sum(axis=1, dtype=np.float64)
    a, b = (0.0, 0.0) if start is None or not np.isfinite(start).all() else start.tolist()
    fit = np.tile([a + centre * b, b * scale] if slope else [a, 1.0], (len(at), 1))
    active = np.arange(len(at))
    for _ in range(ITERATIONS):
        step, steepest = _newton(positive, z, heavy[active] if active.size < len(at) else heavy, fit[active], slope)
        going = steepest > TOLERANCE * total[active]
        active, step = active[going], step[going]
        if not active.size:
            break
        _shorten(positive, z, heavy, fit, step, active)
        fit[active] += step
    fit[active] = np.nan
    result[at, 1] = fit[:, 1] / scale
    result[at, 0] = fit[:, 0] - centre * result[at, 1] if slope else fit[:, 0]
    return result


def _exists(positive: Flags, z: Floats, drawn: np.ndarray, slope: bool) -> np.ndarray:
    malignant, benign = drawn & positive, drawn & ~positive
    both = malignant.any(axis=1) & benign.any(axis=1)
    if not slope:
        return np.asarray(both)
    least = [np.where(part, z, np.inf).min(axis=1) for part in (malignant, benign)]
    most = [np.where(part, z, -np.inf).max(axis=1) for part in (malignant, benign)]
    return np.asarray(both & (least[0] < most[1]) & (least[1] < most[0]))


def _newton(positive: Flags, z: Floats, weights: Floats, fit: Floats, slope: bool) -> tuple[Floats, Floats]:
    """Newton's step (R, 2) and the largest absolute score (R,)."""
    share = expit(fit[:, :1] + fit[:, 1:] * z)
    rest = weights * (positive - share)
    curve = np.multiply(weights, share * (1.0 - share), out=share)
    zeroth, step = curve.sum(axis=1), np.zeros_like(fit)
    level = rest.sum(axis=1)
    if not slope:
        step[:, 0] = level / zeroth
        return step, np.abs(level)
    tilt, first, second = rest @ z, curve @ z, curve @ (z * z)
    determinant = zeroth * second - first**2
    step[:, 0] = (second * level - first * tilt) / determinant
    step[:, 1] = (zeroth * tilt - first * level) / determinant
    return step, np.maximum(np.abs(level), np.abs(tilt))


def _shorten(positive: Flags, z: Floats, weights: Floats, fit: Floats, step: Floats, active: np.ndarray) -> None:
    """Halve, in place, long steps until they no longer raise the loss; short ones are near the minimum and safe."""
    long = np.flatnonzero(np.abs(step).max(axis=1) > LONG_STEP)
    if not long.size:
        return
    rows = active[long]
    heavy, start = weights[rows], fit[rows]
    before = _loss(positive, z, heavy, start)
    for _ in range(20):
        worse = _loss(positive, z, heavy, start + step[long]) > before
        if not worse.any():
            return
        step[long[worse]] /= 2


def _loss(positive: Flags, z: Floats, weights: Floats, fit: Floats) -> Floats:
    signed = np.where(positive, -1.0, 1.0) * (fit[:, :1] + fit[:, 1:] * z)
    return np.einsum("rn,rn->r", weights, np.logaddexp(0.0, signed))
