"""Sections made from scores.csv: discrimination, robustness, operating points, flips and the patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.report.errors import ReportError
from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles
from pipeline.statistics import (
    CLEAN,
    AttackResult,
    Proportion,
    Threshold,
    average_precision,
    clustered_auc,
    flips,
    freeze_threshold,
    ordered_attacks,
    partial_auc,
    patient_table,
    pool_breasts,
    pool_patients,
    predictive_values,
    probability,
    robustness,
    rows_of_attack,
    sensitivity_specificity,
)

RULES = (("sensitivity", 0.9), ("youden", 0.9))
"""Rules by which thresholds are frozen; the first one also makes the calls in the table of patients."""


FEW_ALARMS = (0.0, 0.2)
"""Range of false alarms of the partial AUC: specificities from 0.8 on, where screening works."""

PREVALENCES = (0.006, 0.1, 0.5)
"""Shares of malignant patients for which predictive values are stated: screening (see the decision curve), a clinic for
symptoms, and half."""


@dataclass(frozen=True)
class Settings:
    """How the statistics are made; written into report.json.

    Attributes:
        within_breast: Pooling of the images of a breast, "mean" or "max" (not stated in the paper).
        across_breasts: Pooling of the breasts of a patient, "mean" or "max" (not stated in the paper).
        resamples: Bootstrap resamples of patients.
        seed: Seed of the resamples.
        confidence: Coverage of all intervals.
    """

    within_breast: str = "mean"
    across_breasts: str = "max"
    resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True)
class Scored:
    """Pooled test patients, their images, clean validation patients, results under each attack, frozen thresholds."""

    test: pd.DataFrame
    images: pd.DataFrame
    validation: pd.DataFrame
    results: list[AttackResult]
    thresholds: list[Threshold]
    labels: dict[str, str]


def score_patients(files: RunFiles, settings: Settings) -> Scored:
    """Pool scores.csv into patients and apply the statistics.

    Raises:
        ReportError: scores that cannot be pooled or compared.
    """
    where = files.directory / "scores.csv"
    try:
        pooled = pool_patients(files.scores, settings.within_breast, settings.across_breasts)  # type: ignore[arg-type]
        test = pooled[(pooled["partition"] == "test") & ~pooled["attack_id"].isin(_strong(files))]
        results = robustness(test, resamples=settings.resamples, seed=settings.seed, confidence=settings.confidence)
    except ValueError as error:
        raise ReportError(f"{where}: {error}") from error
    both = set(test["patient_id"]) & set(pooled.loc[pooled["partition"] == "validation", "patient_id"])
    if both:
        raise ReportError(
            f"{where}: patient {min(both)} stands in validation and in test, so that the threshold would be set on "
            "test patients; split the cohort by patient and score again"
        )
    frozen = pooled[(pooled["partition"] == "validation") & (pooled["attack_id"] == CLEAN)]
    thresholds = [
        freeze_threshold(frozen["patient_label"].to_numpy(), frozen["logit"].to_numpy(), rule=rule, target=target)  # type: ignore[arg-type]
        for rule, target in RULES
    ]
    images = files.scores[files.scores["partition"] == "test"]
    return Scored(test, images, frozen, results, thresholds, _labels(results))


def _strong(files: RunFiles) -> list[str]:
    """Attacks of the strong test alone, which has a section of its own."""
    if files.strong is None:
        return []
    return [entry.attack_id for entry in files.strong.attacks if entry.attack_id not in files.strong.scored_before]


def _labels(results: list[AttackResult]) -> dict[str, str]:
    """Names that a reader understands: the budget where it tells the attacks apart, else the attack's own name."""
    attacks = [result for result in results if result.attack_id != CLEAN]
    unique = len({result.budget for result in attacks}) == len(attacks)
    names = {result.attack_id: f"budget {result.budget:g}" if unique else result.attack_id for result in attacks}
    return {CLEAN: "no attack", **names}


def _name(scored: Scored, result: AttackResult) -> dict[str, Any]:
    return {
        "attack_id": result.attack_id,
        "label": scored.labels[result.attack_id],
        "norm": result.norm,
        "budget": result.budget,
        "steps": result.steps,
        "restarts": result.restarts,
    }


def _n(result: AttackResult) -> dict[str, int]:
    return {
        "patients": result.patients,
        "malignant": result.auc.n_positive,
        "benign": result.auc.n_negative,
        "images": result.images,
    }


def discrimination(scored: Scored, settings: Settings) -> dict[str, Any]:
    """ROC curves and AUCs clean and under each attack, with both intervals."""
    clean = scored.results[0]
    curves = [
        {
            **_name(scored, result),
            "auc": result.auc.to_dict(),
            "auc_delong": result.auc_delong.to_dict(),
            "roc": result.roc,
        }
        for result in scored.results
    ]
    more: dict[str, Any] = {"curves": curves, "levels": _levels(scored, settings), **_other_areas(scored, settings)}
    if clean.auc.value is None:
        return section("not_estimable", reason=clean.auc.reason, n=_n(clean), **more)
    return section(n=_n(clean), **more)


def _levels(scored: Scored, settings: Settings) -> list[dict[str, Any]]:
    """Clean AUC of breasts and of images with known breast labels, with intervals that know who shares a patient."""
    rows = scored.images[(scored.images["attack_id"] == CLEAN) & scored.images["label"].notna()]
    breasts = pool_breasts(rows, within_breast=settings.within_breast) if len(rows) else rows
    found = []
    for name, table in (("breast", breasts), ("image", rows)):
        estimate = clustered_auc(
            table["label"].to_numpy(),
            table["logit"].to_numpy(),
            table["patient_id"].to_numpy(),
            resamples=settings.resamples,
            seed=settings.seed,
            confidence=settings.confidence,
        )
        found.append(
            {
                "level": name,
                "auc": estimate.estimate.to_dict(),
                "rows": int(estimate.rows_positive + estimate.rows_negative),
                "malignant": int(estimate.rows_positive),
                "patients": int(estimate.patients),
            }
        )
    return found


def _other_areas(scored: Scored, settings: Settings) -> dict[str, Any]:
    rows = rows_of_attack(scored.test, CLEAN)
    labels, logits = rows["patient_label"].to_numpy(), rows["logit"].to_numpy()
    drawn: dict[str, Any] = {
        "resamples": settings.resamples, "seed": settings.seed, "confidence": settings.confidence
    }  # fmt: skip
    return {
        "average_precision": average_precision(labels, logits, **drawn).to_dict(),
        "partial_auc": {"false_alarms": list(FEW_ALARMS)}
        | partial_auc(labels, logits, false_alarms=FEW_ALARMS, **drawn).to_dict(),
    }


def robustness_section(scored: Scored) -> dict[str, Any]:
    """AUC against budget, with the paired loss against clean."""
    points = [
        {
            **_name(scored, result),
            "n": _n(result),
            "grey_levels": result.grey_levels,
            "auc": result.auc.to_dict(),
            "difference": None if result.difference is None else result.difference.to_dict(),
        }
        for result in scored.results
    ]
    n = _n(scored.results[0])
    if scored.results[0].auc.value is None:
        return section("not_estimable", reason=scored.results[0].auc.reason, n=n, points=points)
    if len(points) == 1:
        reason = "scores.csv holds no attacked scores; set test_budgets and score again"
        return section("missing", reason=reason, n=n, points=points)
    return section(n=n, points=points)


def operating_points(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Sensitivity and specificity at every frozen threshold, clean and under each attack."""
    entries = []
    for threshold in scored.thresholds:
        entry = threshold.to_dict()
        entry["probability"] = None if threshold.value is None else float(probability(threshold.value))
        entry["attacks"] = []
        for result in scored.results if threshold.value is not None else []:
            rows = rows_of_attack(scored.test, result.attack_id)
            shares = sensitivity_specificity(
                rows["patient_label"].to_numpy(),
                rows["logit"].to_numpy(),
                float(threshold.value or 0.0),
                confidence=settings.confidence,
            )
            entry["attacks"].append(
                {
                    **_name(scored, result),
                    "sensitivity": shares[0].to_dict(),
                    "specificity": shares[1].to_dict(),
                }
            )
        entry["predictive"] = _predictive(entry["attacks"], settings)
        entries.append(entry)
    first = scored.thresholds[0]
    n = {**_n(scored.results[0]), "validation_malignant": first.n_positive, "validation_benign": first.n_negative}
    if first.value is None:
        return section("not_estimable", reason=first.reason, n=n, thresholds=entries)
    return section(n=n, thresholds=entries)


def _predictive(attacks: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """PPV and NPV without attack at stated prevalences."""
    if not attacks:
        return []
    sensitivity, specificity = (Proportion(**attacks[0][name]) for name in ("sensitivity", "specificity"))
    found = predictive_values(sensitivity, specificity, prevalences=PREVALENCES, confidence=settings.confidence)
    return [value.to_dict() for value in found]


def flips_section(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Patients whose call changes under an attack, at the first frozen threshold."""
    threshold, n = scored.thresholds[0], _n(scored.results[0])
    if threshold.value is None:
        return section("not_estimable", reason=threshold.reason, n=n, attacks=[])
    clean = rows_of_attack(scored.test, CLEAN)
    attacks = []
    for result in scored.results[1:]:
        rows = rows_of_attack(scored.test, result.attack_id)
        found = flips(
            rows["patient_label"].to_numpy(),
            clean.loc[rows.index, "logit"].to_numpy(),
            rows["logit"].to_numpy(),
            threshold.value,
            confidence=settings.confidence,
        )
        attacks.append({**_name(scored, result), **found.to_dict()})
    if not attacks:
        return section("missing", reason="scores.csv holds no attacked scores", n=n, attacks=[])
    return section(n=n, rule=threshold.rule, attacks=attacks)


def patients(scored: Scored) -> dict[str, Any]:
    """Every test patient with label, probabilities, calls and flips."""
    rows = patient_table(scored.test, threshold=scored.thresholds[0].value)
    attacks = [{"attack_id": name, "label": scored.labels[name]} for name in ordered_attacks(scored.test)]
    flipped = sum(any(row["flips"]) for row in rows)
    return section(n={"patients": len(rows), "flipped": flipped}, attacks=attacks, rows=rows)
