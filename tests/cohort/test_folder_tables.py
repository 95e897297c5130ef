"""Facts about tables of labels: what is written is read, as text, from CSV of any separator and from XLSX."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cohort import CohortError
from pipeline.cohort.sources.tables import LINE, need_columns, read_table

cell = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=5), separator=st.sampled_from(",;\t"))
def test_cells_come_back_as_text_with_their_lines(
    rows: list[tuple[str, ...]], separator: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=separator).writerows([("id", "side", "result"), *rows])
    wanted = [[text.strip() for text in row] for row in rows]
    filled = [(line, row) for line, row in enumerate(wanted, start=2) if any(row)]
    if not filled:
        assert read_table(path, option="--labels").empty
        return
    table = read_table(path, option="--labels")
    assert table[["id", "side", "result"]].to_numpy().tolist() == [row for _, row in filled]
    assert table[LINE].tolist() == [line for line, _ in filled]


def test_numbers_of_a_spreadsheet_stay_whole_and_text_keeps_its_zeros(tmp_path: Path) -> None:
    path = tmp_path / "labels.xlsx"
    pd.DataFrame({"id": ["007", "8"], "count": [7, 8], "empty": [None, 3]}).to_excel(path, index=False)
    table = read_table(path, option="--labels")
    assert table[["id", "count"]].to_numpy().tolist() == [["007", "7"], ["8", "8"]] and table["empty"][0] == ""
    assert table[LINE].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,label\n", "no rows below its header"),
        ("a.csv", b"", "no readable table|no rows"),
        ("a.csv", "id,label\nM\xfcller,1\n".encode("latin-1"), "not UTF-8"),
        ("a.csv", b"id,id\n1,2\n", "1 columns whose name stands there twice"),
        ("a.xlsx", b"no spreadsheet", "no readable table"),
        ("a.docx", b"x", "must end in .csv or .xlsx"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError, match=message):
        read_table(tmp_path / name, option="--labels")


def test_missing_columns_are_named_and_those_that_are_there_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Smith,1\nid,label\n")
    with pytest.raises(CohortError, match="lacks the columns id, label") as error:
        need_columns(read_table(tmp_path / "a.csv", option="--labels"), ["id", "label"], option="--labels")
    assert "Smith" not in str(error.value)
