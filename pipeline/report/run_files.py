"""Reading a run directory: the files that a report is made from, checked, with the reason for each one missing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report.errors import ReportError
from pipeline.report.measured import Certified, DicomAttack, Layout, Strong, measured
from pipeline.report.paths import short_paths

SCORE_COLUMNS = (
    "image_id",
    "patient_id",
    "laterality",
    "view",
    "partition",
    "fold",
    "label",
    "patient_label",
    "attack_id",
    "norm",
    "budget",
    "steps",
    "restarts",
    "logit",
)
COHORT_COLUMNS = ("image_id", "patient_id", "laterality", "view", "patient_label", "partition")
REJECT_COLUMNS = ("image", "patient_id", "code", "reason")

_TEXT = dict.fromkeys(
    ["image_id", "image", "patient_id", "laterality", "view", "partition", "attack_id", "norm", "code", "reason"]
    + ["density", "vendor", "lesion"],
    "string",
)


EXTRAS = ("artefacts/strong.json", "artefacts/certified.json", "artefacts/dicom_attack.json")
NOT_RUN = ": this part was not run (effort none leaves it out); bundles/arfl/evaluate.json runs it on the checkpoint"


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds; optional files are None, with the reason under their name in ``missing``."""

    directory: Path
    scores: pd.DataFrame
    cohort: pd.DataFrame | None
    rejects: pd.DataFrame | None
    history: pd.DataFrame | None
    flow: list[dict[str, Any]] | None
    gallery: dict[str, Any] | None
    strong: Strong | None
    certified: Certified | None
    dicom_attack: DicomAttack | None
    config: dict[str, Any] | None
    provenance: dict[str, Any] | None
    missing: dict[str, str] = field(default_factory=dict)


def read_run(directory: Path) -> RunFiles:
    """Read the files of a run directory.

    Args:
        directory: ``runs/<name>``; scores.csv is required, everything else is optional.

    Returns:
        The files, with reasons for those that are missing.

    Raises:
        ReportError: no directory, no scores.csv, or a file that cannot be understood.
    """
    if not directory.is_dir():
        raise ReportError(f"{directory} is not a directory; pass a run directory such as runs/demo")
    if not (directory / "scores.csv").is_file():
        raise ReportError(
            f"scores.csv is missing in {directory}: a report needs the scores of validation and test patients; "
            "let the training finish, or score its checkpoint with bundles/arfl/evaluate.json, then make the report"
        )
    missing: dict[str, str] = {}
    scores = _table(directory, "scores.csv", SCORE_COLUMNS)
    return RunFiles(
        directory=directory,
        scores=_checked_scores(scores, directory),
        cohort=_optional_table(directory, "cohort.csv", COHORT_COLUMNS, missing),
        rejects=_optional_table(directory, "rejects.csv", REJECT_COLUMNS, missing),
        history=_optional_table(directory, "history.csv", ("epoch",), missing),
        flow=_optional_json(directory, "flow.json", list, missing),
        gallery=_optional_json(directory, "artefacts/gallery.json", dict, missing),
        strong=_measured(directory, "artefacts/strong.json", Strong, missing),
        certified=_measured(directory, "artefacts/certified.json", Certified, missing),
        dicom_attack=_measured(directory, "artefacts/dicom_attack.json", DicomAttack, missing),
        config=_optional_json(directory, "config.json", dict, missing),
        provenance=_optional_json(directory, "provenance.json", dict, missing),
        missing=missing,
    )


def _checked_scores(scores: pd.DataFrame, directory: Path) -> pd.DataFrame:
    where = directory / "scores.csv"
    if not (scores["partition"] == "test").any():
        raise ReportError(f"{where} holds no rows with partition 'test'; score the test patients, then report again")
    folds = sorted(scores["fold"].dropna().unique())
    if len(folds) > 1:
        named = ", ".join(str(fold) for fold in folds)
        raise ReportError(
            f"{where} mixes the folds {named}; a report is about one run on one fold, "
            "because the scores of different networks do not share a scale"
        )
    return scores


def _table(directory: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    path = directory / name
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"], float_precision="round_trip",
                            dtype=_TEXT)  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not a readable CSV table ({error}); write it again") from error
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise ReportError(f"{path} lacks the columns {', '.join(lacking)}; it needs {', '.join(columns)}")
    for column in ("logit", "budget"):
        if column in columns and not pd.api.types.is_numeric_dtype(table[column]):
            bad = table.loc[pd.to_numeric(table[column], errors="coerce").isna(), column].iloc[0]
            raise ReportError(f"{path} holds {bad!r} under {column}; allowed are numbers")
    return table


def _optional_table(
    directory: Path, name: str, columns: tuple[str, ...], missing: dict[str, str]
) -> pd.DataFrame | None:
    if not (directory / name).is_file():
        missing[name] = f"{name} is not in the run directory"
        return None
    return _table(directory, name, columns)


def _optional_json(directory: Path, name: str, kind: type, missing: dict[str, str]) -> Any:
    path = directory / name
    if not path.is_file():
        missing[name] = f"{name} is not in the run directory" + (NOT_RUN if name in EXTRAS else "")
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not readable JSON ({error}); write it again or remove it") from error
    if isinstance(content, dict) and "failed" in content:
        missing[name] = f"it could not be measured: {short_paths(str(content['failed']))}"
        return None
    if not isinstance(content, kind):
        raise ReportError(f"{path} holds a {type(content).__name__}; allowed is a {kind.__name__}")
    return content


def _measured(directory: Path, name: str, layout: type[Layout], missing: dict[str, str]) -> Layout | None:
    content = _optional_json(directory, name, dict, missing)
    return None if content is None else measured(content, layout, path=directory / name)
