"""Building report.json: every section from the files of a run directory, figures from pipeline.statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.plain import plain
from pipeline.report.run_files import RunFiles, read_run
from pipeline.report.sections.certified import certified_section
from pipeline.report.sections.cohort import cohort, flow
from pipeline.report.sections.comparison import comparison_section
from pipeline.report.sections.dicom_attack import dicom_attack_section
from pipeline.report.sections.gallery import gallery
from pipeline.report.sections.groups import subgroups_section
from pipeline.report.sections.overview import overview
from pipeline.report.sections.reproducibility import reproducibility
from pipeline.report.sections.risk import calibration_section, decision_section
from pipeline.report.sections.scores import (
    Settings,
    discrimination,
    flips_section,
    operating_points,
    patients,
    robustness_section,
    score_patients,
)
from pipeline.report.sections.strong import gates_section, strong_section
from pipeline.report.sections.training import history

SCHEMA = {"name": "arfl-report", "version": "2.2"}
"""Changes of meaning or removals raise the first number, additions the second; see schema.json."""

NOTICE = "Research use only, not for diagnosis"


def build_report(run_dir: Path, settings: Settings | None = None, *, compare: Path | None = None) -> dict[str, Any]:
    """Build the content of report.json from a run directory.

    Args:
        run_dir: ``runs/<name>`` with at least scores.csv.
        settings: Pooling, resamples, seed and confidence; the defaults of ``Settings`` when None.
        compare: Another run on the same patients, or None.

    Returns:
        JSON values only; one entry per section beside ``schema``, ``run`` and ``notice``.

    Raises:
        ReportError: files that are required and missing, or that cannot be understood.
    """
    files: RunFiles = read_run(run_dir)
    settings = settings or Settings()
    scored = score_patients(files, settings)
    cohort_entry = cohort(files)
    strong, gates = strong_section(files, scored, settings), gates_section(files, settings)
    report = {
        "schema": SCHEMA,
        "run": run_dir.resolve().name,
        "notice": NOTICE,
        "overview": overview(files, scored, cohort_entry, strong, gates),
        "flow": flow(files),
        "cohort": cohort_entry,
        "discrimination": discrimination(scored, settings),
        "robustness": robustness_section(scored),
        "strong": strong,
        "gates": gates,
        "certified": certified_section(files),
        "operating_points": operating_points(scored, settings),
        "flips": flips_section(scored, settings),
        "calibration": calibration_section(scored, settings),
        "decision_curve": decision_section(scored, settings),
        "subgroups": subgroups_section(files, scored, settings),
        "comparison": comparison_section(scored, compare, settings, own=run_dir),
        "dicom_attack": dicom_attack_section(files),
        "history": history(files),
        "gallery": gallery(files, scored.labels),
        "patients": patients(scored),
        "reproducibility": reproducibility(files, settings),
    }
    return dict(plain(report))
