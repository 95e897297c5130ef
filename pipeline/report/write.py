"""Writing report.json, report.html and model_card.md into a run directory, each renamed when it is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.report.build import build_report
from pipeline.report.errors import ReportError
from pipeline.report.model_card import render_model_card
from pipeline.report.page import render_page
from pipeline.report.run_files import EXTRAS
from pipeline.report.sections.scores import Settings

POOLING = ("within_breast", "across_breasts")


def write_report(
    run_dir: Path,
    *,
    within_breast: str | None = None,
    across_breasts: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    compare: Path | None = None,
) -> Path:
    """Write report.json, report.html and model_card.md from the files of a run directory.

    Args:
        run_dir: ``runs/<name>`` with at least scores.csv.
        within_breast: Pooling of the images of a breast, "mean" or "max" (not stated in the paper); None takes the
            run's, from its provenance.json or config.json, or "mean".
        across_breasts: Pooling of the breasts of a patient, "mean" or "max" (not stated in the paper); None takes the
            run's, or "max".
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
    own = pooling_of(run_dir)
    settings = Settings(
        within_breast or own.get("within_breast") or Settings.within_breast,
        across_breasts or own.get("across_breasts") or Settings.across_breasts,
        resamples,
        seed,
        confidence,
    )
    _refuse_other_pooling(run_dir, own, settings)
    text = json.dumps(build_report(run_dir, settings, compare=compare), indent=1, allow_nan=False, ensure_ascii=False)
    content = json.loads(text)
    page, card = render_page(content, run_dir), render_model_card(content)
    _replace(run_dir / "report.json", text + "\n")
    _replace(run_dir / "model_card.md", card)
    return _replace(run_dir / "report.html", page)


def pooling_of(run_dir: Path) -> dict[str, Any]:
    """The pooling that a run was measured with, from provenance.json or config.json; empty where they do not say."""
    for name in ("provenance.json", "config.json"):
        path = run_dir / name
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue  # `read_run` says what is wrong with it
        pooling = found.get("pooling") if isinstance(found, dict) else None
        if isinstance(pooling, dict):
            return pooling
    return {}


def _refuse_other_pooling(run_dir: Path, own: dict[str, Any], settings: Settings) -> None:
    measured = [Path(name).name for name in EXTRAS if (run_dir / name).is_file()]
    for name in POOLING:
        wanted = getattr(settings, name)
        if measured and own.get(name) not in (None, wanted):
            raise ReportError(
                f"{run_dir}: {name} is {wanted!r}, but {', '.join(measured)} were measured with {own[name]!r}; leave "
                "the option out, or evaluate the checkpoint with that pooling"
            )


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
