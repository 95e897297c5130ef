"""The model card of a run, in Markdown, filled from report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def render_model_card(report: dict[str, Any]) -> str:
    """Render the card (Mitchell et al. 2019, "Model Cards for Model Reporting").

    Args:
        report: Content of report.json.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("model_card.md.j2").render(report=_escaped(report))


def _escaped(value: Any) -> Any:
    """Texts without what Markdown would read as structure or a page as markup."""
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return _cell(value) if isinstance(value, str) else value


def _cell(text: str) -> str:
    for character, instead in (("\n", " "), ("|", "\\|"), ("`", "'"), ("<", "&lt;")):
        text = text.replace(character, instead)
    return text
