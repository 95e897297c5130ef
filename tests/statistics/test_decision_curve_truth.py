"""Net benefit against dcurves and counts by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from pipeline.statistics import decision_curve


def patients(size: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=size) * 1.5 - 0.5
    return (rng.random(size) < expit(z)).astype(int), np.round(expit(z), 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prevalence", [None, 0.05])
def test_net_benefit_equals_dcurves(prevalence: float | None) -> None:
    dcurves = pytest.importorskip("dcurves", reason="dcurves is the second opinion; install it to run this")
    labels, risks = patients()
    found = decision_curve(labels, risks, prevalence=prevalence, resamples=5)
    table = pd.DataFrame({"cancer": labels, "model": risks})
    other = dcurves.dca(table, "cancer", ["model"], thresholds=found.thresholds, prevalence=prevalence)
    for name, values in (("model", found.model), ("all", found.treat_all), ("none", found.treat_none)):
        expected = other.loc[other["model"] == name, "net_benefit"].tolist()
        assert values == pytest.approx(expected, abs=1e-10), name


def test_net_benefit_by_hand() -> None:
    """At 0.25 three are called, two of them malignant: (2 - 1 / 3) / 5; acting on all: (2 - 3 / 3) / 5."""
    found = decision_curve([1, 1, 0, 0, 0], [0.9, 0.25, 0.3, 0.2, 0.1], thresholds=[0.25], resamples=5)
    assert found.model == pytest.approx([(2 - 1 / 3) / 5], abs=1e-12)
    assert found.treat_all == pytest.approx([1 / 5], abs=1e-12)
    assert (found.prevalence, found.stated, found.n_positive, found.n_negative) == (0.4, False, 2, 3)


def test_every_resample_is_the_net_benefit_of_the_patients_drawn() -> None:
    labels, risks = patients(40)
    found = decision_curve(labels, risks, thresholds=[0.2, 0.5], resamples=30, seed=3)
    draws = np.random.default_rng(3).integers(0, 40, size=(30, 40), dtype=np.int32)
    values = []
    for rows in draws:
        called = risks[rows][:, None] >= [0.2, 0.5]
        true, false = (called & (labels[rows] == 1)[:, None]).sum(0), (called & (labels[rows] == 0)[:, None]).sum(0)
        values.append((true - false * np.array([0.25, 1.0])) / 40)
    assert found.model_lower == pytest.approx(np.quantile(values, 0.025, axis=0).tolist(), abs=1e-12)
    assert found.model_upper == pytest.approx(np.quantile(values, 0.975, axis=0).tolist(), abs=1e-12)


def test_at_a_stated_prevalence_acting_on_everybody_has_no_spread() -> None:
    labels, risks = patients()
    found = decision_curve(labels, risks, thresholds=[0.1], prevalence=0.1, resamples=50)
    assert found.treat_all == found.treat_all_lower == found.treat_all_upper == pytest.approx([0.0], abs=1e-12)
    assert found.model_lower[0] < found.model[0] < found.model_upper[0]


def test_one_class_and_few_patients_have_a_reason() -> None:
    absent = decision_curve([1, 1], [0.2, 0.4])
    assert absent.model == [] and absent.reason is not None and "0 benign" in absent.reason
    few = decision_curve([1, 0, 0], [0.2, 0.4, 0.1], thresholds=[0.3])
    assert len(few.model) == 1 and few.model_lower == [] and few.reason is not None


@pytest.mark.parametrize(
    ("risks", "settings", "what"),
    [
        ([0.5, 1.5], {}, "risks, not logits"),
        ([0.5, 0.5], {"thresholds": [0.0]}, "strictly between 0 and 1"),
        ([0.5, 0.5], {"prevalence": 1.0}, "prevalence is 1.0"),
    ],
)
def test_logits_and_thresholds_that_are_no_risks_are_refused(risks: list[float], settings: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        decision_curve([1, 0], risks, **settings)
