"""Gates on evaluations whose truth is known: sound ones pass, masked ones fail where they must, small ones say so."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from pipeline.statistics import Facts, Gate, gates
from pipeline.statistics.paired_margins import Margins

SOUND = {
    "fgsm": 0.95, "pgd": 1.0, "transfer": 0.4, "noise": 0.0, "square": 0.6, "pgd-restarts": 1.01, "pgd-steps": 1.02,
}  # fmt: skip
"""Share of the largest possible rise of the margin that each attack reaches."""

BUDGETS = (0.001, 0.01, 0.1)


def evaluation(
    strengths: dict[str, float], *, patients: int = 24, seed: int = 0, budgets: tuple[float, ...] = BUDGETS
) -> pd.DataFrame:
    """Scores of four images per patient; at budget b an attack raises the margin by about 100 b times its strength."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(np.arange(patients) % 2), 4)
    ids = np.repeat([f"p{index}" for index in range(patients)], 4)
    clean = np.repeat(rng.normal(size=patients), 4) * 0.5 + 0.5 * rng.normal(size=4 * patients) - 0.8
    slope = 100 * np.repeat(rng.uniform(0.7, 1.3, patients), 4) * rng.uniform(0.8, 1.2, 4 * patients)

    def rows(name: str, norm: str | None, budget: float, margins: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "image_id": [f"i{index}" for index in range(4 * patients)],
                "patient_id": ids,
                "patient_label": labels,
                "attack_id": name,
                "norm": norm,
                "budget": budget,
                "steps": 0,
                "restarts": 0,
                "logit": margins * (1 - 2 * labels),
            }
        )

    tables = [rows("clean", None, 0.0, clean)]
    for budget in budgets:
        for name, strength in strengths.items():
            jitter = 0.02 * rng.normal(size=4 * patients) if name != "pgd" else 0.0
            tables.append(rows(f"{name}-{budget:g}", "linf", budget, clean + slope * budget * (strength + jitter)))
    return pd.concat(tables, ignore_index=True)


def facts(**changes: Any) -> Facts:
    def at(*names: str) -> list[str]:
        return [f"{name}-{budget:g}" for name in names for budget in BUDGETS]

    found: Any = {
        "attacks": {
            "single_step": at("fgsm"),
            "iterated": at("pgd"),
            "white_box": at("fgsm", "pgd"),
            "transfer": at("transfer"),
            "noise": at("noise"),
            "square": at("square"),
            "more_restarts": {f"pgd-restarts-{budget:g}": f"pgd-{budget:g}" for budget in BUDGETS},
            "more_steps": {f"pgd-steps-{budget:g}": f"pgd-{budget:g}" for budget in BUDGETS},
        },
        "zero_gradient_share": 0.0,
        "zero_gradient_images": 96,
        "repeat_difference": 0.0,
        "repeat_images": 96,
        "budget_excess": 3e-8,
        "bounds_excess": 0.0,
        "stored_images": 96,
    }
    return found | changes


def verdicts(found: list[Gate]) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in found}


def test_a_sound_evaluation_passes_every_gate() -> None:
    for seed in range(5):
        found = gates(evaluation(SOUND, seed=seed), facts())
        assert set(verdicts(found).values()) == {"pass"}, (seed, verdicts(found))
        assert all(gate.measured is not None and gate.n in (24, 96) and gate.explanation for gate in found)
    assert [gate.unit for gate in found] == ["patients"] * 9 + ["images"] * 4


def test_gradients_that_vanish_fail_the_gates_that_other_attacks_can_see() -> None:
    """White-box attacks do no more than noise, while transfer and Square still work."""
    found = verdicts(
        gates(evaluation(SOUND | {"pgd": 0.0, "fgsm": 0.0, "pgd-restarts": 0.0, "pgd-steps": 0.0}), facts())
    )
    for name in ("auc_reaches_zero", "white_box_vs_transfer", "square_vs_white_box"):
        assert found[name] == "fail", (name, found)


def test_shattered_gradients_fail_because_one_step_goes_further_than_many() -> None:
    found = {gate.name: gate for gate in gates(evaluation(SOUND | {"pgd": 0.3}), facts())}
    gate = found["iterated_vs_single_step"]
    assert gate.verdict == "fail"
    # Measured as a share of the larger effect: (0.3 - 0.95) / 0.95.
    assert gate.measured == pytest.approx(-0.684, abs=0.03)
    assert found["white_box_vs_transfer"].verdict == "pass"


@pytest.mark.parametrize(("name", "gate"), [("pgd-restarts", "more_restarts"), ("pgd-steps", "more_steps")])
def test_an_attack_that_has_not_converged_fails(name: str, gate: str) -> None:
    found = verdicts(gates(evaluation(SOUND | {name: 1.2}), facts()))
    assert found[gate] == "fail"
    assert found["iterated_vs_single_step"] == "pass"
    at_limit = verdicts(gates(evaluation(SOUND | {name: 1.05}), facts()))
    assert at_limit[gate] == "inconclusive"


def test_square_that_wins_on_a_tenth_of_the_images_fails_and_on_one_of_many_passes() -> None:
    scores = evaluation(SOUND, patients=100)
    square, better = scores["attack_id"] == "square-0.01", (1 - 2 * scores["patient_label"]) * 50.0
    for share, verdict in ((0.1, "fail"), (0.0025, "pass"), (0.045, "inconclusive")):
        changed = scores.copy()
        at = changed.index[square][np.linspace(0, 399, round(400 * share), dtype=int)]
        changed.loc[at, "logit"] = better[at]
        gate = {gate.name: gate for gate in gates(changed, facts())}["square_vs_white_box"]
        assert (gate.verdict, gate.measured) == (verdict, pytest.approx(share, abs=1e-12))


def test_an_auc_that_rises_with_the_budget_fails() -> None:
    scores = evaluation(SOUND)
    clean = scores[scores["attack_id"] == "clean"]
    for name in ("fgsm-0.01", "pgd-0.01"):
        scores.loc[scores["attack_id"] == name, "logit"] = clean["logit"].to_numpy()
    gate = gates(scores, facts())[0]
    assert (gate.name, gate.verdict) == ("auc_falls_with_budget", "fail")
    assert gate.measured is not None and gate.measured > 0.01


def test_logits_that_no_attack_changes_fail_at_once() -> None:
    scores = evaluation(dict.fromkeys(SOUND, 0.0) | {"fgsm": 0.0})
    clean = scores.loc[scores["attack_id"] == "clean", "logit"].to_numpy()
    scores["logit"] = np.tile(clean, len(scores) // len(clean))
    found = {gate.name: gate for gate in gates(scores, facts())}
    assert found["auc_falls_with_budget"].verdict == "fail"
    assert "exactly as it was" in found["auc_falls_with_budget"].explanation
    assert found["auc_reaches_zero"].verdict == "fail"
    assert found["white_box_vs_noise"].verdict == "inconclusive"


def test_a_small_sample_is_inconclusive_and_says_how_small() -> None:
    for gate in gates(evaluation(SOUND, patients=8), facts(zero_gradient_images=8)):
        if gate.name in ("repeated_forwards", "within_budget", "within_bounds"):
            assert gate.verdict == "pass"
        else:
            assert (gate.verdict, gate.n) == ("inconclusive", 8), gate
            assert "8 patients" in gate.explanation or "8 images" in gate.explanation


def test_what_was_not_run_is_inconclusive_and_says_so() -> None:
    scores = evaluation({"pgd": 1.0})
    found = {gate.name: gate for gate in gates(scores, {"attacks": {"white_box": [f"pgd-{b:g}" for b in BUDGETS]}})}
    assert [name for name, gate in found.items() if gate.verdict == "pass"] == [
        "auc_falls_with_budget",
        "auc_reaches_zero",
    ]
    others = [gate for name, gate in found.items() if gate.verdict != "pass"]
    assert all(gate.verdict == "inconclusive" and gate.measured is None and gate.n == 0 for gate in others)
    assert all("was not measured" in gate.explanation for gate in others)
    assert {gate.verdict for gate in gates(scores, {})} == {"inconclusive"}


def test_a_surviving_auc_at_a_budget_that_is_not_large_is_inconclusive() -> None:
    found = {gate.name: gate for gate in gates(evaluation({"pgd": 0.1}, budgets=(0.001, 0.01)), facts())}
    assert found["auc_reaches_zero"].verdict == "inconclusive"
    assert "test 0.1 in the maximum norm" in found["auc_reaches_zero"].explanation


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"zero_gradient_share": 0.2}, "zero_gradients"),
        ({"zero_gradient_share": 1.0, "zero_gradient_images": 3}, "zero_gradients"),
        ({"repeat_difference": 0.01}, "repeated_forwards"),
        ({"repeat_difference": float("nan")}, "repeated_forwards"),
        ({"budget_excess": 1e-4}, "within_budget"),
        ({"bounds_excess": 1e-3}, "within_bounds"),
    ],
)
def test_a_measured_fact_beyond_its_limit_fails(changes: dict[str, Any], gate: str) -> None:
    found = verdicts(gates(evaluation(SOUND), facts(**changes)))
    assert [name for name, verdict in found.items() if verdict != "pass"] == [gate]
    assert found[gate] == "fail"


def test_the_interval_of_a_mean_knows_the_patients_of_the_images() -> None:
    """With equally many images per patient it is Student's interval of the patients' means."""
    scores = evaluation({"pgd": 1.0}, patients=12)
    margins = Margins.of(scores)
    rows = margins.common(["pgd-0.01"])
    change = rows["pgd-0.01"] - rows["clean"]
    found = margins.ratio(change, None, confidence=0.9)
    means = change.groupby(margins.patients[change.index]).mean()
    half = t.ppf(0.95, 11) * means.std() / np.sqrt(12)
    assert (found.value, found.lower, found.upper) == pytest.approx(
        (means.mean(), means.mean() - half, means.mean() + half), abs=1e-12
    )
    own = margins.ratio(change, change, confidence=0.9)
    assert (own.value, own.lower, own.upper) == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)


def test_equal_attacks_fail_no_more_often_than_the_confidence_allows() -> None:
    """Two attacks at the limit, 1% weaker, differ by chance alone: at most 2.5% of the verdicts are failures."""
    runs, fails = 100, 0
    for seed in range(runs):
        found = verdicts(gates(evaluation({"pgd": 0.99, "fgsm": 1.0}, seed=seed, budgets=(0.01,)), facts()))
        fails += found["iterated_vs_single_step"] == "fail"
    assert fails <= 0.025 * runs + 5, fails


def test_scores_that_stand_twice_or_lack_a_column_are_refused() -> None:
    scores = evaluation({"pgd": 1.0})
    with pytest.raises(ValueError, match="stands twice under one attack"):
        gates(pd.concat([scores, scores.iloc[:1]]), facts())
    with pytest.raises(ValueError, match="lacks norm"):
        gates(scores.drop(columns="norm"), facts())
