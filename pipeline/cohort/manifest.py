"""Reading a manifest: one row per image, checked as a whole, every bad row reported at once."""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
import posixpath
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.errors import CohortError
from pipeline.cohort.raw_ids import refuse_raw_ids
from pipeline.cohort.schema import ALLOWED, COLUMNS, REQUIRED, bad_cells

PRINTED_ROWS = 20
HELP = "data_manifests/README.md explains every column"


class ManifestError(CohortError):
    """A manifest that cannot be used, with every problem found in it.

    Attributes:
        rows: one row per problem: ``line`` (in the file, the header is 1; 0 for the file as a whole),
            ``image``, ``column``, ``problem``. The message prints the first 20 and the count.
    """

    def __init__(self, path: Path, rows: pd.DataFrame) -> None:
        self.path = Path(path)
        self.rows = rows.reset_index(drop=True)
        super().__init__(self.path, self.rows)

    def __str__(self) -> str:
        lines = [
            (f"line {row.line}: " if row.line else "") + (f"{row.column}: " if row.column else "") + row.problem
            for row in self.rows.head(PRINTED_ROWS).itertuples()
        ]
        hidden = len(self.rows) - len(lines)
        if hidden > 0:
            lines.append(f"... and {hidden} more (all of them in error.rows)")
        count = f"{len(self.rows)} problem" + ("s" if len(self.rows) != 1 else "")
        return f"manifest {self.path}: {count}\n  " + "\n  ".join(lines) + f"\n{HELP}"


def read_manifest(
    path: str | Path, *, dataset_dir: str | Path | None = None, allow_raw_ids: bool = False
) -> pd.DataFrame:
    """Read and check a manifest.

    Missing image files are no error here: the preparation stage turns them into rejects and goes on.

    Args:
        path: a CSV file in UTF-8 with a comma between cells.
        dataset_dir: the data root that ``image`` is relative to; by default the folder of the manifest.
        allow_raw_ids: accept ids equal to the DICOM PatientID of their file (public pseudonyms). Here one file per
            patient is looked at; the preparation stage looks at all of them.

    Returns:
        One row per image in the order of the file. Ids are text (leading zeros kept), ``label`` is float64 (1.0, 0.0,
        NaN unknown), ``patient_label`` is int64, ``age`` float64; ``group_id`` is always there, by default the
        patient_id. ``attrs["digest"]`` is the SHA-256 of the file.

    Raises:
        ManifestError: the file is missing, empty or has bad columns or rows; all of them are listed.
        CohortError: ids equal a DICOM PatientID and ``allow_raw_ids`` is False.
    """
    path = Path(path)
    text, lines = _read_text(path)
    root = Path(dataset_dir) if dataset_dir is not None else path.parent
    problems = [
        (index, column, _quote(text, index, column) + problem)
        for index, column, problem in bad_cells(text).itertuples(index=False)
    ]
    problems += _duplicates(text)
    problems += _escapes(text, root)
    problems += _contradictions(text)
    if problems:
        rows = pd.DataFrame(
            [
                {"line": lines[index], "image": text.at[index, "image"], "column": column, "problem": problem}
                for index, column, problem in problems
            ]
        )
        raise ManifestError(path, rows.sort_values("line", kind="stable"))
    manifest = _typed(text)
    manifest.attrs["digest"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not allow_raw_ids:
        first = manifest.drop_duplicates("patient_id")
        refuse_raw_ids(zip(first["patient_id"], (root / image for image in first["image"]), strict=True))
    return manifest


def _whole(path: Path, *problems: str) -> ManifestError:
    rows = [{"line": 0, "image": "", "column": "", "problem": problem} for problem in problems]
    return ManifestError(path, pd.DataFrame(rows))


def _read_text(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """Read the cells as text, with the line number of each row."""
    if not path.is_file():
        raise _whole(path, "the file does not exist; give the path of a CSV file, or no manifest to use phantoms")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            records = [(reader.line_num, cells) for cells in reader if any(cells)]
    except UnicodeDecodeError as error:
        raise _whole(path, f"the file is not UTF-8 text ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
        raise _whole(path, f"the file is not comma-separated text ({error}); save it as CSV UTF-8") from error
    if not records:
        raise _whole(path, f"the file is empty; the columns must be {', '.join(REQUIRED)}, with one row per image")
    header = records[0][1]
    columns = _column_problems(header)
    if columns:
        raise _whole(path, *columns)
    if len(records) == 1:
        raise _whole(path, "the file has a header but no rows; one row per image is needed")
    ragged = [
        {"line": line, "image": cells[0], "column": "", "problem": f"{len(cells)} cells, the header has {len(header)}"}
        for line, cells in records[1:]
        if len(cells) != len(header)
    ]
    if ragged:
        raise ManifestError(path, pd.DataFrame(ragged))
    return (
        pd.DataFrame([cells for _, cells in records[1:]], columns=header, dtype="str"),
        [line for line, _ in records[1:]],
    )


def _column_problems(header: list[str]) -> list[str]:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        return ["the cells are not separated by commas (found ';' or tab); save the file with commas"]
    problems = [f"column '{name}' is missing" for name in REQUIRED if name not in header]
    for name in dict.fromkeys(header):
        if header.count(name) > 1:
            problems.append(f"column '{name}' stands there {header.count(name)} times")
        if name not in ALLOWED:
            near = difflib.get_close_matches(name.strip().lower(), ALLOWED, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'?" if near else "remove it"
            problems.append(f"column '{name}' is unknown; {hint}")
    if problems:
        problems.append(f"allowed columns: {', '.join(ALLOWED)} (the first {len(REQUIRED)} are required)")
    return problems


def _quote(text: pd.DataFrame, index: int, column: str) -> str:
    """The cell in front of its problem; not for ids, which might be real ones."""
    cell = text.at[index, column]
    return "" if not cell or column in ("patient_id", "group_id", "study_id") else f"{cell!r} "


Problem = tuple[int, str, str]


def _duplicates(text: pd.DataFrame) -> list[Problem]:
    normal = text["image"].map(posixpath.normpath)
    repeated = normal.duplicated(keep="first") & (text["image"] != "")
    return [(index, "image", f"{text.at[index, 'image']!r} stands there twice") for index in text.index[repeated]]


def _escapes(text: pd.DataFrame, root: Path) -> list[Problem]:
    """Images that a link takes out of the data root. Paths that are wrong as written are found by the schema."""
    home = root.resolve()
    folder = functools.cache(Path.resolve)
    problems = []
    for index, image in text["image"].items():
        path = home / image
        if "\0" in image or ".." in path.parts or not path.is_relative_to(home):
            continue
        target = path.resolve() if path.is_symlink() else folder(path.parent) / path.name
        if not target.is_relative_to(home):
            problems.append((index, "image", f"{image!r} is a link that leaves the data root; put the file below it"))
    return problems


def _contradictions(text: pd.DataFrame) -> list[Problem]:
    """Rules that hold between rows: of one patient, one breast, one group, the whole file.

    Lines tell which patient is meant; ids are not printed, since whether they are real ones is not known yet.
    """
    problems: list[Problem] = []
    known = text[text["patient_id"] != ""]
    number = {name: pd.to_numeric(known[name], errors="coerce") for name in ("label", "patient_label")}
    for _, rows in known.groupby("patient_id", sort=False):
        first = rows.index[0]
        if number["patient_label"][rows.index].nunique() > 1:
            problems.append((first, "patient_label", "this patient has both 0 and 1; give one"))
        for column in ("group_id", "partition"):
            if column in rows and rows[column].nunique() > 1:
                problems.append((first, column, f"this patient has {rows[column].nunique()} of them; give one"))
        labels, patient_labels = number["label"][rows.index], number["patient_label"][rows.index]
        if (labels == 1).any() and (patient_labels == 0).any():
            where = rows.index[labels == 1][0]
            problem = "this patient has a breast labelled 1 but patient_label 0, which must then be 1"
            problems.append((where, "patient_label", problem))
        whole_exam = set(rows["laterality"]) == {"L", "R"}
        if whole_exam and (labels == 0).all() and (patient_labels == 1).any():
            problem = "this patient has patient_label 1 but both breasts labelled 0; empty means unknown"
            problems.append((first, "patient_label", problem))
        breast = [name for name in ("laterality", "study_id") if name in rows]
        for _, views in rows.groupby(breast, sort=False):
            if number["label"][views.index].nunique() > 1:
                problem = f"this patient's views of breast {views['laterality'].iloc[0]} have labels 0 and 1"
                problems.append((views.index[0], "label", problem + "; the label is the breast's"))
    problems += _partition_problems(known)
    return problems


def _partition_problems(text: pd.DataFrame) -> Iterable[Problem]:
    if "partition" not in text or (text["partition"] == "").all():
        return
    for index in text.index[text["partition"] == ""]:
        yield index, "partition", "is empty while other rows have one; fill all of them or none"
    if "group_id" in text:
        grouped = text[text["group_id"] != ""]
        for _, rows in grouped.groupby("group_id", sort=False):
            if rows["partition"].nunique() > 1 and rows["patient_id"].nunique() > 1:
                names = ", ".join(rows["partition"].unique())
                yield rows.index[0], "partition", f"this group stands in {names}; a group stays together"


def _typed(text: pd.DataFrame) -> pd.DataFrame:
    manifest = text[[column.name for column in COLUMNS if column.name in text]].copy()
    manifest["label"] = pd.to_numeric(manifest["label"].replace("", None)).astype(np.float64)
    manifest["patient_label"] = manifest["patient_label"].astype(np.float64).astype(np.int64)
    if "age" in manifest:
        manifest["age"] = pd.to_numeric(manifest["age"].replace("", None)).astype(np.float64)
    if "group_id" not in manifest:
        manifest["group_id"] = manifest["patient_id"]
    manifest["group_id"] = manifest["group_id"].where(manifest["group_id"] != "", manifest["patient_id"])
    if "partition" in manifest and (manifest["partition"] == "").all():
        manifest = manifest.drop(columns="partition")
    return manifest
