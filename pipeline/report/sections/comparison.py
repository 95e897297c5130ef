"""Section that compares this run with another one on the same patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.errors import ReportError
from pipeline.report.plain import section
from pipeline.report.run_files import read_run
from pipeline.report.sections.overview import trained
from pipeline.report.sections.scores import Scored, Settings, score_patients
from pipeline.statistics import compare_runs


def comparison_section(
    scored: Scored, other: Path | None, settings: Settings, *, own: Path | None = None
) -> dict[str, Any]:
    """Paired differences of AUC and of calls, this run minus the other one.

    Args:
        scored: This run.
        other: Directory of the other run, or None.
        settings: As for the rest of the report.
        own: Directory of this run.

    Raises:
        ReportError: the other run is this one.
    """
    empty: dict[str, Any] = {"other": None, "method": None, "counts": {}, "attacks": [], "left_out": []}
    if other is None:
        return section("missing", reason="no other run was named (report RUN --compare RUN2)", **empty)
    if own is not None and other.resolve() == own.resolve():
        raise ReportError(f"{other} is compared with itself; name another run on the same patients")
    files = read_run(other)
    theirs = score_patients(files, settings)
    about: dict[str, Any] = {"other": other.resolve().name, "method": trained(files)}
    thresholds = (theirs.thresholds[0].value, scored.thresholds[0].value)
    frozen = None if None in thresholds else thresholds
    try:
        found = compare_runs(
            theirs.test,
            scored.test,
            thresholds=frozen,  # type: ignore[arg-type]
            resamples=settings.resamples,
            seed=settings.seed,
            confidence=settings.confidence,
        ).to_dict()
    except ValueError as error:
        return section("not_estimable", reason=str(error), **empty | about)
    clean = scored.results[0]
    left_out = [{"attack_id": name, "reason": reason} for name, reason in found["left_out"].items()]
    for entry in found["attacks"]:
        entry["label"] = scored.labels.get(entry["attack_id"], entry["attack_id"])
    n = {"patients": clean.patients, "malignant": clean.auc.n_positive, "benign": clean.auc.n_negative}
    counts = _counts(found["attacks"], alpha=1 - settings.confidence)
    return section(n=n, **about, counts=counts, attacks=found["attacks"], left_out=left_out)


def _counts(attacks: list[dict[str, Any]], *, alpha: float) -> dict[str, int]:
    """Under how many attacks this run is better, worse, or the difference may be chance, after Holm's correction."""
    signs = [
        (entry["difference"]["value"] > 0) - (entry["difference"]["value"] < 0)
        if entry["p_holm"] is not None and entry["p_holm"] < alpha
        else 0
        for entry in attacks
    ]
    return {"better": signs.count(1), "worse": signs.count(-1), "open": signs.count(0)}
