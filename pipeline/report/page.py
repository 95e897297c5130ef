"""Rendering report.html from report.json: every number on the page is looked up by its JSON pointer."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.report import figures, pictures, risk_figures

TEMPLATES = Path(__file__).parent / "templates"

_FORMATS = {
    "int": "{:,d}",
    "auc": "{:.3f}",
    "probability": "{:.3f}",
    "percent": "{:.0%}",
    "percent1": "{:.1%}",
    "logit": "{:+.2f}",
    "budget": "{:g}",
    "one": "{:.1f}",
    "general": "{:.4g}",
    "signed": "{:+.3f}",
    "loss": "{:.4f}",
    "seconds": "{:.2f}",
}


def render_page(report: dict[str, Any], run_dir: Path) -> str:
    """Render the page.

    Args:
        report: Content of report.json.
        run_dir: Folder that the gallery's picture paths start from.

    Returns:
        One self-contained HTML document: no request leaves it.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        at=lambda pointer, kind="text": _shown(report, pointer, kind),
        colour=figures.attack_colour,
        figure=_figures(report),
        picture=lambda scene: pictures.picture_uri(run_dir / scene["picture"]),
        overlay=lambda scene: pictures.overlay_uri(run_dir / scene["picture"], run_dir / scene["saliency"]),
        change=lambda image: pictures.shown_uri(run_dir / image["change"]),
        colour_bar=Markup(pictures.colour_bar()),
        change_bar=Markup(pictures.change_bar()),
    )
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        script=Markup(script),
        # Nothing is fetched, and nothing runs but the script that sorts tables.
        policy=Markup(
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment.get_template("report.html.j2").render(report=report)


def look_up(report: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901)."""
    value = report
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def show(value: Any, kind: str) -> str:
    """A value in the words of the page; a missing one is a dash."""
    if value is None:
        return "–"
    if kind == "text":
        return str(value)
    text = _FORMATS[kind].format(value)
    if text.startswith("-") and not text.strip("-0.%"):
        text = text[1:]  # a negative number that rounds to zero
    return text if kind == "int" else text.replace("-", "−")


def _shown(report: dict[str, Any], pointer: str, kind: str) -> Markup:
    value = look_up(report, pointer)
    return Markup('<span data-at="{}">{}</span>').format(escape(pointer), show(value, kind))


def _figures(report: dict[str, Any]) -> dict[str, list[Markup]]:
    thresholds = report["operating_points"]["thresholds"]
    attacks = thresholds[0]["attacks"] if thresholds else []
    drawn: dict[str, list[str | None]] = {
        "roc": [figures.roc_figure(report["discrimination"]["curves"])],
        "budget": [*figures.budget_figures(report["robustness"]["points"])],
        "operating": [*figures.operating_figures(attacks)] if attacks else [],
        "strong": [risk_figures.strong_figure(report["strong"]["attacks"])],
        "calibration": [risk_figures.calibration_figure(report["calibration"])],
        "decision": [*risk_figures.decision_figures(report["decision_curve"]["curves"])],
        "history": [*figures.history_figures(report["history"]["rows"], report["history"]["columns"])],
    }
    return {name: [Markup(svg) for svg in svgs if svg is not None] for name, svgs in drawn.items()}
