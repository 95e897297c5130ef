"""Tables that come with images (labels, clinical data): CSV or XLSX read as text, with the line of each row."""

from __future__ import annotations

import zipfile
from collections.abc import Sized
from pathlib import Path

import pandas as pd

from pipeline.cohort.errors import CohortError

LINE = "line in the table"  # a name with blanks, which no option can clash with by accident


def read_table(path: str | Path, *, option: str) -> pd.DataFrame:
    """Read a table as text; blanks around headers and cells are cut, empty rows left out.

    Args:
        path: ``.csv`` (UTF-8; comma, semicolon or tab between cells) or ``.xlsx`` (first sheet).
        option: option of the command that gave the path, for the message.

    Returns:
        The cells as text, "" where empty, and the column ``LINE``: the row's line in the file (the header is line 1).

    Raises:
        CohortError: the file is missing, no such table, has repeated columns or no rows.
    """
    source = Path(path)
    if not source.is_file():
        raise CohortError(f"{option}: {source} does not exist; give a CSV or XLSX file")
    try:
        if source.suffix.lower() == ".xlsx":
            raw = pd.read_excel(source, header=None, dtype="str", keep_default_na=False, na_filter=False)
        elif source.suffix.lower() in (".csv", ".tsv", ".txt"):
            raw = _read_text(source)
        else:
            raise CohortError(f"{option}: {source.name} must end in .csv or .xlsx; save the table in one of these")
    except ImportError as error:
        raise CohortError(f"{option}: reading XLSX needs openpyxl; pip install openpyxl, or save as CSV") from error
    except UnicodeDecodeError as error:
        raise CohortError(f"{option}: {source.name} is not UTF-8 text; save it as CSV UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, zipfile.BadZipFile, ValueError, KeyError) as error:
        if isinstance(error, CohortError):
            raise
        raise CohortError(f"{option}: {source.name} is no readable table; save it again as CSV UTF-8 or XLSX") from None
    cells = raw.fillna("").map(lambda cell: str(cell).strip())
    if len(cells) < 2:
        raise CohortError(f"{option}: {source.name} has no rows below its header")
    header = cells.iloc[0].tolist()
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise CohortError(f"{option}: {source.name} has {len(repeated)} columns whose name stands there twice")
    rows = cells.iloc[1:].set_axis(header, axis=1)
    rows = rows.loc[:, [name for name in header if name]]
    filled = (rows != "").any(axis=1)
    return rows.assign(**{LINE: rows.index + 1})[filled].reset_index(drop=True)


def _read_text(source: Path) -> pd.DataFrame:
    with source.open(encoding="utf-8-sig") as stream:
        header = stream.readline()
    separator = max(",;\t", key=header.count)
    return pd.read_csv(
        source,
        header=None,
        sep=separator,
        dtype="str",
        keep_default_na=False,
        na_filter=False,
        encoding="utf-8-sig",
        skip_blank_lines=False,
    )


def need_columns(table: pd.DataFrame, columns: list[str], *, option: str) -> None:
    """Raise when a table lacks columns.

    Raises:
        CohortError: with the columns that are missing. Those that are there are not named, unless they differ in case
            only: a table without a header has a person's cells in their place.
    """
    missing = [name for name in columns if name not in table]
    if missing:
        known = {str(name).casefold(): str(name) for name in table}
        alike = [known[name.casefold()] for name in missing if name.casefold() in known]
        raise CohortError(
            f"{option}: the table lacks the {plural('column', missing)} {', '.join(missing)}"
            + (f" (differs only in case: {', '.join(alike)})" if alike else "")
            + f"; its first line must be the header (read as {len(table.columns) - 1} columns)"
        )


def plural(word: str, things: Sized) -> str:
    """The word, with an s unless there is one thing."""
    return word if len(things) == 1 else f"{word}s"
