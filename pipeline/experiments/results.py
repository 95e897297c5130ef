"""Patient scores of a grid's finished cells, as one table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.experiments.cells import AUXILIARY, Cell, Shelf
from pipeline.statistics import pool_patients

ORACLE = "oracle"
COLUMNS = ("method", "value", "fold", "attack_id", "budget", "patient_id", "patient_label", "logit")


def patient_scores(shelf: Shelf, cells: Iterable[Cell]) -> pd.DataFrame:
    """Pooled test scores, one row per (method, value, fold, attack, patient).

    A method with branches gives three rows of a table: through its main branch, through its auxiliary branch ("dsbn
    (auxiliary branch)"), each attacked through the branch it uses, and "dsbn (oracle, not deployable)", which knows
    whether an image was attacked.
    """
    parts = []
    for cell in cells:
        pooling = json.loads((shelf.directory(cell) / "config.json").read_text(encoding="utf-8"))["pooling"]
        tables = {branch: _pooled(path, pooling) for branch, path in shelf.scores(cell).items()}
        if AUXILIARY in tables:
            clean, attacked = tables[""].query("attack_id == 'clean'"), tables[AUXILIARY].query("attack_id != 'clean'")
            tables[ORACLE] = pd.concat([clean, attacked])
        for branch, table in tables.items():
            suffix = {"": "", AUXILIARY: " (auxiliary branch)", ORACLE: " (oracle, not deployable)"}[branch]
            parts.append(table.assign(method=cell.variant.name + suffix, value=cell.value, fold=cell.fold))
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _pooled(path: Path, pooling: dict[str, str]) -> pd.DataFrame:
    text = {name: str for name in ("patient_id", "image_id", "laterality", "attack_id", "partition")}
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"label": [""]})
    table = table[table["partition"] == "test"]
    return pool_patients(table, **pooling)  # type: ignore[arg-type]
