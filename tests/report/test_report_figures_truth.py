"""report.json holds the right figures, by its schema, and a run that cannot be reported says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import pipeline.report
from pipeline.report import ReportError, write_report

RunFactory = Callable[..., Path]
SCHEMA = json.loads((Path(pipeline.report.__file__).parent / "schema.json").read_text(encoding="utf-8"))


def read_report(run: Path) -> Any:
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def pooled_by_hand(run: Path, partition: str, attack: str) -> pd.DataFrame:
    scores = pd.read_csv(run / "scores.csv")
    mine = scores[(scores["partition"] == partition) & (scores["attack_id"] == attack)]
    rows = []
    for patient, images in mine.groupby("patient_id"):
        breasts = [np.mean(list(breast["logit"])) for _, breast in images.groupby("laterality")]
        rows.append((patient, images["patient_label"].iloc[0], max(breasts)))
    return pd.DataFrame(rows, columns=["patient_id", "label", "logit"]).set_index("patient_id")


def test_report_follows_its_schema(whole_run: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(read_report(whole_run), SCHEMA)


def test_a_report_with_most_things_missing_follows_the_schema_too(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    for path in run.glob("*"):
        if path.name not in ("scores.csv", "artefacts"):
            path.unlink()
    scores = pd.read_csv(run / "scores.csv")
    keep = (scores["partition"] == "test") & (scores["patient_label"] == 0) & (scores["attack_id"] == "clean")
    scores[keep].to_csv(run / "scores.csv", index=False)
    (run / "artefacts" / "strong.json").unlink()
    write_report(run)
    jsonschema.validate(read_report(run), SCHEMA)


def test_aucs_equal_scikit_learn_on_logits_pooled_by_hand(whole_run: Path) -> None:
    points = read_report(whole_run)["robustness"]["points"]
    assert [point["attack_id"] for point in points] == ["clean", "pgd-0.0001", "pgd-0.001", "pgd-0.01"]
    for point in points:
        patients = pooled_by_hand(whole_run, "test", point["attack_id"])
        assert point["auc"]["value"] == pytest.approx(roc_auc_score(patients["label"], patients["logit"]), abs=1e-12)
        assert point["auc"]["lower"] <= point["auc"]["value"] <= point["auc"]["upper"]
        assert point["n"]["patients"] == len(patients)


def test_threshold_comes_from_validation_and_calls_are_counted_on_test(whole_run: Path) -> None:
    frozen = read_report(whole_run)["operating_points"]["thresholds"][0]
    validation = pooled_by_hand(whole_run, "validation", "clean")
    malignant = sorted(validation.loc[validation["label"] == 1, "logit"], reverse=True)
    assert frozen["value"] == pytest.approx(malignant[int(np.ceil(0.9 * len(malignant))) - 1], abs=1e-12)
    for attack in frozen["attacks"]:
        test = pooled_by_hand(whole_run, "test", attack["attack_id"])
        called = test["logit"] >= frozen["value"] - 1e-12
        assert attack["sensitivity"]["successes"] == int((called & (test["label"] == 1)).sum())
        assert attack["specificity"]["successes"] == int((~called & (test["label"] == 0)).sum())


def test_patient_rows_hold_probabilities_and_flips(whole_run: Path) -> None:
    report = read_report(whole_run)
    threshold = report["operating_points"]["thresholds"][0]["value"]
    clean = pooled_by_hand(whole_run, "test", "clean")["logit"]
    assert {row["patient_id"] for row in report["patients"]["rows"]} == set(clean.index)
    for index, attack in enumerate(report["patients"]["attacks"]):
        logits = pooled_by_hand(whole_run, "test", attack["attack_id"])["logit"]
        for row in report["patients"]["rows"]:
            mine, before = logits[row["patient_id"]], clean[row["patient_id"]]
            assert row["probabilities"][index] == pytest.approx(1 / (1 + np.exp(-mine)), abs=1e-12)
            if abs(mine - threshold) > 1e-9 and abs(before - threshold) > 1e-9:
                assert bool(row["flips"][index]) == ((mine >= threshold) != (before >= threshold))


def test_a_report_made_twice_is_the_same_to_the_byte(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    first = [write_report(run).read_bytes(), (run / "report.json").read_bytes()]
    assert first == [write_report(run).read_bytes(), (run / "report.json").read_bytes()]


def test_pooling_is_an_argument_and_is_written_down(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    write_report(run)
    default = read_report(run)
    write_report(run, across_breasts="mean", resamples=100)
    changed = read_report(run)
    assert changed["reproducibility"]["statistics"]["across_breasts"] == "mean"
    assert changed["patients"]["rows"][0]["logits"] != default["patients"]["rows"][0]["logits"]


def test_attacks_on_a_subset_are_compared_with_the_same_patients(make_run: RunFactory) -> None:
    run = make_run()
    scores = pd.read_csv(run / "scores.csv")
    test = scores.loc[scores["partition"] == "test", "patient_id"].drop_duplicates()
    left_out = set(test.iloc[: len(test) // 3])
    scores = scores[(scores["attack_id"] == "clean") | ~scores["patient_id"].isin(left_out)]
    scores.to_csv(run / "scores.csv", index=False)
    write_report(run)
    report = read_report(run)
    clean, first = report["robustness"]["points"][:2]
    assert clean["n"]["patients"] - first["n"]["patients"] == len(left_out)
    kept = pooled_by_hand(run, "test", "clean").drop(index=list(left_out))
    expected = first["auc"]["value"] - roc_auc_score(kept["label"], kept["logit"])
    assert first["difference"]["value"] == pytest.approx(expected, abs=1e-12)
    unscored = [row["patient_id"] for row in report["patients"]["rows"] if row["probabilities"][1:] == [None] * 3]
    assert set(unscored) == left_out


def test_missing_scores_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="not a directory"):
        write_report(tmp_path / "nothing")
    with pytest.raises(ReportError, match=r"scores.csv is missing in .*evaluate.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="logit"), "lacks the columns logit"),
        (lambda table: table[table["partition"] != "test"], "no rows with partition 'test'"),
        (lambda table: table.assign(fold=range(len(table))), "mixes the folds"),
        (lambda table: table.assign(logit=float("nan")), "logit is empty or NaN"),
        (lambda table: table[table["attack_id"] != "clean"], "no rows with attack_id 'clean'"),
        (lambda table: pd.concat([table, table.head(1)]), "stands twice"),
        (
            lambda table: pd.concat([table, table[table["partition"] == "test"].assign(partition="validation")]),
            "stands in validation and in test",
        ),
        (lambda table: table.assign(logit="high"), "'high' under logit; allowed are numbers"),
    ],
)
def test_damaged_scores_are_refused_with_the_reason(
    make_run: RunFactory, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    run = make_run(patients=40)
    change(pd.read_csv(run / "scores.csv")).to_csv(run / "scores.csv", index=False)
    with pytest.raises(ReportError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_failed_report_leaves_an_earlier_one_as_it_was(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    before = write_report(run).read_bytes()
    (run / "flow.json").write_text("{")
    with pytest.raises(ReportError, match="not readable JSON"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
