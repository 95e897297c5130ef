"""The checks behind the gates that compare attacks: each says pass, fail, or that the sample cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.statistics.auc import auc
from pipeline.statistics.bootstrap import percentile_interval
from pipeline.statistics.clustered import clustered_auc, clustered_bootstrap_auc
from pipeline.statistics.operating_points import wilson_interval
from pipeline.statistics.paired_margins import Interval, Margins
from pipeline.statistics.robustness import CLEAN, is_maximum_norm

LEAST_PATIENTS = 10
"""Ours: with fewer patients no comparison of attacks is given a verdict."""

WEAKER = 0.01
"""Ours: an attack that moves the mean margin less than another by at most this share counts as not weaker."""

MOVED = 0.05
"""Share of the mean margin's rise by which more restarts or steps may move it."""

BEATEN = 0.05
"""Share of images on which Square may beat the best white-box attack."""

RISE = 0.005
"""A rise of AUC that counts as none: two implementations of one attack differ by as much."""

NEAR_ZERO, REVERSED = 0.05, 0.3
"""Ours: an AUC counts as about 0 up to 0.05, where its interval stays below 0.3 (11 patients of each class at 0)."""

LARGE = 0.1
"""Ours: maximum-norm budget, on images in [0, 1], from which a surviving AUC is held against the attack."""

TIE = 1e-6
"""A margin must be larger by this to beat another; logits are float32."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Finding:
    """Verdict of a check, what was measured against which limit, on how many, and why where it is inconclusive."""

    verdict: Literal["pass", "fail", "inconclusive"]
    measured: float | None
    limit: float
    n: int
    reason: str = ""
    unit: str = "patients"


@dataclass(frozen=True)
class Compared:
    """One comparison, such as at one budget, with two intervals.

    A pass needs every comparison, so that each may be judged at the confidence asked for (intersection-union test,
    Berger 1982, Technometrics 24:295); a failure needs only one, so that it is judged at the wider interval of
    Bonferroni.
    """

    plain: Interval
    wide: Interval


def not_weaker(
    margins: Margins,
    strong: Sequence[str],
    weak: Sequence[str],
    yardsticks: Sequence[Sequence[str]],
    *,
    confidence: float,
) -> Finding:
    """Whether the strongest of one kind moves the margins at least as far as the strongest of another.

    Measured is the mean difference of their margins as a share of the effect: the largest mean rise from clean that any
    attack of these kinds and of ``yardsticks`` reaches at the norm and budget.
    """
    places = _places(margins, strong, weak)
    found = []
    for place in places:
        one, two = (margins.strongest(_at(margins, names, place)) for names in (strong, weak))
        others = [margins.strongest(at) for names in yardsticks if (at := _at(margins, names, place))]
        found += _shares(margins, one, two, others, comparisons=len(places), confidence=confidence)
    return _judge(found, -WEAKER, np.inf, limit=-WEAKER) if found else _nothing(-WEAKER, compared=bool(places))


def moved_by(margins: Margins, pairs: Sequence[tuple[str, str]], *, confidence: float) -> Finding:
    """Whether an attack with more effort leaves the mean margin where the plain one left it.

    Measured is the mean difference of their margins as a share of the larger one's mean rise from clean.
    """
    found = []
    for more, base in pairs:
        found += _shares(margins, more, base, (), comparisons=len(pairs), confidence=confidence)
    return _judge(found, -MOVED, MOVED, limit=MOVED) if found else _nothing(MOVED, compared=bool(pairs))


def beaten_by_square(margins: Margins, white: Sequence[str], square: Sequence[str], *, confidence: float) -> Finding:
    """Share of images on which Square goes further than every white-box attack at the norm and budget."""
    places = _places(margins, square, white)
    found = []
    for place in places:
        names, best = _at(margins, square, place), _at(margins, white, place)
        rows = margins.table[[*names, *best]]
        rows = rows[rows[names].notna().any(axis=1) & rows[best].notna().any(axis=1)]
        if rows.empty:
            continue
        wins = rows[names].max(axis=1) > rows[best].max(axis=1) + TIE
        patients = margins.patients[wins.index]
        # Images of a patient are alike, so that they count as fewer: divided by the design effect (Kish 1965).
        size = len(wins) / _design_effect(wins, patients)
        plain, wide = (
            Interval(float(wins.mean()), *_wilson(float(wins.mean()), size, confidence=level), patients.nunique())
            for level in (confidence, _wider(confidence, len(places)))
        )
        found.append(Compared(plain, wide))
    return _judge(found, -np.inf, BEATEN, limit=BEATEN) if found else _nothing(BEATEN, compared=False)


def falls_with_budget(margins: Margins, white: Sequence[str], *, seed: int, confidence: float) -> Finding:
    """Whether AUC and margins worsen from each budget to the next, under the strongest white-box attack at each.

    Measured is the largest rise of the image-level AUC from one budget to the next. AUC moves in steps of one pair, so
    that the mean margins are held against the same demand, and must rise from clean to the largest budget at all.
    """
    curves = _curves(margins, white)
    steps = sum(len(curve) for curve in curves)
    rises, changes, rising = [], [], True
    for curve in curves:
        rows, names = margins.common(curve), [CLEAN, *curve]
        if rows.empty or margins.labels[rows.index].nunique() < 2:
            continue
        if all(np.array_equal(rows[name], rows[CLEAN]) for name in curve):
            patients = int(margins.patients[rows.index].nunique())
            return Finding("fail", 0.0, RISE, patients, "The attacks leave every logit exactly as it was.")
        effect = rows[curve[-1]] - rows[CLEAN]
        whole = margins.ratio(effect, None, confidence=confidence)
        rising &= whole.lower > 0.0
        for before, after in zip(names, names[1:], strict=False):
            rises.append(_auc_rise(margins, rows, before, after, steps=steps, seed=seed, confidence=confidence))
            if whole.lower > 0.0:
                plain, wide = (
                    margins.ratio(rows[after] - rows[before], effect, confidence=level)
                    for level in (confidence, _wider(confidence, steps))
                )
                changes.append(Compared(plain, wide))
    if not rises:
        return _nothing(RISE, compared=False)
    by_auc = _judge(rises, -np.inf, RISE, limit=RISE)
    by_margin = _judge(changes, -WEAKER, np.inf, limit=-WEAKER) if changes else by_auc
    if by_auc.n < LEAST_PATIENTS:
        return by_auc
    worst = max(rise.plain.value for rise in rises)
    if "fail" in (by_auc.verdict, by_margin.verdict):
        return Finding("fail", worst, RISE, by_auc.n)
    if worst <= RISE and by_margin.verdict == "pass" and rising:
        return Finding("pass", worst, RISE, by_auc.n)
    return Finding("inconclusive", worst, RISE, by_auc.n, _few(by_auc.n))


def reaches_zero(margins: Margins, white: Sequence[str], *, seed: int, confidence: float) -> Finding:
    """Whether the image-level AUC at the largest budget is about 0, under the strongest white-box attack there."""
    ends = [curve[-1] for curve in _curves(margins, white)]
    found = []
    for name in ends:
        rows = margins.common([name])
        labels = margins.labels[rows.index].to_numpy()
        patients = margins.patients[rows.index]
        logits = rows[name].to_numpy() * (1 - 2 * labels)
        estimate = clustered_auc(
            labels, logits, patients.to_numpy(), resamples=RESAMPLES, seed=seed, confidence=confidence
        ).estimate
        if estimate.value is not None:
            found.append((estimate, name, int(patients.nunique())))
    if not found:
        return _nothing(NEAR_ZERO, compared=False)
    estimate, name, patients_n = min(found, key=lambda entry: entry[0].value if entry[0].value is not None else 1.0)
    norm, budget = margins.place[name]
    value, lower, upper = estimate.value, estimate.lower, estimate.upper
    if patients_n < LEAST_PATIENTS or lower is None or upper is None or value is None:
        return Finding("inconclusive", value, NEAR_ZERO, patients_n, _few(patients_n))
    if value <= NEAR_ZERO and upper <= REVERSED:
        return Finding("pass", value, NEAR_ZERO, patients_n)
    if lower <= NEAR_ZERO:
        return Finding("inconclusive", value, NEAR_ZERO, patients_n, _few(patients_n))
    if is_maximum_norm(norm) and budget >= LARGE:
        return Finding("fail", value, NEAR_ZERO, patients_n)
    reason = (
        f"The largest budget is {budget:g} in the norm {norm or 'not named'}, which a network may withstand; "
        f"test {LARGE:g} in the maximum norm."
    )
    return Finding("inconclusive", value, NEAR_ZERO, patients_n, reason)


def _places(margins: Margins, one: Sequence[str], two: Sequence[str]) -> list[tuple[str, float]]:
    """Norms and budgets at which both kinds have an attack."""
    return sorted({margins.place[name] for name in one} & {margins.place[name] for name in two})


def _at(margins: Margins, names: Sequence[str], place: tuple[str, float]) -> list[str]:
    return [name for name in names if margins.place[name] == place]


def _curves(margins: Margins, white: Sequence[str]) -> list[list[str]]:
    """For each norm the strongest white-box attack at each budget above 0, by rising budget."""
    places = sorted({margins.place[name] for name in white if margins.place[name][1] > 0.0})
    curves: dict[str, list[str]] = {}
    for place in places:
        curves.setdefault(place[0], []).append(margins.strongest(_at(margins, white, place)))
    return list(curves.values())


def _wider(confidence: float, comparisons: int) -> float:
    return 1.0 - (1.0 - confidence) / max(1, comparisons)


def _shares(
    margins: Margins, one: str, two: str, others: Sequence[str], *, comparisons: int, confidence: float
) -> list[Compared]:
    """Mean difference of two attacks' margins as a share of the effect; nothing where no effect can be measured."""
    rows = margins.common([one, two, *others])
    effect = _effect(margins, rows, [one, two, *others], confidence=confidence)
    if effect is None:
        return []
    plain, wide = (
        margins.ratio(rows[one] - rows[two], effect, confidence=level)
        for level in (confidence, _wider(confidence, comparisons))
    )
    return [Compared(plain, wide)]


def _effect(margins: Margins, rows: pd.DataFrame, names: Sequence[str], *, confidence: float) -> pd.Series | None:
    """Rise of the margins under the attack that raises them most, or None where it is not measurably above 0."""
    if rows.empty:
        return None
    effects = [rows[name] - rows[CLEAN] for name in names]
    largest = max(effects, key=lambda effect: float(effect.mean()))
    return largest if margins.ratio(largest, None, confidence=confidence).lower > 0.0 else None


def _auc_rise(
    margins: Margins, rows: pd.DataFrame, before: str, after: str, *, steps: int, seed: int, confidence: float
) -> Compared:
    labels = margins.labels[rows.index].to_numpy()
    patients = margins.patients[rows.index]
    logits = rows[[before, after]].to_numpy().T * (1 - 2 * labels)
    value = auc(labels, logits[1]) - auc(labels, logits[0])
    drawn = clustered_bootstrap_auc(labels, logits, patients.to_numpy(), resamples=RESAMPLES, seed=seed)
    change = (drawn[1] - drawn[0])[np.isfinite(drawn).all(axis=0)]
    plain, wide = (
        Interval(value, *percentile_interval(change, confidence=level), int(patients.nunique()))
        for level in (confidence, _wider(confidence, steps))
    )
    return Compared(plain, wide)


def _design_effect(wins: pd.Series, patients: pd.Series) -> float:
    """Variance of the share with patients as clusters over that of as many single images; at least 1."""
    share, size = float(wins.mean()), len(wins)
    if share in (0.0, 1.0):
        return 1.0
    rest = (wins - share).groupby(patients.to_numpy()).sum()
    return max(1.0, float((rest**2).sum()) / (size * share * (1.0 - share)))


def _wilson(share: float, size: float, *, confidence: float) -> tuple[float, float]:
    """Wilson interval of a share of a number of images that the design effect may have made no whole one."""
    total = max(1, int(size))
    lower, upper = wilson_interval(round(share * total), total, confidence=confidence)
    return min(lower, share), max(upper, share)


def _judge(found: Sequence[Compared], low: float, high: float, *, limit: float) -> Finding:
    """Hold comparisons against the range [low, high]; what is shown is the one that lies furthest out of it."""

    def excess(one: Compared) -> float:
        return max(one.plain.value - high, low - one.plain.value)

    failed = [one for one in found if one.wide.lower > high or one.wide.upper < low]
    worst, patients = max(failed or found, key=excess).plain, min(one.plain.patients for one in found)
    if patients < LEAST_PATIENTS:
        return Finding("inconclusive", worst.value, limit, patients, _few(patients))
    if failed:
        return Finding("fail", worst.value, limit, worst.patients)
    if all(one.plain.lower >= low and one.plain.upper <= high for one in found):
        return Finding("pass", worst.value, limit, patients)
    return Finding("inconclusive", worst.value, limit, patients, _few(patients))


def _few(patients: int) -> str:
    return f"The sample cannot tell: {patients} patients."


def _nothing(limit: float, *, compared: bool) -> Finding:
    reason = "No attack moves the margins measurably." if compared else "It was not measured: no such attacks were run."
    return Finding("inconclusive", None, limit, 0, reason)
