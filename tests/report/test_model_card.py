"""The model card says what report.json says, whatever is missing, and no text breaks out of its table."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from pipeline.report import write_report

RunFactory = Callable[..., Path]


def test_the_aucs_of_the_card_are_those_of_the_report(whole_run: Path) -> None:
    card = (whole_run / "model_card.md").read_text(encoding="utf-8")
    report = json.loads((whole_run / "report.json").read_text(encoding="utf-8"))
    for point in report["robustness"]["points"]:
        auc = point["auc"]
        line = f"| {point['label']} | {auc['value']:.3f} ({auc['lower']:.3f} to {auc['upper']:.3f}) |"
        assert line in card
    assert f"{report['gates']['counts']['pass']} passed, {report['gates']['counts']['fail']} failed" in card
    attack = report["dicom_attack"]["summary"]
    right = attack["flipped"] + attack["not_flipped"]
    assert f"{attack['flipped']} of {right} patients that were right before were turned over" in card
    assert f"{attack['wrong_before']} were wrong before" in card and "Research use only" in card


def test_every_row_of_a_table_has_as_many_cells_as_its_heading(whole_run: Path) -> None:
    lines = (whole_run / "model_card.md").read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) > 20
    for first, second in zip(lines, lines[1:], strict=False):
        if first.startswith("|") and second.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", first)) == len(re.findall(r"(?<!\\)\|", second)), second


def test_a_run_with_scores_alone_and_hostile_text_has_a_card_too(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    for path in run.rglob("*"):
        if path.is_file() and path.name != "scores.csv":
            path.unlink()
    attack = "| x | <script>`\n# y"
    scores = pd.read_csv(run / "scores.csv")
    scores = scores[scores["attack_id"].str.startswith(("clean", "pgd-0"))]
    scores["attack_id"] = scores["attack_id"].replace({"pgd-0.001": attack})
    scores.loc[scores["attack_id"] == "pgd-0.01", "budget"] = 0.001  # so that attacks are shown by their names
    scores.to_csv(run / "scores.csv", index=False)
    write_report(run)
    card = (run / "model_card.md").read_text(encoding="utf-8")
    assert "<script>" not in card and "\n# y" not in card and "\| x" in card
    assert "artefacts/strong.json is not in the run directory" in card
