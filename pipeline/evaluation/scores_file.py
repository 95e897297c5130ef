"""scores.csv of a run: columns, writing, reading, and the seeds of images under attack."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

COLUMNS = (
    "image_id", "patient_id", "study_id", "laterality", "view", "partition", "fold", "label", "patient_label",
    "attack_id", "norm", "budget", "steps", "restarts", "logit",
)  # fmt: skip
TEXT = ("image_id", "patient_id", "study_id", "laterality", "view", "partition", "attack_id", "norm")


def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write scores.csv under a temporary name, then rename; nine digits keep float32 exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    table.to_csv(temporary, index=False, float_format="%.9g")
    temporary.replace(path)


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores.csv; ids stay text whatever they look like, and only an empty label is unknown."""
    return pd.read_csv(
        path, dtype={name: str for name in TEXT}, keep_default_na=False, na_values={"label": [""], "fold": [""]}
    )


def image_seed(seed: int, purpose: str, image_id: str) -> int:
    """Seed of an image's noise for one purpose: a function of the run's seed and the image's id alone."""
    text = f"{seed}\x1f{purpose}\x1f{image_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
