"""Names of methods: what is joined, what is refused, and that each overlay is a run."""

from __future__ import annotations

import pytest

from pipeline.experiments.cells import Cell
from pipeline.experiments.command import PAPER_ROWS
from pipeline.experiments.grid import check
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
        ("../standard", "method '../standard' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(name: str, words: str) -> None:
    with pytest.raises(GridError, match=words):
        variant(name)


def test_the_papers_rows_are_known_and_only_dsbn_has_branches() -> None:
    names = PAPER_ROWS.split(",")
    assert len(names) == 9 and set(names) <= set(known("methods"))
    assert [name for name in names if variant(name).branches] == ["dsbn"]


@pytest.mark.parametrize("method", known("methods"))
def test_every_method_is_built_with_arfl_before_anything_runs(method: str) -> None:
    need = check([cell(method if "arfl" in method else f"{method}+arfl")])
    assert 0 < need["best"] < need["peak"]


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
