"""The paper's table: AUC x 100 over five folds, mean and standard deviation, of its nine rows on two data sets.

Source: Hao, Arefan, Zuley, Berg, Wu, "Safe Breast Cancer Diagnosis Resilient to Mammographic Adversarial Samples"
(earlier preprint: arXiv 2402.08768, "Adversarially Robust Feature Learning for Breast Cancer Diagnosis").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Dataset = Literal["upmc", "cmmd"]

PAPER_ROWS = {
    "standard": "A standard",
    "standard_arfl": "B standard + ARFL",
    "adversarial": "C adversarial",
    "adversarial_arfl": "D adversarial + ARFL",
    "dual": "E dual",
    "dual_arfl": "F dual + ARFL",
    "dsbn": "G DSBN",
    "trades": "H TRADES",
    "mirst": "I MIRST",
}
"""Our names of the paper's rows, in its order, and how they are shown."""

PAPER_BUDGET = 1e-4
"""eps2, the budget of the PGD attack (7 steps) behind the adversarial columns; the networks were trained at 0.01."""


class Published(NamedTuple):
    """AUC x 100 on standard and on adversarial images, each the mean and the standard deviation over five folds."""

    clean: float
    clean_sd: float
    attacked: float
    attacked_sd: float


PUBLISHED: dict[Dataset, dict[str, Published]] = {
    "upmc": {
        "standard": Published(69.2, 1.1, 58.8, 1.4),
        "standard_arfl": Published(70.0, 1.9, 58.3, 3.5),
        "adversarial": Published(61.7, 4.0, 56.9, 5.3),
        "adversarial_arfl": Published(62.5, 4.3, 59.2, 4.0),
        "dual": Published(65.7, 5.9, 59.6, 9.4),
        "dual_arfl": Published(69.3, 2.3, 67.8, 2.4),
        "dsbn": Published(54.1, 8.5, 54.7, 9.0),
        "trades": Published(63.7, 3.5, 63.2, 3.5),
        "mirst": Published(63.0, 1.9, 63.6, 1.7),
    },
    "cmmd": {
        "standard": Published(64.9, 4.2, 41.5, 3.7),
        "standard_arfl": Published(64.9, 4.4, 41.5, 4.2),
        "adversarial": Published(45.5, 4.6, 43.7, 4.7),
        "adversarial_arfl": Published(48.6, 4.5, 45.7, 4.7),
        "dual": Published(67.8, 3.3, 66.3, 3.3),
        "dual_arfl": Published(68.8, 3.3, 67.3, 3.4),
        "dsbn": Published(54.7, 6.9, 55.5, 2.7),
        "trades": Published(64.8, 5.0, 61.9, 5.1),
        "mirst": Published(64.4, 2.6, 64.8, 2.8),
    },
}


def display_name(method: str) -> str:
    """The paper's name of a row, such as "F dual + ARFL"; a method that the paper lacks keeps its own name.

    What stands behind a name in brackets, such as a branch, stays.
    """
    row, space, branch = method.partition(" (")
    return PAPER_ROWS.get(row, row) + space + branch


def ordered_methods(methods: Iterable[str]) -> list[str]:
    """Names without repeats: the paper's rows in its order, then all others alphabetically."""
    given = set(methods)
    return [method for method in PAPER_ROWS if method in given] + sorted(given - set(PAPER_ROWS))
