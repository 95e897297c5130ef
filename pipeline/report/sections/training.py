"""Section about the training: losses, feature shares and validation AUCs of every epoch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.report.plain import plain, section
from pipeline.report.run_files import RunFiles

DEAD_LIMIT = 0.95
"""Above this share of channels without a positive position the feature map carries almost nothing."""


def history(files: RunFiles) -> dict[str, Any]:
    """The rows of history.csv as they are, and warnings about dead features."""
    if files.history is None:
        return section("missing", reason=files.missing["history.csv"], columns=[], rows=[], warnings=[])
    if files.history.empty:
        return section("missing", reason="history.csv has no epochs yet", columns=[], rows=[], warnings=[])
    table = files.history
    columns = [str(name) for name in table.columns if table[name].notna().any()]
    rows = [{name: plain(row[name]) for name in columns} for row in table.to_dict("records")]
    return section(n={"epochs": len(rows)}, columns=columns, rows=rows, warnings=_warnings(table))


def _warnings(table: pd.DataFrame) -> list[dict[str, Any]]:
    if "share_dead" not in table.columns:
        return []
    dead = pd.to_numeric(table["share_dead"], errors="coerce")
    over = table.loc[dead > DEAD_LIMIT, "epoch"]
    if over.empty:
        return []
    return [{"kind": "dead features", "limit": DEAD_LIMIT, "highest": float(dead.max()), "epochs": plain(list(over))}]
