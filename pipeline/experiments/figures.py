"""Figures of a cross-validation experiment: sweeps of one parameter (the paper's Figure 3), and AUC against budget."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pipeline.experiments.claims import sweep_attacks
from pipeline.experiments.published import display_name, ordered_methods
from pipeline.experiments.tables import fold_aucs
from pipeline.report.figures import ATTACK_COLOURS, CLEAN_COLOUR, GREY, GRID, INK
from pipeline.statistics import CLEAN

PANELS = {
    "standard_ratio": "share of standard data, r",
    "weight": "weight of ARFL, lambda",
    "budget": "training budget (share of full scale)",
}
"""Parameters in the order of the paper's Figure 3, with the labels of their axes."""
LOGARITHMIC = ("weight", "budget")

Dash = str | tuple[int, tuple[float, ...]]
_DASHES: tuple[Dash, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BLUE, _ORANGE, _VERMILION, _PINK, _GREEN, _SKY, _BLACK = _COLOURS = (CLEAN_COLOUR, *ATTACK_COLOURS)
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 3.6,  # a dash and a gap
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
}


class Look(NamedTuple):
    """How a line is drawn; an open marker has a white face."""

    colour: str
    marker: str
    dash: Dash
    open_marker: bool


# A row with ARFL has the colour and marker of its row without, in a whole line with full markers.
_LOOKS = {
    "standard": Look(_BLUE, "o", _DASHES[1], True),
    "standard_arfl": Look(_BLUE, "o", _DASHES[0], False),
    "adversarial": Look(_VERMILION, "^", _DASHES[1], True),
    "adversarial_arfl": Look(_VERMILION, "^", _DASHES[0], False),
    "dual": Look(_GREEN, "s", _DASHES[1], True),
    "dual_arfl": Look(_GREEN, "s", _DASHES[0], False),
    "dsbn": Look(_PINK, "D", _DASHES[2], False),
    "trades": Look(_ORANGE, "v", _DASHES[2], False),
    "mirst": Look(_SKY, "P", _DASHES[2], False),
}
_OTHER_COLOURS = (_BLACK, GREY, _PINK, _ORANGE, _SKY, _BLUE, _VERMILION, _GREEN)


def sweep_figure(sweeps: Mapping[str, pd.DataFrame], folder: str | Path, *, name: str = "figure3") -> list[Path]:
    """AUC against the value of each swept parameter: mean and SD over folds, one line per attack, single folds faint.

    Args:
        sweeps: "standard_ratio", "weight" or "budget" -> table with value, fold, attack_id, auc; a panel for each that
            is there.
        folder: Where to write; made if it is missing.
        name: File name without ending.

    Returns:
        Paths of the PNG and the SVG; none when there is nothing to draw.
    """
    drawn = {key: sweeps[key].dropna(subset=["auc"]) for key in PANELS if key in sweeps}
    drawn = {key: sweep for key, sweep in drawn.items() if len(sweep)}
    if not drawn:
        return []
    attacks = sweep_attacks(pd.concat(list(drawn.values())))
    with _figure(name, 3.3 * len(drawn) + 1.7, 3.4) as figure:
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, (key, sweep) in zip(panels, drawn.items(), strict=True):
            values = sorted(sweep["value"].unique())
            scale = _scale(axes, values, logarithmic=key in LOGARITHMIC and values[0] > 0)
            axes.set_xticks(values, [f"{value:g}" for value in values])
            for index, attack_id in enumerate(attacks):
                look = Look(_COLOURS[index % 7], _MARKERS[index % 7], _DASHES[index % 4], False)
                of_attack, shift = sweep[sweep["attack_id"] == attack_id], _shift(index, len(attacks))
                places = [scale(value, shift) for value in of_attack["value"]]
                axes.scatter(places, of_attack["auc"], s=10, color=look.colour, alpha=0.35, linewidths=0)
                _line(axes, of_attack, "value", scale, shift, look, _attack_name(attack_id))
            axes.set_xlabel(PANELS[key])
        panels[0].set_ylabel("AUC by patient")
        _finish(figure, panels, max(sweep["fold"].nunique() for sweep in drawn.values()))
        return _save(figure, Path(folder), name)


def budget_curve(scores: pd.DataFrame, folder: str | Path, *, name: str = "budget_curve") -> list[Path]:
    """AUC against the budget of the attack: mean and SD over folds, a line per method, a panel per kind of attack.

    Args:
        scores: The table of scores of ``pipeline.experiments.tables``.
        folder: Where to write; made if it is missing.
        name: File name without ending.

    Returns:
        Paths of the PNG and the SVG; none without attacked scores.
    """
    folds = fold_aucs(scores).dropna(subset=["auc"])
    budgets = sorted(folds.loc[folds["attack_id"] != CLEAN, "budget"].unique())
    if not budgets:
        return []
    # A log axis has no place for no attack: it gets one, far enough left of the smallest budget to be read.
    nothing = budgets[0] / 10 ** max(0.5, 0.35 * math.log10(budgets[-1] / budgets[0]))
    folds["place"] = folds["budget"].where(folds["attack_id"] != CLEAN, nothing)
    folds["kind"] = folds["attack_id"].str.partition("@")[0]
    kinds = [kind for kind in sorted(folds["kind"].unique()) if kind != CLEAN]
    methods = ordered_methods(folds["method"])
    with _figure(name, 4.6 * len(kinds) + 2.0, 4.2) as figure:
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            scale = _scale(axes, [nothing, *budgets], logarithmic=True)
            axes.set_xticks([nothing, *budgets], ["no attack", *(f"{budget:g}" for budget in budgets)])
            others = 0
            for index, method in enumerate(methods):
                look = _LOOKS.get(method)
                if look is None:
                    look = Look(_OTHER_COLOURS[others % 8], _MARKERS[-1 - others % 7], _DASHES[3], True)
                    others += 1
                lines = folds[(folds["method"] == method) & folds["kind"].isin((CLEAN, kind))]
                _line(axes, lines, "place", scale, _shift(index, len(methods)), look, display_name(method))
            axes.set(xlabel="attack budget (share of full scale)", title=kind if len(kinds) > 1 else "")
        panels[0].set(ylabel="AUC by patient", ylim=(-0.02, 1.02))
        _finish(figure, panels, folds["fold"].nunique())
        return _save(figure, Path(folder), name)


Scale = Callable[[float, float], float]


def _scale(axes: Axes, values: Sequence[float], *, logarithmic: bool) -> Scale:
    """Set the axis up; returns (value, shift as a share of the span) -> place."""
    if logarithmic:
        low, high = math.log10(values[0]), math.log10(values[-1])
    else:
        low, high = values[0], values[-1]
    span = (high - low) or 1.0

    def place(value: float, shift: float) -> float:
        at = (math.log10(value) if logarithmic else value) + shift * span
        return 10.0**at if logarithmic else at

    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(place(values[0], -0.08), place(values[-1], 0.08))
    return place


def _shift(index: int, count: int) -> float:
    """Lines stand side by side, so that their bars do not hide each other: within 4% of the span to either side."""
    return (index - (count - 1) / 2) * min(0.012, 0.08 / count)


def _line(axes: Axes, folds: pd.DataFrame, by: str, scale: Scale, shift: float, look: Look, label: str) -> None:
    """Mean over folds, with the SD (divisor k - 1) as bars where there are two folds or more."""
    groups = folds.groupby(by)["auc"]
    means, deviations = groups.mean(), groups.std(ddof=1)
    axes.errorbar(
        [scale(float(value), shift) for value in means.index],
        means,
        yerr=deviations if deviations.notna().any() else None,
        label=label,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        markerfacecolor="white" if look.open_marker else look.colour,
        elinewidth=1.0,
        capsize=2.5,
    )


def _attack_name(attack_id: str) -> str:
    return "no attack" if attack_id == CLEAN else attack_id


def _finish(figure: Figure, panels: Sequence[Axes], folds: int) -> None:
    """Chance as a dotted line where it is in sight, and one legend outside the panels."""
    handles, labels = panels[0].get_legend_handles_labels()
    low, high = panels[0].get_ylim()
    if low < 0.5 < high:
        lines = [axes.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1) for axes in panels]
        handles, labels = [*handles, lines[0]], [*labels, "chance"]
    title = f"mean and SD over {folds} folds" if folds > 1 else "one fold"
    figure.legend(handles, labels, loc="outside right upper", title=title, alignment="left")


@contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[Figure]:
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        figure.savefig(content, format=ending, dpi=200, metadata=metadata)
        paths.append(folder / f"{name}.{ending}")
        temporary = folder / f".{name}.{ending}.{os.getpid()}.tmp"
        temporary.write_bytes(content.getvalue())
        os.replace(temporary, paths[-1])
    return paths
