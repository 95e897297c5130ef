"""The ledger of a preparation: one row per image of the manifest, done or refused, written while the run goes on."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.cohort.workers import Outcome

LEDGER = "ledger.csv"
COLUMNS = ("image", "patient_id", "code", "reason", "prepared", "seconds")
"""``prepared`` is the key of the picture (<first two characters>/<key>.nii in the store), empty for a refused image;
``code`` and ``reason`` are empty for a prepared one; ``seconds`` is what the image took when it was prepared."""

Row = tuple[str, str, str, str, str, float]


class Ledger:
    """A CSV file with the columns ``COLUMNS``.

    Rows are appended a batch at a time, in one write each; the beginning and the end are written under a temporary name
    and renamed. A run that is killed leaves whole rows, and at most one broken line at the end.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._seconds = _known_seconds(self.path)

    def begin(self, rows: Iterable[tuple[str, str, Outcome]]) -> None:
        """Write the rows (image, patient_id, outcome) that are known before the run."""
        self._write([self._row(*row) for row in rows])

    def append(self, rows: Iterable[tuple[str, str, Outcome]]) -> None:
        """Add the rows of a batch."""
        with self.path.open("ab", buffering=0) as stream:
            stream.write(_text([self._row(*row) for row in rows]))

    def finish(self, rows: Iterable[tuple[str, str, Outcome]]) -> None:
        """Write all rows in the order of the manifest."""
        self._write([self._row(*row) for row in rows])

    def _row(self, image: str, patient_id: str, outcome: Outcome) -> Row:
        key = (image, outcome.prepared or outcome.code)
        if outcome.seconds:
            self._seconds[key] = outcome.seconds
        seconds = self._seconds.get(key, 0.0)
        reason = " ".join(outcome.reason.split())  # one line, so that a broken one is seen
        return image, patient_id, outcome.code, reason, outcome.prepared, seconds

    def _write(self, rows: list[Row]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        with os.fdopen(handle, "wb") as stream:
            stream.write(_text([COLUMNS, *rows]))
        os.chmod(name, 0o644)
        os.replace(name, self.path)


def read_ledger(path: str | Path) -> pd.DataFrame:
    """Read a ledger, also one of a run that was killed: a last line without its end is left out.

    Returns:
        The columns ``COLUMNS``; text, and ``seconds`` as float.
    """
    content = Path(path).read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    texts = {name: str for name in COLUMNS if name != "seconds"}
    return pd.read_csv(io.BytesIO(whole), dtype=texts, keep_default_na=False)


def _known_seconds(path: Path) -> dict[tuple[str, str], float]:
    """What images took in earlier runs, by image and key or code; nothing where there is no readable ledger."""
    try:
        table = read_ledger(path)
        outcomes = table["prepared"].where(table["prepared"] != "", table["code"])
        rows = zip(table["image"], outcomes, table["seconds"], strict=True)
        return {(image, outcome): float(seconds) for image, outcome, seconds in rows}
    except (OSError, ValueError, KeyError):
        return {}


def _text(rows: Iterable[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")
