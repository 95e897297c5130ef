"""Tables of a cross-validation experiment: AUC of each fold, the paper's table, pooled AUCs and comparisons.

Each begins with one table of scores, a row per method, fold, attack and patient: ``method`` (str), ``fold`` (int),
``attack_id`` ("clean", "pgd-7@0.001"), ``budget`` (0 for clean), ``patient_id``, ``patient_label`` (0 or 1), ``logit``.
What is missing or not estimable says so in a ``note``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.experiments.paired import FIGURES, compare
from pipeline.experiments.published import PAPER_BUDGET, PAPER_ROWS, PUBLISHED, Dataset, display_name, ordered_methods
from pipeline.runs.directory import write_atomically
from pipeline.statistics import NotEstimable, auc, holm, ordered_attacks, pooled_auc

KEYS = ["method", "attack_id", "fold", "patient_id"]
TEST_SHARE = 0.2 / 0.7
"""Test over training patients in a split of 70 / 10 / 20."""
ORACLE = "(oracle"
NOT_RUN = "not run"
"""What a cell says, and how a note begins, where a method has no scores under an attack."""

_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)
_FOLD_COLUMNS = ["method", "attack_id", "budget", "fold", "auc", "n_positive", "n_negative", "reason"]
_POOLED_COLUMNS = [
    "method", "attack_id", "budget", "folds", "n_positive", "n_negative", "auc", "lower", "upper", "interval", "note",
]  # fmt: skip
_COMPARISON_COLUMNS = [
    "attack_id", "budget", "first", "second", "folds", "patients", "difference", "lower", "upper", "delong_p",
    "delong_holm_p", "fold_difference", "t_lower", "t_upper", "t_p", "mann_whitney_u", "mann_whitney_p",
    "mann_whitney_least_p", "note",
]  # fmt: skip


def fold_aucs(scores: pd.DataFrame) -> pd.DataFrame:
    """AUC by patient of every method, attack and fold, in [0, 1].

    Returns:
        method, attack_id, budget, fold, auc, n_positive, n_negative, reason; auc is NaN with a reason when the fold has
        one class only or a logit is not finite.

    Raises:
        ValueError: columns that are missing, a patient who stands twice in a fold, or who has two labels.
    """
    scores = check_table(scores)
    rows = []
    for (method, attack_id, fold), group in scores.groupby(["method", "attack_id", "fold"], sort=False):
        labels, logits = group["patient_label"].to_numpy(), group["logit"].to_numpy(dtype=np.float64)
        value, reason, wrong = math.nan, "", int((~np.isfinite(logits)).sum())
        try:
            if wrong:
                raise NotEstimable(f"{wrong} of {len(logits)} logits are NaN or infinite")
            value = auc(labels, logits)
        except NotEstimable as error:
            reason = str(error)
        malignant = int(labels.sum())
        budget = float(group["budget"].iloc[0])
        rows.append((method, attack_id, budget, fold, value, malignant, len(labels) - malignant, reason))
    return pd.DataFrame(rows, columns=_FOLD_COLUMNS)


def paper_table(scores: pd.DataFrame, *, published: Dataset | None = None) -> pd.DataFrame:
    """The paper's table of our scores: "69.3 (2.3)", the mean and SD (divisor k - 1) over folds of AUC x 100.

    A single fold has no SD: "69.3". Folds without an AUC are left out and named in ``note``.

    Args:
        scores: The table of scores.
        published: Put the paper's figures on this data set beside ours, and list its rows that we did not run.

    Returns:
        method, one column per attack ("clean" first, then by budget), those of the paper, folds, note.
    """
    folds = fold_aucs(scores)
    attacks = ordered_attacks(folds)
    rows: list[dict[str, Any]] = []
    for method in ordered_methods([*folds["method"], *(PAPER_ROWS if published else ())]):
        ours = folds[folds["method"] == method]
        row: dict[str, Any] = {"method": method}
        for attack_id in attacks:
            cell = ours[ours["attack_id"] == attack_id]
            row[attack_id] = _mean_and_sd(cell["auc"].dropna()) if len(cell) else NOT_RUN
        if published:
            paper = PUBLISHED[published].get(method)
            row["paper clean"] = f"{paper.clean} ({paper.clean_sd})" if paper else ""
            row[f"paper PGD {PAPER_BUDGET:g}"] = f"{paper.attacked} ({paper.attacked_sd})" if paper else ""
        counts = ours.groupby("attack_id")["auc"].count()
        short = [f"{attack_id}: {count} folds" for attack_id, count in counts.items() if count < counts.max()]
        row |= {"folds": int(counts.max()) if len(counts) else 0, "note": "; ".join([*_left_out(ours), *short])}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["method", "folds", "note"])


def pooled_table(scores: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """AUC over the test patients of all folds (pairs within a fold only) with its 95% patient-bootstrap interval.

    Returns:
        method, attack_id, budget, folds, n_positive, n_negative, auc, lower, upper in [0, 1], interval, note.
    """
    scores, folds, rows = check_table(scores), fold_aucs(scores), []
    for attack_id in ordered_attacks(scores):
        for method in ordered_methods(scores["method"]):
            of_folds = folds[(folds["method"] == method) & (folds["attack_id"] == attack_id)]
            used, notes = _usable(scores, of_folds), _left_out(of_folds)
            row: dict[str, Any] = {"method": method, "attack_id": attack_id, "budget": _budget(scores, attack_id)}
            row["folds"] = used["fold"].nunique()
            notes += [NOT_RUN] if of_folds.empty else []
            if len(used):
                estimate = pooled_auc(
                    used["patient_label"], used["logit"], folds=used["fold"], resamples=resamples, seed=seed
                )
                row |= {"auc": estimate.value, "lower": estimate.lower, "upper": estimate.upper}
                row |= {"n_positive": estimate.n_positive, "n_negative": estimate.n_negative}
                row["interval"] = estimate.method
                notes += [estimate.reason] if estimate.reason else []
            rows.append(row | {"note": "; ".join(notes)})
    return pd.DataFrame(rows, columns=_POOLED_COLUMNS)


def comparisons(
    scores: pd.DataFrame,
    *,
    against: Iterable[str] = ("dual_arfl",),
    pairs: Iterable[tuple[str, str]] = (("dual_arfl", "adversarial_arfl"), ("dual_arfl", "dual")),
    test_share: float = TEST_SHARE,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Methods compared on the same patients and folds, under each attack; a difference above 0 speaks for ``first``.

    Args:
        scores: The table of scores.
        against: Each of these is compared, as ``first``, with every other method that was run and can be used: an
            oracle is not among Holm's comparisons.
        pairs: Comparisons (first, second) that are listed whether or not they were run; they come first.
        test_share: n_test / n_train, for the corrected t-test.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        A row per attack and comparison: difference of the pooled AUCs with the interval of the paired patient bootstrap
        (lower, upper); DeLong's p, its variances added over folds, and the same by Holm over the comparisons of the
        attack; mean difference over folds with interval and p of the corrected t-test; U and p of the Mann-Whitney test
        over folds with the least p in reach; note. Figures that are not estimable are NaN.
    """
    scores, folds = check_table(scores), fold_aucs(scores)
    wanted: dict[frozenset[str], tuple[str, str]] = {}
    for first, second in [*pairs, *((one, other) for one in against for other in ordered_methods(scores["method"]))]:
        if first != second and ORACLE not in second:
            wanted.setdefault(frozenset((first, second)), (first, second))
    settings: dict[str, Any] = {"test_share": test_share, "resamples": resamples, "seed": seed}
    rows: list[dict[str, Any]] = []
    for attack_id in ordered_attacks(scores):
        of_attack: list[dict[str, Any]] = []
        for first, second in wanted.values():
            about = {"attack_id": attack_id, "budget": _budget(scores, attack_id), "first": first, "second": second}
            of_attack.append(about | _compared(scores, folds, attack_id, (first, second), settings))
        for row, adjusted in zip(of_attack, holm([row["delong_p"] for row in of_attack]), strict=True):
            rows.append(row | {"delong_holm_p": float(adjusted)})
    return pd.DataFrame(rows, columns=_COMPARISON_COLUMNS)


def write_tables(folder: str | Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write each table as <name>.csv (all figures, our names), <name>.md and <name>.tex (rounded, names as shown).

    The LaTeX file holds a ``tabular`` for the booktabs package, to be \\input. Files are renamed into place.

    Args:
        folder: Where to write; made if it is missing.
        tables: File name without ending -> table, for example {"paper": paper_table(scores)}.

    Returns:
        The paths written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in tables.items():
        shown = as_text(table)
        texts = {"csv": table.to_csv(index=False), "md": _markdown(shown), "tex": _latex(shown)}
        for ending, text in texts.items():
            paths.append(folder / f"{name}.{ending}")
            write_atomically(paths[-1], text)
    return paths


def check_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The table of scores, sorted, with names as text; ValueError when it is not one."""
    missing = [name for name in (*KEYS, "budget", "patient_label", "logit") if name not in scores]
    if missing:
        raise ValueError(f"the scores lack {', '.join(missing)}")
    scores = scores.astype({"method": str, "attack_id": str, "patient_id": str})
    twice = scores[scores.duplicated(KEYS)]
    if len(twice):
        where = ", ".join(f"{key} {twice[key].iloc[0]}" for key in KEYS)
        raise ValueError(f"{len(twice)} rows repeat {where}; pool the images of a patient first")
    if not scores["patient_label"].isin((0, 1)).all():
        raise ValueError("patient_label holds other values than 0 and 1; drop patients of unknown label first")
    labels = scores.groupby("patient_id")["patient_label"].nunique()
    if (labels > 1).any():
        raise ValueError(f"patient {labels.index[labels > 1][0]} is both malignant and benign in the scores")
    return scores.sort_values(KEYS, kind="stable", ignore_index=True)


def _compared(
    scores: pd.DataFrame, folds: pd.DataFrame, attack_id: str, methods: tuple[str, str], settings: dict[str, Any]
) -> dict[str, Any]:
    used, notes, absent = [], [], []
    for method in methods:
        of_folds = folds[(folds["method"] == method) & (folds["attack_id"] == attack_id)]
        used.append(_usable(scores, of_folds))
        notes += [f"{method}: {note}" for note in _left_out(of_folds)]
        absent += [method] if of_folds.empty else []
    if absent:
        nothing = {"folds": 0, "patients": 0, **dict.fromkeys(FIGURES, math.nan)}
        return nothing | {"note": "; ".join([f"{NOT_RUN}: {', '.join(absent)}", *notes])}
    figures, remarks = compare(*used, **settings)
    return figures | {"note": "; ".join([*notes, *remarks])}


def _usable(scores: pd.DataFrame, of_folds: pd.DataFrame) -> pd.DataFrame:
    """The scores of one method under one attack in the folds that have an AUC."""
    kept = of_folds.loc[of_folds["auc"].notna(), ["method", "attack_id", "fold"]]
    return scores.merge(kept, on=["method", "attack_id", "fold"])


def _left_out(of_folds: pd.DataFrame) -> list[str]:
    bad = of_folds[of_folds["auc"].isna()]
    return [f"fold {row.fold} left out under {row.attack_id}: {row.reason}" for row in bad.itertuples()]


def _budget(scores: pd.DataFrame, attack_id: str) -> float:
    return float(scores.loc[scores["attack_id"] == attack_id, "budget"].iloc[0])


def _mean_and_sd(values: pd.Series) -> str:
    if values.empty:
        return "not estimable"
    spread = f" ({100 * values.std(ddof=1):.1f})" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: intervals beside their figures, names as the paper has them."""
    shown = pd.DataFrame(index=table.index)
    intervals = {"auc": ("lower", "upper"), "difference": ("lower", "upper"), "fold_difference": ("t_lower", "t_upper")}
    for name in table.columns:
        empty = name in ("note", "reason") and not table[name].astype(bool).any()
        if empty or name in ("lower", "upper", "t_lower", "t_upper"):
            continue
        texts = [_text(name, value) for value in table[name]]
        if name in ("method", "first", "second"):
            texts = [display_name(text) for text in texts]
        ends = intervals.get(name, ())
        if ends and set(ends) <= set(table.columns):
            for index, (low, high) in enumerate(zip(*(table[end] for end in ends), strict=True)):
                texts[index] += f" [{low:.3f}, {high:.3f}]" if pd.notna(low) and pd.notna(high) else ""
        header = name.replace("_", " ") if name in {*_POOLED_COLUMNS, *_COMPARISON_COLUMNS} else name
        shown[header] = pd.Series(texts, index=table.index, dtype=object)
    return shown


def _text(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    if name.endswith("_p"):
        return p_text(value)
    if name in ("auc", "difference", "fold_difference"):
        return f"{value:.3f}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def p_text(value: float) -> str:
    """A p-value with four decimals, or "<0.0001"."""
    return f"{value:.4f}" if value >= 1e-4 else "<0.0001"


def _markdown(shown: pd.DataFrame) -> str:
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _latex(shown: pd.DataFrame) -> str:
    head, *body = (
        " & ".join(str(cell).translate(_LATEX) for cell in line) + r" \\"
        for line in [list(shown.columns), *shown.to_numpy().tolist()]
    )
    columns = "".join("p{8cm}" if name in ("note", "reason", "says", "claim") else "l" for name in shown)
    opening = rf"\begin{{tabular}}{{{columns}}}"
    return "\n".join([opening, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])
