"""Facts about the folder data_manifests: its template, schema and README say what the code does."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import pytest

from pipeline.cohort import ManifestError, read_manifest
from pipeline.cohort.schema import ALLOWED, LATERALITIES, PARTITIONS, REQUIRED, VIEWS

FOLDER = Path(__file__).parents[2] / "data_manifests"
SCHEMA = json.loads((FOLDER / "manifest.schema.json").read_text(encoding="utf-8"))


def test_template_is_a_valid_manifest_with_every_column() -> None:
    manifest = read_manifest(FOLDER / "template.csv")
    assert set(manifest.columns) == set(ALLOWED) and len(manifest) == 4
    with (FOLDER / "template.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            jsonschema.validate(row, SCHEMA)


def test_readme_shows_the_template_and_every_column_and_word() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert (FOLDER / "template.csv").read_text(encoding="utf-8").strip() in text
    for name in ALLOWED:
        assert f"| `{name}` | {'yes' if name in REQUIRED else 'no'} |" in text
    for word in (*LATERALITIES, *VIEWS, *PARTITIONS):
        assert f"`{word}`" in text


def test_schema_has_the_columns_and_vocabularies_of_the_code() -> None:
    assert tuple(SCHEMA["properties"]) == ALLOWED and tuple(SCHEMA["required"]) == REQUIRED
    assert SCHEMA["properties"]["laterality"]["enum"] == list(LATERALITIES)
    assert SCHEMA["properties"]["view"]["enum"] == list(VIEWS)
    assert SCHEMA["properties"]["partition"]["enum"] == ["", *PARTITIONS]


@pytest.mark.parametrize(
    ("column", "cell", "good"),
    [
        ("image", "a/../b.dcm", False), ("image", "/a.dcm", False), ("image", "c:/a.dcm", False),
        ("image", "a\\b.dcm", False), ("image", "..", False), ("image", "..a/b..dcm", True), ("image", "", False),
        ("patient_id", "", False), ("patient_id", " 1", False), ("patient_id", "0 1", True),
        ("laterality", "l", False), ("laterality", "B", False), ("view", "MLO", True), ("view", "TOP", False),
        ("label", "", True), ("label", "2", False), ("label", "1.0", True), ("label", "nan", False),
        ("patient_label", "", False), ("patient_label", "1", True),
        ("age", "120", True), ("age", "121", False), ("age", "-1", False), ("age", "45.5", True), ("age", "old", False),
        ("partition", "train", False), ("partition", "test", True),
    ],
)  # fmt: skip
def test_schema_and_code_agree_about_a_cell(tmp_path: Path, column: str, cell: str, good: bool) -> None:
    row = {"image": "a.dcm", "patient_id": "1", "laterality": "L", "view": "CC", "label": "", "patient_label": "1"}
    row[column] = cell
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(row) is good
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    try:
        read_manifest(path)
        accepted = True
    except ManifestError as error:
        accepted = False
        assert set(error.rows["column"]) == {column}
    assert accepted is good
