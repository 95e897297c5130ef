"""Section about subgroups: AUC by view set, age, density, vendor, lesion and scanner, small groups held back."""

from __future__ import annotations

from typing import Any

from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles
from pipeline.report.sections.scores import Scored, Settings
from pipeline.statistics import CLEAN, patient_facts, rows_of_attack, subgroups

FACTS = ("view", "age", "density", "vendor", "lesion", "scanner")


def subgroups_section(files: RunFiles, scored: Scored, settings: Settings) -> dict[str, Any]:
    """Clean AUC in the groups of every fact that cohort.csv holds."""
    clean = rows_of_attack(scored.test, CLEAN).reset_index()
    n = {"patients": len(clean)}
    if files.cohort is None:
        return section("missing", reason=files.missing["cohort.csv"], n=n, facts=[])
    images = files.cohort[files.cohort["patient_id"].isin(clean["patient_id"])]
    columns = [name for name in FACTS if name in images.columns and images[name].notna().any()]
    if not columns:
        return section("missing", reason=f"cohort.csv has none of {', '.join(FACTS)}", n=n, facts=[])
    found = subgroups(
        clean,
        patient_facts(images, columns),
        resamples=settings.resamples,
        seed=settings.seed,
        confidence=settings.confidence,
    )
    return section(n=n, facts=[entry.to_dict() for entry in found])
