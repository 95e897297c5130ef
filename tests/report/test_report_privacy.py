"""What a report says of the machine and of leaks: no folder names, and a warning where figures are too good."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.report import write_report
from pipeline.report.paths import short_paths

RunFactory = Callable[..., Path]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/dr_x/StElisabeth/mine.csv", "…/mine.csv"),
        ("~/data/mine.csv", "…/mine.csv"),
        ("C:\\Users\\dr_x\\mine.csv", "…/mine.csv"),
        ("run --out /home/dr_x/runs --x \"['/home/dr_x/a.json']\"", "run --out …/runs --x \"['…/a.json']\""),
        ("/home/Dr Smith/Jane Doe/m.csv", "…/m.csv"),
        ("C:\\Users\\Jane Doe\\mine.csv", "…/mine.csv"),
        ("//server/share/Jane/x.csv", "…/x.csv"),
        ("cannot read '/home/Jane Doe/x.csv' today", "cannot read '…/x.csv' today"),
        ({"manifest": "patients/Doe_Jane/m.csv", "layer": "a/b"}, {"manifest": "…/m.csv", "layer": "a/b"}),
        ({"checkpoint": "/data/Jane/runs/demo/checkpoints/best.pt"}, {"checkpoint": "…/demo/checkpoints/best.pt"}),
        (
            {"command": "python -m x run bundles/arfl/train.json --manifest 'Jane Doe/m.csv' --a=b/c/d.csv"},
            {"command": "python -m x run bundles/arfl/train.json --manifest '…/m.csv' '--a=…/d.csv'"},
        ),
        ("bundles/arfl/train.json", "bundles/arfl/train.json"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ({"a": ["/home/dr_x/b", 1, None]}, {"a": ["…/b", 1, None]}),
    ],
)
def test_folders_are_cut_from_paths_and_other_text_stays(given: object, shown: object) -> None:
    assert short_paths(given) == shown


def test_no_folder_of_the_machine_stands_in_the_report(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    for name in ("config.json", "provenance.json"):
        content = json.loads((run / name).read_text())
        content |= {"manifest": "/home/dr_x/m.csv", "dataset_dir": "/home/dr_x/images", "command": "run /home/dr_x/y"}
        (run / name).write_text(json.dumps(content))
    page = write_report(run)
    for path in (page, run / "report.json"):
        assert "dr_x" not in path.read_text(encoding="utf-8")


def test_leaks_that_were_allowed_are_said_beside_the_answer(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    assert "too good" not in write_report(run).read_text(encoding="utf-8")
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["leaks"] = {"allowed": True, "found": ["2 pairs of images are the same in training and test"]}
    (run / "provenance.json").write_text(json.dumps(provenance))
    text = write_report(run).read_text(encoding="utf-8")
    head = text[: text.index('<section id="flow"')]
    assert "too good" in head and "2 pairs of images are the same in training and test" in head
