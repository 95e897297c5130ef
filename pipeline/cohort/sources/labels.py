"""A table of labels of any hospital: which columns say who, which side and what, and how words become 1 and 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.errors import CohortError
from pipeline.cohort.sources.cbis import cbis_patient
from pipeline.cohort.sources.tables import LINE, need_columns, plural, read_table

FILE_NAME = "FileName"
IMAGE_IDS = ("SOPInstanceUID", FILE_NAME)
IDS = ("PatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", *IMAGE_IDS)
SIDES = {"l": "L", "left": "L", "r": "R", "right": "R", "": ""}
TABLE, SIDE, VIEW, LABEL, PATIENT = "table", "side", "view", "label", "patient"
FEW = 5  # lines named in a message


@dataclass(frozen=True)
class LabelColumns:
    """What the columns of a label table hold, and what its words mean.

    Args:
        ids: column -> what it holds, one of ``IDS``; a row belongs to the files that agree in all of them.
        label: column of the label.
        malignant: words that mean 1; case and blanks around them do not matter.
        benign: words that mean 0.
        unknown: words that mean unknown; an empty cell always does.
        side: column of the side (L, left, R, right; empty: the row does not say it).
        view: column of the view, for files whose tags lack it; only with ids of single images.
        patient: column that tells the patients apart, for files without PatientID; only with ids of single images.

    Raises:
        CohortError: settings that contradict each other or are not allowed.
    """

    ids: dict[str, str]
    label: str
    malignant: tuple[str, ...]
    benign: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    side: str | None = None
    view: str | None = None
    patient: str | None = None

    def __post_init__(self) -> None:
        strange = sorted(set(self.ids.values()) - set(IDS))
        if not self.ids or strange:
            raise CohortError(
                f"--id-columns: {', '.join(strange) or 'none given'}; name the columns as COLUMN=KEYWORD, a keyword "
                f"of {', '.join(IDS)} (a column that is called like its keyword needs no '=')"
            )
        if len(set(self.ids.values())) < len(self.ids):
            raise CohortError("--id-columns: two columns hold the same keyword; name one")
        if not self.malignant or not self.benign:
            raise CohortError("--malignant and --benign: give the words of the label column that mean each")
        meanings = [
            word for words in (self.malignant, self.benign, self.unknown) for word in {_plain(w) for w in words}
        ]
        twice = sorted({word for word in meanings if meanings.count(word) > 1})
        if twice:
            raise CohortError(f"{', '.join(twice)}: stands in two of --malignant, --benign, --unknown")
        if (self.view or self.patient) and not self.per_image:
            raise CohortError(
                f"--view-column and --patient-column need an id of single images: {' or '.join(IMAGE_IDS)}"
            )

    @property
    def per_image(self) -> bool:
        """Whether a row is about one image."""
        return any(keyword in IMAGE_IDS for keyword in self.ids.values())


def read_labels(paths: list[Path], columns: LabelColumns) -> pd.DataFrame:
    """Read tables of labels and stack them.

    Args:
        paths: CSV or XLSX files with the same columns.
        columns: what the columns hold.

    Returns:
        One row per row: the id columns under their keywords (ids of CBIS-DDSM as its patient), ``side`` (L, R, ""),
        ``view``, ``patient``, ``label`` (1.0, 0.0, NaN unknown), ``table`` (number of the file, from 1) and ``LINE``.

    Raises:
        CohortError: a table is missing or lacks columns, or holds a word that no option explains; the message names
            lines and never a cell, which might be a name.
    """
    tables = []
    for number, path in enumerate(paths, start=1):
        cells = read_table(path, option="--labels")
        named = [*columns.ids, columns.label, *(name for name in (columns.side, columns.view, columns.patient) if name)]
        need_columns(cells, named, option=f"--labels (table {number})")
        table = pd.DataFrame({keyword: cells[name] for name, keyword in columns.ids.items()})
        if "PatientID" in table:
            table["PatientID"] = table["PatientID"].map(lambda text: cbis_patient(text) or text)
        sides = cells[columns.side].map(lambda text: SIDES.get(_plain(text))) if columns.side else ""
        _refuse(
            cells,
            pd.Series(sides, index=cells.index).isna(),
            number,
            "side",
            "allowed are L, R, left, right or empty (both breasts: two rows)",
        )
        table[SIDE] = sides
        table[VIEW] = cells[columns.view] if columns.view else ""
        table[PATIENT] = cells[columns.patient] if columns.patient else ""
        table[LABEL] = _labels(cells, columns, number)
        tables.append(table.assign(**{TABLE: number, LINE: cells[LINE]}))
    return pd.concat(tables, ignore_index=True)


def _labels(cells: pd.DataFrame, columns: LabelColumns, number: int) -> pd.Series:
    meaning = {"": np.nan}
    for words, value in ((columns.malignant, 1.0), (columns.benign, 0.0), (columns.unknown, np.nan)):
        meaning |= {_plain(word): value for word in words}
    words = cells[columns.label].map(_plain)
    allowed = "--malignant, --benign and --unknown take the words that your table uses; what stands there is in none"
    _refuse(cells, ~words.isin(list(meaning)), number, "label", allowed)
    return words.map(meaning).astype(np.float64)


def _refuse(cells: pd.DataFrame, wrong: pd.Series, number: int, what: str, allowed: str) -> None:
    if wrong.any():
        lines = cells.loc[wrong, LINE].tolist()
        more = f" and {len(lines) - FEW} more" if len(lines) > FEW else ""
        where = f"{plural('line', lines)} {', '.join(map(str, lines[:FEW]))}{more}"
        raise CohortError(f"--labels (table {number}): the {what} in {where} cannot be used: {allowed}")


def _plain(word: str) -> str:
    return word.strip().casefold()
