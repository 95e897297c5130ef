"""Calibration against statsmodels and scikit-learn, its coverage by simulation, and what recalibration does."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, d2_brier_score

from pipeline.statistics import (
    NotEstimable,
    at_prevalence,
    calibration,
    calibration_change,
    fit_recalibration,
    wilson_interval,
)
from pipeline.statistics.logistic import fit_logistic


def patients(
    rng: np.random.Generator, size: int, *, intercept: float = -0.5, slope: float = 0.6, spread: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes whose true risk is sigmoid(intercept + slope z), so that the truth of every figure is known."""
    z = rng.normal(size=size) * spread
    return (rng.random(size) < expit(intercept + slope * z)).astype(int), z


def test_intercept_and_slope_equal_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is the second opinion; install it to run this")
    rng = np.random.default_rng(0)
    for size in (40, 400):
        labels, z = patients(rng, size)
        found = calibration(labels, z, resamples=5)
        fit = api.Logit(labels, api.add_constant(z)).fit(disp=0, method="newton", maxiter=100, tol=1e-14)
        assert (found.intercept.value, found.slope.value) == pytest.approx(tuple(fit.params), abs=1e-10)
        offset = api.GLM(labels, np.ones((size, 1)), family=api.families.Binomial(), offset=z)
        level = offset.fit(tol=1e-14, tol_criterion="params").params[0]
        assert found.in_the_large.value == pytest.approx(level, abs=1e-10)


def test_every_weighted_fit_equals_statsmodels_on_the_patients_drawn() -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is the second opinion; install it to run this")
    rng = np.random.default_rng(1)
    labels, z = patients(rng, 60)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=15)
    start = fit_logistic(labels == 1, z, np.ones((1, 60)), terms="intercept and slope")[0]
    found = fit_logistic(labels == 1, z, weights, terms="intercept and slope", start=start)
    for row, (a, b) in zip(weights, found, strict=True):
        drawn = np.repeat(np.arange(60), row)
        fit = api.Logit(labels[drawn], api.add_constant(z[drawn])).fit(disp=0, method="newton", maxiter=100, tol=1e-14)
        assert (a, b) == pytest.approx(tuple(fit.params), abs=1e-9)


def test_wilson_intervals_equal_statsmodels() -> None:
    stats = pytest.importorskip(
        "statsmodels.stats.proportion", reason="statsmodels is the second opinion; install it to run this"
    )
    for successes, total in ((0, 10), (1, 10), (81, 263), (10, 10)):
        expected = stats.proportion_confint(successes, total, alpha=0.05, method="wilson")
        assert wilson_interval(successes, total) == pytest.approx(expected, abs=1e-10)


def test_brier_scaled_brier_and_curve_equal_scikit_learn() -> None:
    labels, z = patients(np.random.default_rng(2), 300)
    found = calibration(labels, z, resamples=5)
    risk = expit(z)
    assert found.brier.value == pytest.approx(brier_score_loss(labels, risk), abs=1e-12)
    assert found.scaled_brier.value == pytest.approx(d2_brier_score(labels, risk), abs=1e-10)
    observed, predicted = calibration_curve(labels, risk, n_bins=10, strategy="quantile")
    assert [part.observed.value for part in found.curve] == pytest.approx(observed.tolist(), abs=1e-12)
    assert [part.predicted for part in found.curve] == pytest.approx(predicted.tolist(), abs=1e-12)
    assert found.ece.value == pytest.approx(np.abs(observed - predicted).mean(), abs=1e-12)
    assert [part.observed.total for part in found.curve] == [30] * 10


def test_equal_risks_share_a_bin() -> None:
    labels, z = np.tile([0, 1], 60), np.repeat([-1.0, 0.0, 1.0], 40)
    found = calibration(labels, z, resamples=5)
    assert [part.observed.total for part in found.curve] == [40, 40, 40]


def test_intervals_cover_the_true_intercept_slope_and_level() -> None:
    rng, runs = np.random.default_rng(3), 200
    # With the slope fixed at 1 the true level solves E[sigmoid(z + a)] = E[sigmoid(-0.5 + 0.6 z)].
    z = np.linspace(-8, 8, 4001)
    density = np.exp(-(z**2) / 8)
    levels = np.linspace(-2, 2, 4001)
    share = (density * expit(-0.5 + 0.6 * z)).sum() / density.sum()
    means = np.array([(density * expit(z + level)).sum() / density.sum() for level in levels])
    truth = {"intercept": -0.5, "slope": 0.6, "in_the_large": float(np.interp(share, means, levels))}
    covered = dict.fromkeys(truth, 0)
    for run in range(runs):
        labels, z = patients(rng, 150)
        found = calibration(labels, z, resamples=200, seed=run)
        for name, value in truth.items():
            estimate = getattr(found, name)
            covered[name] += estimate.lower <= value <= estimate.upper
    # Percentile intervals run a little short; three standard errors of a binomial are 9 of 200.
    assert all(0.88 * runs <= count <= 0.99 * runs for count in covered.values()), covered


def test_few_patients_and_separated_classes_have_a_reason_and_no_figure() -> None:
    few = calibration([1] * 9 + [0] * 50, np.linspace(1, -1, 59))
    assert few.curve == []
    assert few.slope.value is None and few.slope.reason is not None and "9 malignant and 50 benign" in few.slope.reason
    apart = calibration([1] * 20 + [0] * 20, np.linspace(3, -3, 40), resamples=20)
    assert apart.slope.value is None and apart.slope.reason is not None and "do not overlap" in apart.slope.reason
    assert apart.brier.value is not None and apart.brier.lower is not None
    constant = calibration([1, 0] * 15, np.zeros(30), resamples=20)
    assert constant.slope.value is None
    assert constant.in_the_large.value == pytest.approx(0.0, abs=1e-12)


def test_an_interval_is_withheld_where_many_resamples_have_no_fit() -> None:
    labels, z = np.array([0] * 12 + [1] * 12), np.arange(24.0)
    z[[11, 12]] = z[[12, 11]]
    found = calibration(labels, z, resamples=200)
    assert found.slope.value is not None
    assert found.slope.lower is None and found.slope.reason is not None and "of 200 resamples" in found.slope.reason


def test_recalibration_on_validation_mends_the_test_patients() -> None:
    rng = np.random.default_rng(5)
    fitted = fit_recalibration(*patients(rng, 4000))
    assert (fitted.intercept, fitted.slope) == pytest.approx((-0.5, 0.6), abs=0.12)
    labels, z = patients(rng, 4000)
    found = calibration_change(fitted, labels, z, resamples=50)
    assert found.after is not None
    assert found.before.slope.value == pytest.approx(0.6, abs=0.1)
    assert found.after.slope.lower is not None and found.after.slope.upper is not None
    assert found.after.slope.value == pytest.approx(1.0, abs=0.12)
    assert found.before.ece.value is not None and found.after.ece.value is not None
    assert found.after.ece.value < found.before.ece.value / 2
    # A linear change of the logit changes the regression by algebra alone.
    assert found.after.slope.value == pytest.approx((found.before.slope.value or 0) / (fitted.slope or 1), abs=1e-9)


def test_a_network_that_ranks_validation_backwards_is_not_recalibrated() -> None:
    labels, z = patients(np.random.default_rng(6), 200)
    fitted = fit_recalibration(labels, -z)
    assert fitted.slope is None and fitted.reason is not None and "the slope on validation is -" in fitted.reason
    assert calibration_change(fitted, labels, -z, resamples=5).after is None
    with pytest.raises(NotEstimable, match="there is no recalibration"):
        fitted.apply(z)
    assert fit_recalibration([1, 0], [0.0, 1.0]).reason is not None


def test_moving_risks_to_another_prevalence_is_bayes_rule() -> None:
    """A test of sensitivity 0.8 and specificity 0.9 has PPV 8 / 9 at one half and 0.8 / (0.8 + 0.1 * 19) at 5%."""
    assert at_prevalence([8 / 9], fitted=0.5, stated=0.05)[0] == pytest.approx(0.8 / (0.8 + 0.1 * 19), abs=1e-12)
    risk = np.array([0.0, 0.2, 1.0])
    np.testing.assert_allclose(at_prevalence(risk, fitted=0.3, stated=0.3), risk, atol=1e-12)
    assert logit(at_prevalence([0.2], fitted=0.3, stated=0.1)[0]) == pytest.approx(
        logit(0.2) + logit(0.1) - logit(0.3), abs=1e-12
    )
