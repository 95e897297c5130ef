"""The paper's claims, each beside what our run says of it: agrees, disagrees, cannot tell, not run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pipeline.experiments.published import PAPER_ROWS, Dataset, display_name
from pipeline.experiments.tables import NOT_RUN, TEST_SHARE, comparisons, p_text
from pipeline.statistics import CLEAN, NotEstimable, corrected_t, ordered_attacks

Verdict = Literal["agrees", "disagrees", "cannot tell", "not run"]
Kind = Literal["better", "same", "no better"]

F = "dual_arfl"
MARGIN = 0.05
"""AUC within which "changes nothing", "no better" and "stable" are taken to hold (ours; not stated in the paper)."""


class RowClaim(NamedTuple):
    """A claim about differences of AUC between rows of the table.

    ``clean``: without attack as well as under it; ``tested``: significant by the paper's own test over folds.
    """

    text: str
    kind: Kind
    pairs: tuple[tuple[str, str], ...]
    clean: bool
    tested: bool = False


class SweepClaim(NamedTuple):
    """A claim about one value of a parameter: best of all ("better"), or no change at larger ones ("same")."""

    text: str
    kind: Kind
    parameter: str
    value: float
    dataset: Dataset | None


class Gap(NamedTuple):
    """A paired difference of AUCs with its 95% interval; bounds that are not estimable are NaN."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"{self.name}: not estimable"
        interval = "no interval" if math.isnan(self.low) else f"{self.low:+.3f}, {self.high:+.3f}"
        return f"{self.name}: {self.value:+.3f} [{interval}]"


ROW_CLAIMS = (
    RowClaim("F is better than D (p < 0.05)", "better", ((F, "adversarial_arfl"),), clean=True, tested=True),
    RowClaim(
        "F has the best AUC under attack", "better", tuple((F, row) for row in PAPER_ROWS if row != F), clean=False
    ),
    RowClaim(
        "ARFL changes nothing under standard training (B and A)", "same", (("standard_arfl", "standard"),), clean=True
    ),
    RowClaim("C is no better than A under attack (CMMD)", "no better", (("adversarial", "standard"),), clean=False),
)
SWEEP_CLAIMS = (
    SweepClaim("the share of standard data is best at 0.5 (UPMC)", "better", "standard_ratio", 0.5, "upmc"),
    SweepClaim("the share of standard data is best at 0.75 (CMMD)", "better", "standard_ratio", 0.75, "cmmd"),
    SweepClaim("the weight of ARFL is best at 10", "better", "weight", 10.0, None),
    SweepClaim("AUC is stable from a training budget of 0.01 on", "same", "budget", 0.01, None),
)


def claims(
    scores: pd.DataFrame,
    compared: pd.DataFrame | None = None,
    *,
    sweeps: Mapping[str, pd.DataFrame] | None = None,
    dataset: Dataset | None = None,
    margin: float = MARGIN,
    test_share: float = TEST_SHARE,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold the paper's claims against our scores, a row per claim and attack.

    "Better" agrees when the paired interval lies above 0 and disagrees when it lies below. "Same" agrees when the
    interval lies within the margin, else disagrees when it excludes 0; "no better" agrees when no part of it lies above
    the margin, else disagrees when it lies above 0. A claim of several differences agrees when all do and disagrees
    when one does; a claim of significance agrees only if the Mann-Whitney test over folds does too. Anything else is
    "cannot tell". Intervals are those of the paired patient bootstrap; in sweeps, of
    which only AUCs of folds are given, those of the corrected t-test. None is widened for the number of differences.

    Args:
        scores: The table of scores of ``pipeline.experiments.tables``.
        compared: What ``comparisons`` said of these scores; comparisons that it lacks are made here.
        sweeps: "standard_ratio", "weight" or "budget" -> table with value, fold, attack_id, auc.
        dataset: The paper's data set that the run repeats; leaves out what was claimed of the other one's sweep.
        margin: See ``MARGIN``.
        test_share: n_test / n_train, for the corrected t-test.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        claim, attack_id, says (differences with intervals, and what they rest on), verdict.
    """
    known = set() if compared is None else set(zip(compared["first"], compared["second"], strict=True))
    pairs = [pair for claim in ROW_CLAIMS for pair in claim.pairs if pair not in known]
    table = comparisons(scores, against=(), pairs=pairs, test_share=test_share, resamples=resamples, seed=seed)
    table = table if compared is None else pd.concat([compared, table])
    attacks = ordered_attacks(scores)
    rows: list[tuple[str, str, str, Verdict]] = []
    for claim in ROW_CLAIMS:
        over = [attack_id for attack_id in attacks if claim.clean or attack_id != CLEAN]
        for attack_id in over:
            chosen = table[table["attack_id"] == attack_id].set_index(["first", "second"])
            rows.append((claim.text, attack_id, *_of_rows(claim, chosen, margin)))
        if not over:
            rows.append((claim.text, "", "no scores", "not run"))
    for swept in SWEEP_CLAIMS:
        if dataset and swept.dataset not in (None, dataset):
            continue
        sweep = (sweeps or {}).get(swept.parameter, pd.DataFrame(columns=["value", "fold", "attack_id", "auc"]))
        over = sweep_attacks(sweep)
        for attack_id in over:
            rows.append((swept.text, attack_id, *_of_sweep(swept, sweep, attack_id, margin, test_share)))
        if not over:
            rows.append((swept.text, "", f"no sweep of {swept.parameter}", "not run"))
    return pd.DataFrame(rows, columns=["claim", "attack_id", "says", "verdict"])


def verdicts(table: pd.DataFrame) -> str:
    """The verdicts of :func:`claims` for a terminal: a line per claim that was tried, a column per attack."""
    tried = table.groupby("claim")["verdict"].transform(lambda found: (found != "not run").any())
    absent = "; ".join(table.loc[~tried, "claim"].drop_duplicates())
    if not tried.any():
        return f"not run: {absent}"
    table = table[tried]
    wide = table.pivot(index="claim", columns="attack_id", values="verdict")
    order = [name for name in table["attack_id"].drop_duplicates() if name] + [""] * ("" in wide.columns)
    shown = wide.reindex(index=table["claim"].drop_duplicates(), columns=order).fillna("")
    claim_width = max(map(len, ("claim", *shown.index)))
    names = [name or "all" for name in shown.columns]
    widths = [max(len(name), *map(len, shown[column])) for name, column in zip(names, shown.columns, strict=True)]
    last = [f"not run: {absent}"] if absent else []
    rows = [("claim", *names), *((claim, *row) for claim, row in zip(shown.index, shown.to_numpy(), strict=True))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, (claim_width, *widths), strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *last])


def judge(kind: Kind, gaps: Iterable[Gap], *, margin: float) -> Verdict:
    """The verdict on differences that a claim calls better than 0, the same as 0, or no better than 0."""
    found = [_judge_one(kind, gap, margin) for gap in gaps]
    if "disagrees" in found:
        return "disagrees"
    return "agrees" if found and set(found) == {"agrees"} else "cannot tell"


def sweep_attacks(sweep: pd.DataFrame) -> list[str]:
    """Names of a sweep's attacks, which come without budgets: "clean" first, then by the number after "@"."""

    def place(name: str) -> tuple[bool, float, str]:
        try:
            return name != CLEAN, float(name.rpartition("@")[2]), name
        except ValueError:
            return name != CLEAN, math.inf, name

    return sorted(set(sweep["attack_id"]), key=place)


def _judge_one(kind: Kind, gap: Gap, margin: float) -> Verdict:
    if math.isnan(gap.low):
        return "cannot tell"
    above, below = gap.low > 0.0, gap.high < 0.0
    if kind == "better":
        return "agrees" if above else "disagrees" if below else "cannot tell"
    if gap.high <= margin and (kind == "no better" or gap.low >= -margin):
        return "agrees"
    return "disagrees" if above or (below and kind == "same") else "cannot tell"


def _of_rows(claim: RowClaim, compared: pd.DataFrame, margin: float) -> tuple[str, Verdict]:
    gaps, texts, absent = [], [], []
    for pair in claim.pairs:
        row = compared.loc[pair]
        name = " minus ".join(display_name(method).split()[0] for method in pair)
        if row["note"].startswith(NOT_RUN):
            absent.append(name)
            continue
        gaps.append(Gap(name, row["difference"], row["lower"], row["upper"]))
        texts.append(str(gaps[-1]))
        if len(claim.pairs) == 1:
            texts += [f"{row['folds']} folds, {row['patients']} patients"] + _tests(row)
    says, verdict = _answer(claim.kind, gaps, texts, absent, margin)
    if claim.tested and verdict == "agrees" and not (compared.loc[list(claim.pairs), "mann_whitney_p"] < 0.05).all():
        return f"{says}; the Mann-Whitney test over folds does not say so", "cannot tell"
    return says, verdict


def _tests(row: pd.Series) -> list[str]:
    """The tests of one comparison; what was not estimable is in its note."""
    texts = []
    if not math.isnan(row["mann_whitney_p"]):
        least = p_text(row["mann_whitney_least_p"])
        texts.append(f"Mann-Whitney p {p_text(row['mann_whitney_p'])} (least in reach {least})")
    if not math.isnan(row["delong_p"]):
        texts.append(f"DeLong p {p_text(row['delong_p'])}")
    if not math.isnan(row["t_p"]):
        texts.append(str(Gap("over folds (corrected t)", row["fold_difference"], row["t_lower"], row["t_upper"])))
    return texts + ([row["note"]] if row["note"] else [])


def _of_sweep(
    claim: SweepClaim, sweep: pd.DataFrame, attack_id: str, margin: float, test_share: float
) -> tuple[str, Verdict]:
    wide = sweep[sweep["attack_id"] == attack_id].pivot(index="fold", columns="value", values="auc")
    at = np.isclose(wide.columns.to_numpy(dtype=np.float64), claim.value)
    others = wide.columns[(wide.columns > claim.value) & ~at] if claim.kind == "same" else wide.columns[~at]
    if not at.any() or not len(others):
        return f"the sweep lacks {claim.value:g} or what it is compared with", "not run"
    gaps, texts = [], [f"AUC {wide.loc[:, at].mean().iloc[0]:.3f} at {claim.value:g}"]
    for other in others:
        both = pd.DataFrame({"here": wide.loc[:, at].iloc[:, 0], "there": wide[other]}).dropna()
        first, second, name = both["here"], both["there"], f"{claim.value:g} minus {other:g}"
        if claim.kind == "same":
            first, second, name = second, first, f"{other:g} minus {claim.value:g}"
        try:
            test = corrected_t(first, second, test_share=test_share)
            gap, reason = Gap(name, test.difference, test.low, test.high), f" ({test.folds} folds)"
        except NotEstimable as error:
            gap, reason = Gap(name, float((first - second).mean()), math.nan, math.nan), f" ({error})"
        gaps.append(gap)
        texts.append(f"{gap}{reason}")
    return _answer(claim.kind, gaps, texts, [], margin)


def _answer(kind: Kind, gaps: list[Gap], texts: list[str], absent: list[str], margin: float) -> tuple[str, Verdict]:
    """What is said and the verdict; a claim of several differences cannot agree while one of them was not run."""
    verdict = judge(kind, gaps, margin=margin) if gaps else "not run"
    if absent:
        texts = [*texts, f"not run: {', '.join(absent)}"]
        verdict = "cannot tell" if verdict == "agrees" else verdict
    return "; ".join(texts), verdict
