"""Tables and claims of an experiment against known answers: brute force, planted effects, the paper's own figures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.experiments.claims import MARGIN, Gap, claims, judge, verdicts
from pipeline.experiments.published import PAPER_ROWS, PUBLISHED, display_name, ordered_methods
from pipeline.experiments.tables import comparisons, fold_aucs, paper_table, pooled_table, write_tables
from pipeline.statistics import delong_difference

ATTACK = "pgd-7@0.001"


def scored(
    effects: dict[str, tuple[float, ...]], *, folds: int = 5, patients: int = 80, noise: float = 0.5
) -> pd.DataFrame:
    """Scores in which a method's logit rises by its effect (without and under attack) for malignant patients."""
    rng = np.random.default_rng(3)
    parts = []
    for fold in range(folds):
        labels, shared = np.arange(patients) % 2, rng.normal(size=patients)
        for method, by_attack in effects.items():
            for (attack_id, budget), effect in zip((("clean", 0.0), (ATTACK, 1e-3)), by_attack, strict=False):
                part = pd.DataFrame({"patient_id": [f"{fold}-{i}" for i in range(patients)], "patient_label": labels})
                part["logit"] = shared + noise * rng.normal(size=patients) + effect * labels
                parts.append(part.assign(method=method, fold=fold, attack_id=attack_id, budget=budget))
    return pd.concat(parts, ignore_index=True)


def brute_force(scores: pd.DataFrame) -> float:
    malignant = scores.loc[scores["patient_label"] == 1, "logit"]
    benign = scores.loc[scores["patient_label"] == 0, "logit"]
    return float(np.mean([(one > other) + 0.5 * (one == other) for one in malignant for other in benign]))


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """F holds under attack, D is chance, A falls below chance, B does what A does."""
    return scored(
        {"dual_arfl": (1.5, 1.4), "adversarial_arfl": (0.0, 0.0), "standard": (1.5, -1.0), "extra": (1.0, 0.5)}
    )


def test_perfect_separation_is_100_with_no_spread() -> None:
    scores = scored({"dual_arfl": (100.0, -100.0)})
    table = paper_table(scores).set_index("method")
    assert table.loc["dual_arfl", "clean"] == "100.0 (0.0)"
    assert table.loc["dual_arfl", ATTACK] == "0.0 (0.0)"
    pooled = pooled_table(scores, resamples=100).set_index("attack_id")
    assert pooled.loc["clean", "auc"] == 1.0 and 0.9 < pooled.loc["clean", "lower"] < 1.0


def test_aucs_of_folds_equal_brute_force_with_ties(planted: pd.DataFrame) -> None:
    scores = planted.assign(logit=planted["logit"].round())
    for row in fold_aucs(scores).itertuples():
        chosen = (
            (scores["method"] == row.method) & (scores["fold"] == row.fold) & (scores["attack_id"] == row.attack_id)
        )
        assert row.auc == pytest.approx(brute_force(scores[chosen]), abs=1e-12)


def test_cells_hold_mean_and_sample_deviation_and_a_single_fold_has_none(planted: pd.DataFrame) -> None:
    values = [
        brute_force(part) for _, part in planted.query("method == 'extra' and attack_id == 'clean'").groupby("fold")
    ]
    table = paper_table(planted).set_index("method")
    assert table.loc["extra", "clean"] == f"{100 * np.mean(values):.1f} ({100 * np.std(values, ddof=1):.1f})"
    single = paper_table(planted[planted["fold"] == 0]).set_index("method")
    assert single.loc["extra", "clean"] == f"{100 * values[0]:.1f}"


def test_rows_stand_in_the_papers_order_then_alphabetically(planted: pd.DataFrame) -> None:
    assert list(paper_table(planted)["method"]) == ["standard", "adversarial_arfl", "dual_arfl", "extra"]
    assert ordered_methods(["z", "a", *reversed(PAPER_ROWS)]) == [*PAPER_ROWS, "a", "z"]


def test_published_figures_are_the_papers(planted: pd.DataFrame) -> None:
    assert PUBLISHED["upmc"]["standard"] == (69.2, 1.1, 58.8, 1.4)
    assert PUBLISHED["upmc"]["dual"] == (65.7, 5.9, 59.6, 9.4)
    assert PUBLISHED["cmmd"]["dual_arfl"] == (68.8, 3.3, 67.3, 3.4)
    assert PUBLISHED["cmmd"]["mirst"] == (64.4, 2.6, 64.8, 2.8)
    assert all(list(rows) == list(PAPER_ROWS) for rows in PUBLISHED.values())
    assert [display_name(row)[0] for row in PAPER_ROWS] == list("ABCDEFGHI")
    table = paper_table(planted, published="cmmd").set_index("method")
    assert list(table.loc["dsbn", ["clean", ATTACK, "paper clean", "paper PGD 0.0001", "folds"]]) == [
        "not run", "not run", "54.7 (6.9)", "55.5 (2.7)", 0,
    ]  # fmt: skip


def test_a_fold_without_both_classes_or_with_bad_logits_says_why(planted: pd.DataFrame) -> None:
    scores = planted.copy()
    scores.loc[(scores["fold"] == 1) & (scores["method"] == "extra") & (scores["patient_id"] == "1-3"), "logit"] = (
        np.nan
    )
    scores = scores[(scores["fold"] != 2) | (scores["patient_label"] == 0)]
    folds = fold_aucs(scores).set_index(["method", "attack_id", "fold"])
    assert math.isnan(folds.loc[("dual_arfl", "clean", 2), "auc"])
    assert "0 malignant and 40 benign" in folds.loc[("dual_arfl", "clean", 2), "reason"]
    assert folds.loc[("extra", "clean", 1), "reason"] == "1 of 80 logits are NaN or infinite"
    table = paper_table(scores).set_index("method")
    assert table.loc["extra", "folds"] == 3 and "fold 1 left out under clean" in table.loc["extra", "note"]
    row = (
        comparisons(scores, resamples=50)
        .set_index(["attack_id", "first", "second"])
        .loc[("clean", "dual_arfl", "extra")]
    )
    assert row["folds"] == 3 and "extra: fold 1 left out" in row["note"] and row["difference"] > 0


def test_a_planted_effect_is_found_by_every_test(planted: pd.DataFrame) -> None:
    table = comparisons(planted, resamples=300).set_index(["attack_id", "first", "second"])
    row = table.loc[(ATTACK, "dual_arfl", "adversarial_arfl")]
    assert row["lower"] > 0 and row["t_lower"] > 0 and row["delong_p"] < 1e-6 and row["t_p"] < 0.01
    assert (row["mann_whitney_u"], row["mann_whitney_p"]) == (25, pytest.approx(2 / 252))
    assert row["mann_whitney_p"] == row["mann_whitney_least_p"] and row["patients"] == 400
    folds = [
        brute_force(part) - brute_force(planted[(planted["fold"] == fold) & chosen])
        for chosen in [(planted["method"] == "adversarial_arfl") & (planted["attack_id"] == ATTACK)]
        for fold, part in planted.query("method == 'dual_arfl' and attack_id == @ATTACK").groupby("fold")
    ]
    assert row["fold_difference"] == pytest.approx(np.mean(folds)) == pytest.approx(row["difference"])


def test_holm_counts_the_comparisons_of_one_attack(planted: pd.DataFrame) -> None:
    table = comparisons(planted, resamples=50)
    clean = table[(table["attack_id"] == "clean") & table["delong_p"].notna()].sort_values("delong_p")
    assert len(clean) == 3
    assert clean["delong_holm_p"].iloc[0] == pytest.approx(min(1.0, 3 * clean["delong_p"].iloc[0]))


def test_f_meets_d_and_e_and_every_other_row_once(planted: pd.DataFrame) -> None:
    clean = comparisons(planted, resamples=50).query("attack_id == 'clean'")
    assert list(clean["second"]) == ["adversarial_arfl", "dual", "standard", "extra"]
    assert set(clean["first"]) == {"dual_arfl"}
    missing = clean.set_index("second").loc["dual"]
    assert missing["note"] == "not run: dual" and missing["folds"] == 0 and math.isnan(missing["difference"])


def test_delong_of_two_folds_adds_their_variances(planted: pd.DataFrame) -> None:
    wide = planted[planted["attack_id"] == "clean"].pivot(
        index=["fold", "patient_id", "patient_label"], columns="method", values="logit"
    )
    wide = wide[wide.index.get_level_values("fold") < 2]
    folds, labels = (wide.index.get_level_values(name).to_numpy() for name in ("fold", "patient_label"))
    first, second = wide["dual_arfl"].to_numpy(), wide["extra"].to_numpy()
    each = [delong_difference(labels[folds == f], first[folds == f], second[folds == f]) for f in (0, 1)]
    errors = [(test.high - test.low) / (2 * 1.959963984540054) for test in each]
    z = (each[0].difference + each[1].difference) / math.hypot(*errors)
    found = delong_difference(labels, first, second, folds=folds)
    assert found.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))


def test_only_patients_and_folds_of_both_are_compared(planted: pd.DataFrame) -> None:
    extra = planted["method"] == "extra"
    scores = planted[~(extra & (planted["fold"] == 4)) & ~(extra & planted["patient_id"].isin(["0-0", "0-1"]))]
    table = comparisons(scores, resamples=50).set_index(["attack_id", "second"])
    row = table.loc[("clean", "extra")]
    assert (row["folds"], row["patients"]) == (4, 318)
    assert row["note"] == "folds of one method only: 4; 2 patients scored by one method only are left out"


def test_a_method_that_diverged_in_every_fold_is_remarked_everywhere(planted: pd.DataFrame) -> None:
    scores = planted.assign(logit=planted["logit"].where(planted["method"] != "adversarial_arfl"))
    assert paper_table(scores).set_index("method").loc["adversarial_arfl", "clean"] == "not estimable"
    pooled = pooled_table(scores, resamples=50).set_index(["method", "attack_id"]).loc[("adversarial_arfl", "clean")]
    assert pooled["folds"] == 0 and math.isnan(pooled["auc"]) and "80 of 80 logits" in pooled["note"]
    row = claims(scores, resamples=50).iloc[0]
    assert row["verdict"] == "cannot tell" and row["says"].startswith("F minus D: not estimable")


def test_no_spread_and_a_single_fold_are_remarks_and_no_errors() -> None:
    scores = scored({"dual_arfl": (100.0,), "dual": (-100.0,)}, folds=1)
    row = comparisons(scores, pairs=[], resamples=50).iloc[0]
    assert row["difference"] == 1.0 and math.isnan(row["lower"]) and math.isnan(row["delong_p"])
    assert all(text in row["note"] for text in ("interval: ", "DeLong: ", "corrected t: "))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda scores: scores.drop(columns="logit"), "lack logit"),
        (lambda scores: pd.concat([scores, scores.head(1)]), "1 rows repeat method dual_arfl"),
        (lambda scores: scores.assign(patient_label=2), "0 and 1"),
        (
            lambda scores: scores.assign(
                patient_label=[*(1 - scores["patient_label"].head(5)), *scores["patient_label"].iloc[5:]]
            ),
            "both malignant and benign",
        ),
    ],
)
def test_what_is_no_table_of_scores_is_refused(planted: pd.DataFrame, change, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        fold_aucs(change(planted))


def test_no_scores_give_empty_tables() -> None:
    nothing = scored({"standard": (1.0,)}).head(0)
    for table in (fold_aucs(nothing), paper_table(nothing), pooled_table(nothing), comparisons(nothing)):
        assert table.empty and "method" in table or "first" in table
    assert set(claims(nothing)["verdict"]) == {"not run"}


def test_files_hold_the_tables_escaped(planted: pd.DataFrame, tmp_path) -> None:
    other = planted.replace({"method": {"extra": "n_fgsm & 5% <x|y>"}})
    paths = write_tables(tmp_path / "new", {"paper": paper_table(other), "pairs": comparisons(other, resamples=50)})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    latex = (tmp_path / "new" / "paper.tex").read_text(encoding="utf-8")
    assert r"n\_fgsm \& 5\% \textless{}x\textbar{}y\textgreater{}" in latex and r"\toprule" in latex
    assert "F dual + ARFL & " in latex and "_" not in latex.replace(r"\_", "")
    assert len({line.count(" & ") for line in latex.splitlines() if line.endswith(r" \\")}) == 1
    assert r"n_fgsm & 5% <x\|y>" in (tmp_path / "new" / "paper.md").read_text(encoding="utf-8")
    read = pd.read_csv(tmp_path / "new" / "pairs.csv")
    assert read["second"].iloc[0] == "adversarial_arfl"
    assert read["difference"].iloc[0] == pytest.approx(
        comparisons(other, resamples=50)["difference"].iloc[0], abs=1e-15
    )


@pytest.mark.parametrize(
    ("kind", "low", "high", "verdict"),
    [
        ("better", 0.01, 0.2, "agrees"),
        ("better", -0.2, -0.01, "disagrees"),
        ("better", -0.01, 0.2, "cannot tell"),
        ("same", -0.04, 0.03, "agrees"),
        ("same", -0.20, -0.01, "disagrees"),
        ("same", 0.01, 0.20, "disagrees"),
        ("same", -0.10, 0.03, "cannot tell"),
        ("no better", -0.30, -0.10, "agrees"),
        ("no better", -0.10, 0.04, "agrees"),
        ("no better", 0.01, 0.20, "disagrees"),
        ("no better", -0.01, 0.20, "cannot tell"),
        ("better", math.nan, math.nan, "cannot tell"),
    ],
)
def test_verdicts_follow_the_interval(kind, low: float, high: float, verdict: str) -> None:
    assert judge(kind, [Gap("", (low + high) / 2, low, high)], margin=MARGIN) == verdict


def test_claims_of_rows_that_were_run_are_judged_and_the_rest_is_not_run(planted: pd.DataFrame) -> None:
    table = claims(planted, comparisons(planted, resamples=200), resamples=200).set_index(["claim", "attack_id"])
    better = table.loc[("F is better than D (p < 0.05)", ATTACK)]
    assert better["verdict"] == "agrees" and "F minus D: +0." in better["says"] and "400 patients" in better["says"]
    best = table.loc[("F has the best AUC under attack", ATTACK)]
    assert best["verdict"] == "cannot tell" and "not run: F minus B" in best["says"]
    assert table.loc[("C is no better than A under attack (CMMD)", ATTACK), "verdict"] == "not run"
    assert table.loc[("the weight of ARFL is best at 10", ""), "verdict"] == "not run"


def test_one_row_above_f_disagrees_with_best_even_when_others_are_missing() -> None:
    scores = scored(
        {"dual_arfl": (1.0, 0.2), "trades": (1.0, 1.5), "standard": (1.0, 1.0), "standard_arfl": (1.0, 1.0)}, noise=0.1
    )
    table = claims(scores, resamples=200).set_index(["claim", "attack_id"])["verdict"]
    assert table[("F has the best AUC under attack", ATTACK)] == "disagrees"
    assert table[("ARFL changes nothing under standard training (B and A)", ATTACK)] == "agrees"


def swept(curve: dict[float, float], *, folds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"value": value, "fold": fold, "attack_id": "clean", "auc": auc + 0.01 * fold + rng.normal(scale=0.002)}
            for value, auc in curve.items()
            for fold in range(folds)
        ]
    )


def test_sweeps_are_judged_by_the_corrected_t_interval() -> None:
    nothing = scored({"standard": (1.0,)}).head(0)
    sweeps = {
        "standard_ratio": swept({0.25: 0.6, 0.5: 0.6, 0.75: 0.7}),
        "weight": swept({0.1: 0.6, 1.0: 0.62, 10.0: 0.7, 100.0: 0.5}),
        "budget": swept({0.005: 0.5, 0.01: 0.7, 0.05: 0.705, 0.1: 0.695}),
    }
    table = claims(nothing, sweeps=sweeps).set_index("claim")
    assert table.loc["the share of standard data is best at 0.5 (UPMC)", "verdict"] == "disagrees"
    assert table.loc["the share of standard data is best at 0.75 (CMMD)", "verdict"] == "agrees"
    assert table.loc["the weight of ARFL is best at 10", "verdict"] == "agrees"
    assert table.loc["AUC is stable from a training budget of 0.01 on", "verdict"] == "agrees"
    assert "10 minus 100: +0.198 [+0.193, +0.203] (5 folds)" in table.loc["the weight of ARFL is best at 10", "says"]
    assert table.loc["AUC is stable from a training budget of 0.01 on", "says"].count(" minus ") == 2
    cmmd = claims(nothing, sweeps={"weight": swept({1.0: 0.6, 10.0: 0.7}, folds=1)}, dataset="cmmd").set_index("claim")
    assert cmmd.loc["the weight of ARFL is best at 10", "verdict"] == "cannot tell"
    assert "the share of standard data is best at 0.5 (UPMC)" not in cmmd.index


def test_verdicts_stand_in_columns_a_line_per_claim() -> None:
    table = pd.DataFrame(
        [("one", "clean", "", "agrees"), ("one", "pgd-7@0.01", "", "cannot tell"), ("another", "", "", "not run")],
        columns=["claim", "attack_id", "says", "verdict"],
    )
    assert verdicts(table).splitlines() == [
        "claim  clean   pgd-7@0.01",
        "one    agrees  cannot tell",
        "not run: another",
    ]
