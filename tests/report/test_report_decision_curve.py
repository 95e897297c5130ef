"""The decision curve of a run: its own count of net benefit, and what it says where nothing can be recalibrated."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report import write_report

RunFactory = Callable[..., Path]


def section_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text(encoding="utf-8"))["decision_curve"]


def patients_of(run: Path) -> pd.DataFrame:
    scores = pd.read_csv(run / "scores.csv")
    rows = scores[(scores["partition"] == "test") & (scores["attack_id"] == "clean")]
    breasts = rows.groupby(["patient_id", "patient_label", "laterality"])["logit"].mean()
    return breasts.groupby(["patient_id", "patient_label"]).max().reset_index()


def net_benefit(patients: pd.DataFrame, threshold: float) -> float:
    called = 1 / (1 + np.exp(-patients["logit"])) >= threshold
    right = (called & (patients["patient_label"] == 1)).sum()
    wrong = (called & (patients["patient_label"] == 0)).sum()
    return (right - wrong * threshold / (1 - threshold)) / len(patients)


def test_with_few_validation_patients_the_output_is_taken_as_it_is(make_run: RunFactory) -> None:
    run = make_run(patients=60)
    scores = pd.read_csv(run / "scores.csv")
    frozen = scores["partition"] == "validation"
    few = scores[frozen].groupby("patient_label")["patient_id"].unique().map(lambda names: list(names)[:4]).sum()
    scores[~frozen | scores["patient_id"].isin(few)].to_csv(run / "scores.csv", index=False)
    page = write_report(run).read_text(encoding="utf-8")
    section, patients = section_of(run), patients_of(run)
    assert section["status"] == "given" and "validation patients of each class" in section["not_recalibrated"]
    (curve,) = section["curves"]
    for threshold, value in zip(curve["thresholds"], curve["model"], strict=True):
        assert math.isclose(value, net_benefit(patients, threshold), abs_tol=1e-12)
    assert "not recalibrated" in page and "as in screening" not in page


def test_with_enough_of_them_it_is_recalibrated_and_moved_to_screening(make_run: RunFactory) -> None:
    run = make_run(patients=240)
    write_report(run)
    section = section_of(run)
    assert section["not_recalibrated"] is None
    assert [curve["stated"] for curve in section["curves"]] == [False, True]
