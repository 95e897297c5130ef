"""PPV and NPV against Bayes' rule counted by hand, and the coverage of their intervals by simulation."""

import numpy as np
import pytest

from pipeline.statistics import predictive_values, sensitivity_specificity
from pipeline.statistics.operating_points import proportion


def share(successes: int, total: int):
    return proportion(successes, total, nobody="nobody")


def test_at_the_cohorts_own_prevalence_they_are_the_shares_among_those_called() -> None:
    """40 of 50 malignant and 30 of 150 benign patients are called positive: 40 / 70 and 120 / 130."""
    found, rare = predictive_values(share(40, 50), share(120, 150), prevalences=[0.25, 0.006])
    assert found.ppv.value == pytest.approx(40 / 70, abs=1e-12)
    assert found.npv.value == pytest.approx(120 / 130, abs=1e-12)
    assert rare.ppv.value == pytest.approx(0.8 * 0.006 / (0.8 * 0.006 + 0.2 * 0.994), abs=1e-12)
    for value in (found.ppv, found.npv, rare.ppv, rare.npv):
        assert value.lower is not None and value.upper is not None and value.value is not None
        assert value.lower < value.value < value.upper
        assert (value.n_positive, value.n_negative, value.method) == (50, 150, "MOVER-R of Wilson intervals")


@pytest.mark.parametrize(("sensitivity", "specificity", "prevalence"), [(0.8, 0.8, 0.3), (0.9, 0.95, 0.006)])
def test_intervals_cover_the_true_predictive_values(sensitivity: float, specificity: float, prevalence: float) -> None:
    rng, runs = np.random.default_rng(4), 1500
    ppv = sensitivity * prevalence / (sensitivity * prevalence + (1 - specificity) * (1 - prevalence))
    npv = specificity * (1 - prevalence) / (specificity * (1 - prevalence) + (1 - sensitivity) * prevalence)
    covered = np.zeros(2)
    for caught, spared in zip(rng.binomial(40, sensitivity, runs), rng.binomial(60, specificity, runs), strict=True):
        (found,) = predictive_values(share(int(caught), 40), share(int(spared), 60), prevalences=[prevalence])
        for index, (value, truth) in enumerate(((found.ppv, ppv), (found.npv, npv))):
            covered[index] += value.lower is not None and value.lower <= truth <= (value.upper or 0.0)
    # Three standard errors of a binomial at 95% are 26 of 1,500.
    assert (covered >= 0.94 * runs - 26).all() and (covered <= 0.99 * runs).all(), covered / runs


def test_nobody_called_and_absent_classes_have_a_reason() -> None:
    (found,) = predictive_values(share(0, 10), share(20, 20), prevalences=[0.1])
    assert found.ppv.value is None and found.ppv.reason == "no patient is called positive"
    assert found.npv.value == pytest.approx(0.9)
    (absent,) = predictive_values(*sensitivity_specificity([1, 1], [0.0, 1.0], 0.5), prevalences=[0.1])
    assert absent.ppv.value is None and absent.ppv.reason is not None and "0 benign" in absent.ppv.reason


def test_a_perfect_call_has_a_bound_below_one() -> None:
    (found,) = predictive_values(share(20, 20), share(30, 30), prevalences=[0.1])
    assert found.ppv.value == found.npv.value == 1.0
    assert found.ppv.upper == found.npv.upper == 1.0
    assert found.ppv.lower is not None and 0.3 < found.ppv.lower < 1.0


def test_a_prevalence_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        predictive_values(share(1, 2), share(1, 2), prevalences=[1.0])
