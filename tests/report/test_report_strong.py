"""The sections of the strong test: apart from the others, with the gates that follow from its rows, and comparisons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.report import ReportError, write_report

RunFactory = Callable[..., Path]


def read_report(run: Path) -> Any:
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def test_attacks_of_the_strong_test_stand_in_their_own_section_only(whole_run: Path) -> None:
    report = read_report(whole_run)
    for points in (report["robustness"]["points"], report["discrimination"]["curves"], report["patients"]["attacks"]):
        assert {point["attack_id"] for point in points} == {"clean", "pgd-0.0001", "pgd-0.001", "pgd-0.01"}
    listed = {attack["attack_id"]: attack for attack in report["strong"]["attacks"]}
    assert {"clean", "pgd-0.001", "square-200@0.001", "pgd-7@0.1"} <= set(listed)
    assert listed["square-200@0.001"]["label"] == "Square, 200 queries" and listed["pgd-7@0.1"]["role"] == "budget"


def test_their_aucs_are_those_of_the_chosen_patients(whole_run: Path) -> None:
    strong = json.loads((whole_run / "artefacts" / "strong.json").read_text())
    scores = pd.read_csv(whole_run / "scores.csv")
    scores = scores[scores["patient_id"].isin(strong["patients"])]
    for attack in read_report(whole_run)["strong"]["attacks"]:
        rows = scores[scores["attack_id"] == attack["attack_id"]]
        breasts = rows.groupby(["patient_id", "patient_label", "laterality"])["logit"].mean()
        patients = breasts.groupby(["patient_id", "patient_label"]).max().reset_index()
        expected = roc_auc_score(patients["patient_label"], patients["logit"])
        assert attack["auc"]["value"] == pytest.approx(expected, abs=1e-12), attack["attack_id"]


def test_attacks_of_the_compared_budget_come_first_and_the_strongest_before_the_others(whole_run: Path) -> None:
    attacks = read_report(whole_run)["strong"]["attacks"]
    assert attacks[0]["attack_id"] == "clean"
    compared = [attack["norm"] == "linf" and attack["budget"] == 0.001 for attack in attacks[1:]]
    assert compared == sorted(compared, reverse=True) and any(compared) and not all(compared)
    values = [attack["auc"]["value"] for attack, same in zip(attacks[1:], compared, strict=True) if same]
    assert values == sorted(values)


def test_gates_follow_from_the_rows_and_from_the_facts(make_run: RunFactory) -> None:
    run = make_run()
    write_report(run)
    before = {gate["name"]: gate["verdict"] for gate in read_report(run)["gates"]["gates"]}
    assert before["iterated_vs_single_step"] == before["zero_gradients"] == before["white_box_vs_noise"] == "pass"
    path = run / "artefacts" / "strong.json"
    strong = json.loads(path.read_text())
    strong["facts"]["zero_gradient_share"] = 0.5
    path.write_text(json.dumps(strong))
    scores = pd.read_csv(run / "scores.csv")
    weak = scores["attack_id"].isin(["best-pgd-70@0.001", "apgd-100@0.001"])
    scores.loc[weak, "logit"] = (
        scores[weak]
        .merge(scores[scores["attack_id"] == "noise-10@0.001"][["image_id", "logit"]], on="image_id")["logit_y"]
        .to_numpy()
    )
    scores.to_csv(run / "scores.csv", index=False)
    write_report(run)
    after = {gate["name"]: gate["verdict"] for gate in read_report(run)["gates"]["gates"]}
    assert after["zero_gradients"] == after["iterated_vs_single_step"] == "fail"
    counts = read_report(run)["gates"]["counts"]
    assert sum(counts.values()) == len(after) == 13 and counts["fail"] >= 2


def test_a_reported_curve_that_rises_with_the_budget_fails_its_gate(make_run: RunFactory) -> None:
    run = make_run()
    scores = pd.read_csv(run / "scores.csv")
    small = scores["attack_id"] == "pgd-0.0001"
    scores.loc[small, "logit"] -= 9 * (2 * scores.loc[small, "patient_label"] - 1)  # the small budget does most
    scores.to_csv(run / "scores.csv", index=False)
    write_report(run)
    verdicts = {gate["name"]: gate["verdict"] for gate in read_report(run)["gates"]["gates"]}
    assert verdicts["auc_falls_with_budget"] == "fail"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "auc_falls_with_budget" in read_report(run)["overview"]["failed_gates"]
    assert "cannot be taken as they stand" in page[: page.index('<section id="flow"')]


def test_the_overview_names_the_strongest_attack_on_its_patients(whole_run: Path) -> None:
    report = read_report(whole_run)
    same = [a for a in report["strong"]["attacks"] if a["norm"] == "linf" and a["budget"] == 0.001]
    lowest = min(same, key=lambda attack: attack["auc"]["value"])
    assert report["overview"]["strongest"]["auc"] == lowest["auc"]
    assert report["overview"]["strongest"]["patients"] == report["strong"]["n"]["patients"] == 16
    assert report["overview"]["failed_gates"] == []


def test_calls_under_the_strong_attacks_are_made_at_the_frozen_threshold(whole_run: Path) -> None:
    report = read_report(whole_run)
    threshold = report["operating_points"]["thresholds"][0]["value"]
    scores, chosen = pd.read_csv(whole_run / "scores.csv"), json.loads(
        (whole_run / "artefacts" / "strong.json").read_text()
    )["patients"]  # fmt: skip
    for attack in report["strong"]["attacks"]:
        rows = scores[(scores["attack_id"] == attack["attack_id"]) & scores["patient_id"].isin(chosen)]
        breasts = rows.groupby(["patient_id", "patient_label", "laterality"])["logit"].mean()
        patients = breasts.groupby(["patient_id", "patient_label"]).max().reset_index()
        called = patients["logit"] >= threshold
        assert attack["sensitivity"]["successes"] == int((called & (patients["patient_label"] == 1)).sum())
        assert attack["specificity"]["successes"] == int((~called & (patients["patient_label"] == 0)).sum())


def test_the_report_takes_the_pooling_of_the_run_and_refuses_another_beside_its_measurements(
    make_run: RunFactory,
) -> None:
    run = make_run(patients=40)
    provenance = json.loads((run / "provenance.json").read_text())
    pooling = {"within_breast": "max", "across_breasts": "mean"}
    (run / "provenance.json").write_text(json.dumps(provenance | {"pooling": pooling}))
    write_report(run)
    statistics = read_report(run)["reproducibility"]["statistics"]
    assert {name: statistics[name] for name in pooling} == pooling
    with pytest.raises(ReportError, match="strong.json, .* were measured with 'max'"):
        write_report(run, within_breast="mean")


def test_what_failed_is_named_in_its_section(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    (run / "artefacts" / "certified.json").write_text(
        json.dumps({"failed": "MemoryError: too large for /home/dr_x/a.nii"})
    )
    page = write_report(run)
    assert "dr_x" not in page.read_text(encoding="utf-8") + (run / "report.json").read_text(encoding="utf-8")
    section = read_report(run)["certified"]
    assert section["status"] == "missing" and "MemoryError: too large" in section["reason"]


def test_scores_without_the_rows_of_the_strong_test_are_refused(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    scores = pd.read_csv(run / "scores.csv")
    scores[scores["attack_id"] != "square-200@0.001"].to_csv(run / "scores.csv", index=False)
    with pytest.raises(ReportError, match="square-200@0.001"):
        write_report(run)


def test_a_run_compared_with_its_copy_differs_by_nothing_and_with_a_better_one_by_what_was_added(
    make_run: RunFactory,
) -> None:
    run, better = make_run("first"), make_run("second")
    scores = pd.read_csv(better / "scores.csv")
    test = scores["partition"] == "test"
    scores.loc[test, "logit"] += 0.8 * scores.loc[test, "patient_label"]
    scores.to_csv(better / "scores.csv", index=False)
    with pytest.raises(ReportError, match="compared with itself"):
        write_report(run, compare=run)
    write_report(run, compare=make_run("copy"))
    same = read_report(run)["comparison"]
    assert same["status"] == "given" and all(entry["difference"]["value"] == 0 for entry in same["attacks"])
    assert same["counts"] == {"better": 0, "worse": 0, "open": len(same["attacks"])}
    write_report(better, compare=run)
    found = read_report(better)["comparison"]
    assert found["other"] == "first"
    for entry in found["attacks"]:
        assert entry["difference"]["value"] == pytest.approx(entry["second"]["value"] - entry["first"]["value"])
        assert entry["difference"]["value"] > 0
    counts = found["counts"]
    assert counts["better"] == sum(entry["p_holm"] < 0.05 for entry in found["attacks"]) > 0 and counts["worse"] == 0
    write_report(run, compare=better)
    assert read_report(run)["comparison"]["counts"] == counts | {"better": 0, "worse": counts["better"]}
    assert "Beside another run" in (better / "report.html").read_text()
    write_report(better)
    assert read_report(better)["comparison"]["status"] == "missing"
    assert "Beside another run" not in (better / "report.html").read_text()


def test_runs_on_other_patients_are_not_compared(make_run: RunFactory) -> None:
    run, other = make_run("first", patients=60), make_run("second", patients=80)
    write_report(run, compare=other)
    comparison = read_report(run)["comparison"]
    assert comparison["status"] == "not_estimable" and comparison["reason"]


@pytest.mark.parametrize("name", ["strong", "certified", "dicom_attack"])
def test_a_measured_file_of_another_layout_is_refused_by_its_entry(name: str, make_run: RunFactory) -> None:
    run = make_run(patients=40)
    path = run / "artefacts" / f"{name}.json"
    content = json.loads(path.read_text())
    spoilt = {"strong": ("attacks", 0, "attack_id"), "certified": ("radii", 1, "auc"),
              "dicom_attack": ("patients", 0, "stored_budget")}[name]  # fmt: skip
    key, place, entry = spoilt
    content[key][place][entry] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(ReportError, match=f"{name}.json: {key}/{place}/{entry}: .*evaluate.json"):
        write_report(run)
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ReportError, match=f"{name}.json: {key}: Field required"):
        write_report(run)
