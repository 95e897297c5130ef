"""Base of the handlers that measure more than the scores: a failure of theirs is written down and ends nothing."""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from ignite.engine import Engine, Events

from pipeline.statistics import CLEAN, freeze_threshold, pool_patients

logger = logging.getLogger(__name__)


class EvaluationError(RuntimeError):
    """Parts of an evaluation failed, while its scores and its report are written."""


class Extra(ABC):
    """Handler of a test evaluator that writes one file of `artefacts/`.

    The scores stand in their file before an extra runs. One that fails leaves `{"failed": reason}` in its file, from
    which the report says what is missing, and the evaluation goes on; :func:`require_extras` fails the run at its end.

    Args:
        run_directory: an object with `path`.
    """

    file = ""

    def __init__(self, run_directory: Any) -> None:
        self.run_directory = run_directory

    @property
    def wanted(self) -> bool:
        """Whether there is anything to measure."""
        return True

    @abstractmethod
    def measure(self) -> None:
        """Measure and write the file."""

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.run_directory.path) / self.file

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0 or not self.wanted:
            return
        try:
            self.measure()
        except Exception as error:  # out of memory, say, in the last of many attacks
            logger.exception("%s failed; the run goes on without %s", type(self).__name__, self.file)
            write_json({"failed": f"{type(error).__name__}: {error}"}, self.path)


def require_extras(directory: str | Path) -> None:
    """End a run with an error if one of its extras failed; call it after the report.

    Args:
        directory: the run directory.

    Raises:
        EvaluationError: names the files and the reasons.
    """
    failed = []
    for path in sorted((Path(directory) / "artefacts").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "failed" in content:
            failed.append(f"{path.name}: {content['failed']}")
    if failed:
        raise EvaluationError(
            f"scores and report are written, but parts of the evaluation failed ({'; '.join(failed)}); "
            "evaluate the checkpoint again, with a smaller effort where memory was short"
        )


def frozen_threshold(
    table: pd.DataFrame, *, within_breast: Literal["mean", "max"], across_breasts: Literal["mean", "max"]
) -> float | None:
    """Patient's logit at which clean validation patients reach a sensitivity of 0.9; None without such patients.

    Args:
        table: rows of scores.csv.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """
    rows = table[(table["partition"] == "validation") & (table["attack_id"] == CLEAN)]
    if rows.empty:
        return None
    pooled = pool_patients(rows, within_breast=within_breast, across_breasts=across_breasts)
    return freeze_threshold(pooled["patient_label"].to_numpy(), pooled["logit"].to_numpy()).value


def write_json(content: Any, path: Path) -> None:
    """Write JSON under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    temporary.replace(path)
