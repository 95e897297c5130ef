"""The columns of a manifest: their names, their meaning and what a cell may hold, as a pandera schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

import pandas as pd
import pandera.pandas as pa

from pipeline.imaging import Laterality, View

PARTITIONS = ("training", "validation", "test")
LATERALITIES = tuple(side.value for side in Laterality)
VIEWS = tuple(view.value for view in View)
OLDEST = 120  # years; older than any person recorded, so a larger number is a slip (a birth year, months)


@dataclass(frozen=True)
class Column:
    """One column of a manifest.

    Args:
        name: header of the column.
        required: whether every manifest has the column.
        meaning: what a cell says.
        allowed: what a cell may hold, in words; error messages quote it.
        checks: pandera checks on the text of a cell.
    """

    name: str
    required: bool
    meaning: str
    allowed: str
    checks: tuple[pa.Check, ...] = ()


def _inside_root(cell: str) -> bool:
    """Whether a path stays below the data root as written (links are followed later, in manifest.py)."""
    path = PurePosixPath(cell)
    windows = PureWindowsPath(cell)
    rooted = path.is_absolute() or bool(windows.drive) or bool(windows.root)
    return not rooted and ".." not in path.parts and "\\" not in cell and "\0" not in cell


def _age(cell: str) -> bool:
    if cell == "":
        return True
    try:
        return 0 <= float(cell) <= OLDEST  # a comparison with NaN is False
    except ValueError:
        return False


def _filled(name: str) -> pa.Check:
    return pa.Check(lambda cell: cell != "", element_wise=True, name=f"{name}_filled", error="is empty")


def _one_of(values: tuple[str, ...]) -> pa.Check:
    allowed = ", ".join(value or "empty" for value in values)
    return pa.Check.isin(values, error=f"is not in the vocabulary ({allowed})")


BINARY = ("0", "1", "0.0", "1.0")  # "1.0" is how pandas writes a 1 in a column with empty cells

COLUMNS: tuple[Column, ...] = (
    Column(
        "image",
        True,
        "file of the image",
        "a relative path with / below the data root",
        (
            _filled("image"),
            pa.Check(
                _inside_root, element_wise=True, error="lies outside the data root (absolute, '..' or a backslash)"
            ),
        ),
    ),
    Column("patient_id", True, "pseudonym of the patient", "any text; never the DICOM PatientID", (_filled("id"),)),
    Column("laterality", True, "side of the breast", ", ".join(LATERALITIES), (_one_of(LATERALITIES),)),
    Column("view", True, "view position", ", ".join(VIEWS), (_one_of(VIEWS),)),
    Column(
        "label",
        True,
        "the breast: 1 malignant, 0 benign or negative, empty unknown",
        "0, 1 or empty",
        (pa.Check.isin((*BINARY, ""), error="is not 0, 1 or empty"),),
    ),
    Column(
        "patient_label",
        True,
        "the patient: 1 if any breast is malignant, else 0",
        "0 or 1",
        (pa.Check.isin(BINARY, error="is empty or not 0 or 1"),),
    ),
    Column("group_id", False, "patients that must stay together", "any text; empty means patient_id"),
    Column("study_id", False, "pseudonym of the examination", "any text or empty"),
    Column(
        "age",
        False,
        "age in years at the examination",
        f"a number from 0 to {OLDEST} or empty",
        (pa.Check(_age, element_wise=True, error=f"is not a number from 0 to {OLDEST}"),),
    ),
    Column("density", False, "breast density as reported", "any text or empty"),
    Column("vendor", False, "maker or model of the device", "any text or empty"),
    Column("lesion", False, "kind of finding", "any text or empty"),
    Column(
        "partition",
        False,
        "a fixed split that overrides folds",
        "in every row or in none: " + ", ".join(PARTITIONS),
        (_one_of((*PARTITIONS, "")),),
    ),
)
REQUIRED = tuple(column.name for column in COLUMNS if column.required)
ALLOWED = tuple(column.name for column in COLUMNS)
OPTIONAL = tuple(name for name in ALLOWED if name not in REQUIRED)

NO_BLANKS = pa.Check(
    lambda cell: cell == cell.strip(), element_wise=True, error="has blanks around it: 'P1 ' would be another patient"
)


def cell_schema(present: list[str]) -> pa.DataFrameSchema:
    """Build the schema of the cells, as text, of the columns that are present.

    Args:
        present: names of the columns in the file, all of them in ``ALLOWED``.

    Returns:
        A schema to be validated with ``lazy=True``, so that every bad cell is found.
    """
    columns = {
        column.name: pa.Column(str, checks=[NO_BLANKS, *column.checks], nullable=False)
        for column in COLUMNS
        if column.name in present
    }
    return pa.DataFrameSchema(columns, strict=True, name="manifest")


def bad_cells(text: pd.DataFrame) -> pd.DataFrame:
    """Find every cell that breaks the rule of its column.

    Args:
        text: the manifest as text, one row per image, empty cells as "".

    Returns:
        One row per problem with ``index`` (label in ``text``), ``column`` and ``problem``.
    """
    try:
        cell_schema(list(text.columns)).validate(text, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        found = pd.DataFrame({"index": cases["index"], "column": cases["column"], "problem": cases["check"]})
        return found.drop_duplicates().reset_index(drop=True)
    return pd.DataFrame({"index": [], "column": [], "problem": []})
