"""Figures of an experiment: what is drawn, for which panels, and that files are whole."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipeline.experiments.figures import budget_curve, sweep_figure


def sweep(
    values: tuple[float, ...], *, folds: int = 5, attacks: tuple[str, ...] = ("clean", "pgd-7@0.001")
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"value": value, "fold": fold, "attack_id": attack_id, "auc": 0.7 - 0.1 * index + 0.01 * fold}
            for value in values
            for fold in range(folds)
            for index, attack_id in enumerate(attacks)
        ]
    )


def scores(methods: tuple[str, ...], attacks: dict[str, float]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for method in methods:
        for fold in range(3):
            for attack_id, budget in attacks.items():
                for patient in range(20):
                    logit = rng.normal() + (1.0 - 50 * budget) * (patient % 2)
                    rows.append((method, fold, attack_id, budget, f"{fold}-{patient}", patient % 2, logit))
    names = ["method", "fold", "attack_id", "budget", "patient_id", "patient_label", "logit"]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that are saved, each once."""
    found: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments, **settings) -> None:
        if figure not in found:
            found.append(figure)
        save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def words(path: Path) -> set[str]:
    return {"".join(element.itertext()) for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")}


def test_each_sweep_has_a_panel_and_missing_ones_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    sweeps = {"budget": sweep((0.005, 0.01, 0.1)), "standard_ratio": sweep((0.25, 0.5, 0.75)), "unknown": sweep((1.0,))}
    paths = sweep_figure(sweeps, tmp_path / "new")
    assert [path.name for path in paths] == ["figure3.png", "figure3.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["figure3.png", "figure3.svg"]
    assert [axes.get_xlabel() for axes in drawn[0].axes] == [
        "share of standard data, r",
        "training budget (share of full scale)",
    ]
    assert [axes.get_xscale() for axes in drawn[0].axes] == ["linear", "log"]
    with Image.open(paths[0]) as picture:
        assert min(picture.size) > 500
    assert {"AUC by patient", "no attack", "pgd-7@0.001", "mean and SD over 5 folds"} <= words(paths[1])


def test_lines_are_means_and_bars_are_sample_deviations(tmp_path: Path, drawn: list[Figure]) -> None:
    sweep_figure({"weight": sweep((0.1, 1.0, 10.0))}, tmp_path)
    clean, attacked = drawn[0].axes[0].containers
    assert clean.lines[0].get_ydata() == pytest.approx([0.72] * 3)
    assert attacked.lines[0].get_ydata() == pytest.approx([0.62] * 3)
    low, high = clean.lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(np.std([0.70, 0.71, 0.72, 0.73, 0.74], ddof=1))
    points = drawn[0].axes[0].collections
    assert any(len(part.get_offsets()) == 15 and part.get_alpha() < 0.5 for part in points)


def test_a_single_fold_is_drawn_without_bars(tmp_path: Path, drawn: list[Figure]) -> None:
    paths = sweep_figure({"weight": sweep((1.0,), folds=1)}, tmp_path)
    assert "one fold" in words(paths[1])
    assert not any(line.has_yerr for line in drawn[0].axes[0].containers)


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    assert sweep_figure({}, tmp_path) == []
    assert sweep_figure({"weight": sweep((1.0,)).assign(auc=np.nan)}, tmp_path) == []
    assert budget_curve(scores(("dual",), {"clean": 0.0}), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_clean_stands_left_of_the_smallest_budget(tmp_path: Path, drawn: list[Figure]) -> None:
    attacks = {"clean": 0.0, "pgd-7@0.0001": 1e-4, "pgd-7@0.01": 1e-2}
    paths = budget_curve(scores(("dual_arfl", "n_fgsm", "standard"), attacks), tmp_path)
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log" and len(axes.containers) == 3
    assert [label.get_text() for label in axes.get_xticklabels()] == ["no attack", "0.0001", "0.01"]
    places = axes.containers[0].lines[0].get_xdata()
    assert list(places) == sorted(places) and places[0] < 0.5e-4
    assert {"A standard", "F dual + ARFL", "n_fgsm", "attack budget (share of full scale)"} <= words(paths[1])


def test_each_kind_of_attack_has_its_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    budget_curve(scores(("dual",), {"clean": 0.0, "pgd-7@0.001": 1e-3, "square@0.001": 1e-3}), tmp_path)
    assert [axes.get_title() for axes in drawn[0].axes] == ["pgd-7", "square"]


def test_the_same_scores_give_the_same_files(tmp_path: Path) -> None:
    table = scores(("dual", "dual_arfl"), {"clean": 0.0, "pgd-7@0.001": 1e-3})
    first, second = (budget_curve(table, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
