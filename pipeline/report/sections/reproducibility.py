"""Section for repeating the run: command, configuration, versions, seeds, digests and duration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.report.paths import short_paths
from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles
from pipeline.report.sections.scores import Settings

_TABLES = ("seeds", "versions", "digests")


def reproducibility(files: RunFiles, settings: Settings) -> dict[str, Any]:
    """Provenance as rows of name and value, and the resolved configuration as it is."""
    content: dict[str, Any] = {
        "statistics": asdict(settings),
        "config": short_paths(files.config),
        "config_reason": files.missing.get("config.json"),
    }
    if files.provenance is None:
        tables: dict[str, Any] = {name: [] for name in ("facts", *_TABLES)}
        return section("missing", reason=files.missing["provenance.json"], **tables, **content)
    facts = {name: value for name, value in files.provenance.items() if name not in (*_TABLES, "training")}
    tables = {name: _rows(files.provenance.get(name) or {}) for name in _TABLES}
    return section(facts=_rows(short_paths(facts)), **tables, **content)


def _rows(values: dict[str, Any], above: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, value in values.items():
        label = f"{above}{name}".replace("_", " ")
        if isinstance(value, dict):
            rows += _rows(value, f"{label}: ")
        elif isinstance(value, list):
            rows.append({"name": label, "value": " ".join(map(str, value))})
        else:
            rows.append({"name": label, "value": value})
    return rows
