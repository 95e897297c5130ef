"""Names of methods: what is joined, what is refused, and that each overlay is a run."""

from __future__ import annotations

import pytest

from pipeline.experiments.cells import Cell
from pipeline.experiments.grid import check
from pipeline.experiments.published import PAPER_ROWS
from pipeline.experiments.variants import GridError, known, variant


def cell(name: str, **settings: object) -> Cell:
    return Cell(variant(name), 0, {"network_def#width": 0.0625, "image_size": 32} | settings)


def test_a_name_is_a_method_and_terms() -> None:
    chosen = variant(" trades+arfl+ema ")
    assert (chosen.name, chosen.method, chosen.terms) == ("trades+arfl+ema", "trades", ("arfl", "ema"))
    assert [path.name for path in chosen.files] == ["trades.json", "arfl.json", "ema.json"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pgd", "method 'pgd' is unknown; allowed are adversarial"),
        ("", "method '' is unknown"),
        ("mart+trades", "joins two methods, 'mart' and 'trades'"),
        ("dual+swa", "term 'swa' of 'dual\\+swa' is unknown; allowed are after_relu, arfl, awp"),
        ("dual_arfl+arfl", "'arfl' is in 'dual_arfl' already"),
        ("dual+awp+awp", "'awp' is in 'dual' already"),
        ("trades+after_relu", "add it: 'trades\\+arfl\\+after_relu'"),
        ("../standard", "method '../standard' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(name: str, words: str) -> None:
    with pytest.raises(GridError, match=words):
        variant(name)


def test_the_papers_rows_are_known_and_only_dsbn_has_branches() -> None:
    assert len(PAPER_ROWS) == 9 and set(PAPER_ROWS) <= set(known("methods"))
    assert [name for name in PAPER_ROWS if variant(name).branches] == ["dsbn"]


@pytest.mark.parametrize("method", known("methods"))
def test_every_method_is_built_with_arfl_before_anything_runs(method: str) -> None:
    one = cell(method if "arfl" in method else f"{method}+arfl")
    size = check([one])[one.name]
    assert 0 < size.kept < size.peak


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("dual_arfl", {"layer": "classifier.0"}, "classifier.0"),
        ("dual_arfl", {"layer": "features.99"}, "features.99"),
        ("dsbn", {"network_def#_target_": "pipeline.networks.vgg16"}, "domain"),
        ("dual", {"standard_ratio": 1.5}, "standard_ratio"),
        ("trades", {"method#beta": -1}, "beta"),
        ("dual+ema", {"ema_decay": 1.5}, "decay"),
    ],
)
def test_a_combination_that_cannot_run_is_refused_before_anything_runs(name, settings, words) -> None:
    with pytest.raises(GridError, match=words):
        check([cell("standard"), cell(name, **settings)])


@pytest.mark.parametrize(
    ("name", "key", "carried"),
    [
        ("dual_arfl", "standard_ratio", True), ("dual_arfl", "arfl_weight", True), ("dual_arfl", "budget", True),
        ("trades", "standard_ratio", False), ("free", "standard_ratio", False), ("dual", "arfl_weight", False),
        ("trades+arfl", "arfl_weight", True), ("standard", "budget", False), ("adversarial", "budget", True),
        ("free", "budget", True), ("fgsm_rs", "budget", True), ("trades", "budget", True),
    ],
)  # fmt: skip
def test_a_method_knows_what_it_depends_on(name: str, key: str, carried: bool) -> None:
    assert variant(name).carries(key) == carried
