"""Sections about the output as a risk: calibration before and after recalibration, and the decision curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report.plain import section
from pipeline.report.sections.scores import Scored, Settings
from pipeline.statistics import (
    CLEAN,
    at_prevalence,
    calibration_change,
    decision_curve,
    fit_recalibration,
    probability,
    rows_of_attack,
)

SCREENING_PREVALENCE = 0.006
"""Cancers per screening examination: 5.1 per 1,000 detected, 0.8 missed (Lehman et al. 2017, Radiology 283:49)."""


def calibration_section(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Calibration of the test patients, as the network gives it and recalibrated on validation."""
    frozen, test = scored.validation, rows_of_attack(scored.test, CLEAN)
    n = _counts(scored)
    fitted = fit_recalibration(frozen["patient_label"].to_numpy(), frozen["logit"].to_numpy())
    change = calibration_change(
        fitted,
        test["patient_label"].to_numpy(),
        test["logit"].to_numpy(),
        resamples=settings.resamples,
        seed=settings.seed,
        confidence=settings.confidence,
    )
    content = change.to_dict()
    if change.before.brier.value is None:
        return section("not_estimable", reason=change.before.brier.reason, n=n, **content)
    return section(n=n, **content)


def decision_section(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Net benefit of the recalibrated output at the share of malignant patients of the data and of screening.

    Where validation patients do not allow a recalibration, `not_recalibrated` says why, and the output is taken as the
    network gives it, at the share of the data only: moving it to screening needs risks that are calibrated.
    """
    frozen, test = scored.validation, rows_of_attack(scored.test, CLEAN)
    n = _counts(scored)
    fitted = fit_recalibration(frozen["patient_label"].to_numpy(), frozen["logit"].to_numpy())
    logits, labels = test["logit"].to_numpy(dtype=np.float64), test["patient_label"].to_numpy()
    drawn: dict[str, Any] = {
        "resamples": settings.resamples, "seed": settings.seed, "confidence": settings.confidence
    }  # fmt: skip
    if fitted.intercept is None or fitted.slope is None:
        curves = [decision_curve(labels, probability(logits), **drawn)]
    else:
        risks = probability(fitted.intercept + fitted.slope * logits)
        share = fitted.n_positive / (fitted.n_positive + fitted.n_negative)
        own = float(np.mean(labels)) if len(labels) else 0.0
        here = at_prevalence(risks, fitted=share, stated=own) if 0 < own < 1 and abs(own - share) > 1e-9 else risks
        screening = at_prevalence(risks, fitted=share, stated=SCREENING_PREVALENCE)
        steps = [step * SCREENING_PREVALENCE / 4 for step in range(1, 21)]
        curves = [
            decision_curve(labels, here, **drawn),
            decision_curve(labels, screening, thresholds=steps, prevalence=SCREENING_PREVALENCE, **drawn),
        ]
    content: dict[str, Any] = {"not_recalibrated": fitted.reason, "curves": [curve.to_dict() for curve in curves]}
    if curves[0].reason:
        return section("not_estimable", reason=curves[0].reason, n=n, **content)
    return section(n=n, **content)


def _counts(scored: Scored) -> dict[str, int]:
    auc, frozen = scored.results[0].auc, scored.validation["patient_label"]
    return {
        "malignant": auc.n_positive,
        "benign": auc.n_negative,
        "validation_malignant": int((frozen == 1).sum()),
        "validation_benign": int((frozen == 0).sum()),
    }
