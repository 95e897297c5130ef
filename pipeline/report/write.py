"""Writing report.json, report.html and model_card.md into a run directory, each renamed when it is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline.report.build import build_report
from pipeline.report.model_card import render_model_card
from pipeline.report.page import render_page
from pipeline.report.sections.scores import Settings


def write_report(
    run_dir: Path,
    *,
    within_breast: str = "mean",
    across_breasts: str = "max",
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    compare: Path | None = None,
) -> Path:
    """Write report.json, report.html and model_card.md from the files of a run directory.

    Args:
        run_dir: ``runs/<name>`` with at least scores.csv.
        within_breast: Pooling of the images of a breast, "mean" or "max" (not stated in the paper).
        across_breasts: Pooling of the breasts of a patient, "mean" or "max" (not stated in the paper).
        resamples: Bootstrap resamples of patients.
        seed: Seed of the resamples.
        confidence: Coverage of all intervals, in (0, 1).
        compare: Another run on the same patients, or None.

    Returns:
        Path of report.html.

    Raises:
        ReportError: files that are required and missing, or that cannot be understood.
    """
    run_dir = Path(run_dir)
    settings = Settings(within_breast, across_breasts, resamples, seed, confidence)
    text = json.dumps(build_report(run_dir, settings, compare=compare), indent=1, allow_nan=False, ensure_ascii=False)
    content = json.loads(text)
    page, card = render_page(content, run_dir), render_model_card(content)
    _replace(run_dir / "report.json", text + "\n")
    _replace(run_dir / "model_card.md", card)
    return _replace(run_dir / "report.html", page)


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
