"""Sections of the strong test: attacks that try harder, and the gates that tell robustness from masked gradients."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.report.errors import ReportError
from pipeline.report.measured import Strong, StrongAttack
from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles
from pipeline.report.sections.scores import Scored, Settings
from pipeline.statistics import (
    CLEAN,
    Facts,
    distance_summary,
    flips,
    gates,
    pool_patients,
    robustness,
    rows_of_attack,
    sensitivity_specificity,
    strongest_first,
)

FILE = "artefacts/strong.json"
WHITE_BOX = ("single_step", "more_steps", "restarts", "iterated", "adaptive")
"""Roles whose attacks see the network's gradient at one budget per image."""


def strong_section(files: RunFiles, scored: Scored, settings: Settings) -> dict[str, Any]:
    """Every attack of the strong test: AUC, change, and what it cost; and how far each image is from being flipped."""
    empty: dict[str, Any] = {"attacks": [], "distances": None, "budget": None, "surrogate": None}
    if files.strong is None:
        return section("missing", reason=files.missing[FILE], **empty)
    about = {entry.attack_id: entry for entry in files.strong.attacks}
    rows = _rows(files)
    pooled = pool_patients(rows, settings.within_breast, settings.across_breasts)  # type: ignore[arg-type]
    found = robustness(pooled, resamples=settings.resamples, seed=settings.seed, confidence=settings.confidence)
    listed = []
    for result in strongest_first(found, budget=files.strong.budget):
        entry = about.get(result.attack_id)
        listed.append(
            {
                "attack_id": result.attack_id,
                "label": _label(result.attack_id, entry, files.strong, scored),
                "role": entry.role if entry else "clean" if result.attack_id == CLEAN else "reported",
                "norm": result.norm,
                "budget": result.budget,
                "auc": result.auc.to_dict(),
                "difference": None if result.difference is None else result.difference.to_dict(),
                **_calls(pooled, result.attack_id, scored, settings),
                "forward_passes": entry.forward_passes if entry else None,
                "backward_passes": entry.backward_passes if entry else None,
                "seconds": entry.seconds if entry else None,
            }
        )
    distances = distance_summary([row.distance for row in files.strong.distances])
    n = {"patients": found[0].patients, "malignant": found[0].auc.n_positive, "benign": found[0].auc.n_negative,
         "images": found[0].images}  # fmt: skip
    return section(
        n=n,
        attacks=listed,
        distances=distances.to_dict(),
        budget=files.strong.budget,
        surrogate=files.strong.surrogate,
    )


def _calls(pooled: pd.DataFrame, attack_id: str, scored: Scored, settings: Settings) -> dict[str, Any]:
    """Sensitivity, specificity and flips at the first frozen threshold; None without one."""
    threshold = scored.thresholds[0].value
    if threshold is None:
        return dict.fromkeys(("sensitivity", "specificity", "flips"))
    rows = rows_of_attack(pooled, attack_id)
    labels, logits = rows["patient_label"].to_numpy(), rows["logit"].to_numpy()
    before = rows_of_attack(pooled, CLEAN).loc[rows.index, "logit"].to_numpy()
    shares = sensitivity_specificity(labels, logits, threshold, confidence=settings.confidence)
    changed = flips(labels, before, logits, threshold, confidence=settings.confidence)
    return {
        "sensitivity": shares[0].to_dict(),
        "specificity": shares[1].to_dict(),
        "flips": None if attack_id == CLEAN else changed.to_dict(),
    }


def gates_section(files: RunFiles, settings: Settings) -> dict[str, Any]:
    """Checks that the evaluation by attacks must pass before its figures can be believed."""
    if files.strong is None:
        return section("missing", reason=files.missing[FILE], gates=[], counts={})
    rows = _rows(files)
    found = gates(rows, _facts(files.strong), seed=settings.seed, confidence=settings.confidence)
    counts = {verdict: sum(gate.verdict == verdict for gate in found) for verdict in ("pass", "fail", "inconclusive")}
    n = {"patients": rows["patient_id"].nunique(), "images": rows["image_id"].nunique()}
    return section(n=n, gates=[gate.to_dict() for gate in found], counts=counts)


def _rows(files: RunFiles) -> pd.DataFrame:
    """Rows of scores.csv of the patients of the strong test, under its attacks, clean and the reported ones."""
    assert files.strong is not None
    rows = files.scores
    rows = rows[(rows["partition"] == "test") & rows["patient_id"].isin(files.strong.patients)]
    lacking = {entry.attack_id for entry in files.strong.attacks} - set(rows["attack_id"])
    if rows.empty or lacking:
        names = ", ".join(sorted(lacking)) or "its patients"
        raise ReportError(f"{files.directory / FILE}: scores.csv lacks {names}; score the test patients again")
    return rows


def _facts(strong: Strong) -> Facts:
    """What the gates take: the measured facts, and which attack is of which kind."""
    by_role: dict[str, list[str]] = {}
    for entry in strong.attacks:
        by_role.setdefault(entry.role, []).append(entry.attack_id)
    reported = strong.reported
    attacks = {
        "single_step": by_role.get("single_step", []),
        "iterated": [*by_role.get("more_steps", []), *by_role.get("iterated", [])],
        "white_box": [
            reported,
            *(name for name in strong.scored_before if name != reported),
            *(name for role in (*WHITE_BOX, "budget") for name in by_role.get(role, [])),
        ],
        "transfer": by_role.get("transfer", []),
        "noise": by_role.get("noise", []),
        "square": by_role.get("square", []),
        "more_restarts": {name: reported for name in by_role.get("restarts", [])},
        "more_steps": {name: reported for name in by_role.get("more_steps", [])},
    }
    measured: Any = {name: value for name, value in strong.facts.items() if name in Facts.__annotations__}
    return Facts(attacks=attacks, **measured)


def _label(attack_id: str, entry: StrongAttack | None, strong: Strong, scored: Scored) -> str:
    if entry is None:
        result = next((result for result in scored.results if result.attack_id == attack_id), None)
        if result is None or result.steps is None:
            return scored.labels.get(attack_id, attack_id)
        usual = "" if result.budget == strong.budget else f", budget {result.budget:g}"
        return f"PGD, {result.steps} steps, once{usual}"
    budget = f", budget {entry.budget:g}" if entry.role == "budget" else ""
    return f"{entry.name}{budget}"
