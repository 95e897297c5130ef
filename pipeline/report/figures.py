"""Figures of the report: matplotlib drawings of report.json as inline SVG, safe for colour blindness."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito, "Color universal design" (2008): told apart with every common form of colour blindness.
INK, GREY, GRID = "#1b1f24", "#57606a", "#d0d7de"
CLEAN_COLOUR = "#0072B2"
ATTACK_COLOURS = ("#E69F00", "#D55E00", "#CC79A7", "#009E73", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = ("s", "^", "D", "v", "P", "X")

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
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
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
}


def attack_colour(index: int) -> str:
    """Colour of the attack at this place in report.json; 0 is clean."""
    return CLEAN_COLOUR if index == 0 else ATTACK_COLOURS[(index - 1) % len(ATTACK_COLOURS)]


def roc_figure(curves: list[dict[str, Any]]) -> str | None:
    """ROC curves clean and under each attack; None when there is none to draw."""
    drawn = [(index, curve) for index, curve in enumerate(curves) if curve["roc"] is not None]
    if not drawn:
        return None
    with figure_of("roc", 4.4, 4.4) as (axes, finish):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="chance")
        for index, curve in drawn:
            axes.plot(
                curve["roc"]["false_alarms"],
                curve["roc"]["sensitivity"],
                color=attack_colour(index),
                linestyle=_DASHES[index % len(_DASHES)],
                label=f"{curve['label']} (AUC {curve['auc']['value']:.3f})",
                clip_on=False,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("benign patients called positive")
        axes.set_ylabel("malignant patients caught")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1, fontsize=9)
        return finish("ROC curves of the test patients without attack and under each attack")


def budget_figures(points: list[dict[str, Any]]) -> list[str]:
    """AUC against budget with intervals, one figure per norm and one line per kind of attack."""
    figures = []
    for number, (norm, lines) in enumerate(_by_norm(points).items()):
        with figure_of(f"budget{number}", 4.8, 4.0) as (axes, finish):
            axes.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
            place = _budget_axis(axes, [point for line in lines.values() for point in line])
            axes.annotate(
                "chance",
                (0.005, 0.5),  # where budgets are small, curves are seldom near it
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="left",
                fontsize=9,
                color=GREY,
            )
            for index, (name, line) in enumerate(lines.items()):
                shown = [point for point in (points[0], *line) if point["auc"]["value"] is not None]
                axes.plot(
                    [place(point) for point in shown],
                    [point["auc"]["value"] for point in shown],
                    color=GREY,
                    linestyle=_DASHES[index % len(_DASHES)],
                    label=name,
                    zorder=1,
                )
                for point in shown:
                    marker = "o" if point is points[0] else _MARKERS[index % len(_MARKERS)]
                    with_intervals(
                        axes,
                        [place(point)],
                        [point["auc"]],
                        colour=attack_colour(points.index(point)),
                        marker=marker,
                        label="",
                    )
            axes.set(ylim=(-0.02, 1.02), ylabel="AUC of the test patients")
            if len(lines) > 1:
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9)
            figures.append(finish(f"AUC of the test patients against the budget of the attack, {norm}"))
    return figures


def operating_figures(attacks: list[dict[str, Any]]) -> list[str]:
    """Sensitivity and specificity against budget at a frozen threshold, one figure per norm."""
    figures = []
    for number, (norm, lines) in enumerate(_by_norm(attacks).items()):
        with figure_of(f"operating{number}", 4.8, 4.0) as (axes, finish):
            place = _budget_axis(axes, [point for line in lines.values() for point in line])
            for index, line in enumerate(lines.values()):
                shown = [attacks[0], *line]
                for name, colour, marker, shift in (
                    ("sensitivity", "#D55E00", "o", 0.96),
                    ("specificity", CLEAN_COLOUR, "s", 1.04),
                ):
                    with_intervals(
                        axes,
                        [place(point) * shift for point in shown],
                        [point[name] for point in shown],
                        colour=colour,
                        marker=marker,
                        label=name if index == 0 else "",
                        line=_DASHES[index % len(_DASHES)],
                    )
            axes.set(ylim=(-0.02, 1.02), ylabel="share of the test patients")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
            figures.append(finish(f"Sensitivity and specificity at the frozen threshold against budget, {norm}"))
    return figures


def history_figures(rows: list[dict[str, Any]], columns: list[str]) -> list[str]:
    """Losses, feature shares and validation AUCs against epoch; a figure without data is left out."""
    panels: tuple[tuple[str, str, tuple[tuple[str, str], ...], tuple[float, float] | None], ...] = (
        ("losses", "loss", (("classification_loss", "classification"), ("robust_loss", "robust features")), None),
        (
            "shares",
            "share of the feature map",
            (
                ("share_positive", "positive"),
                ("share_negative", "negative"),
                ("share_saturated", "saturated"),
                ("share_dead", "dead channels"),
            ),
            (-0.02, 1.02),
        ),
        (
            "validation",
            "validation AUC by patient",
            (("clean_auc", "no attack"), ("attacked_auc", "attacked")),
            (-0.02, 1.02),
        ),
    )
    figures = []
    for name, ylabel, series, limits in panels:
        series = tuple((column, label) for column, label in series if column in columns)
        if not series:
            continue
        with figure_of(name, 4.0, 3.4) as (axes, finish):
            for index, (column, label) in enumerate(series):
                known = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
                axes.plot(
                    [epoch for epoch, _ in known],
                    [value for _, value in known],
                    color=(CLEAN_COLOUR, *ATTACK_COLOURS)[index + (index > 0)],
                    linestyle=_DASHES[index % len(_DASHES)],
                    marker=("o", *_MARKERS)[index] if len(known) < 30 else None,
                    markersize=4,
                    label=label,
                )
            axes.set(xlabel="epoch", ylabel=ylabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if limits:
                axes.set_ylim(*limits)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
            figures.append(finish(f"{ylabel} against epoch"))
    return figures


def _by_norm(points: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Attacked points by norm and by kind of attack (steps and restarts; by name where budgets repeat)."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for point in points[1:]:
        details = [
            f"{point[key]} {key if point[key] != 1 else key.removesuffix('s')}"
            for key in ("steps", "restarts")
            if point[key] is not None
        ]
        name = ", ".join(details) or "attack"
        lines = found.setdefault(point["norm"] or "norm not stated", {})
        if any(other["budget"] == point["budget"] for other in lines.get(name, [])):
            name = point["attack_id"]
        lines.setdefault(name, []).append(point)
    return found


def _budget_axis(axes: Axes, points: list[dict[str, Any]]) -> Any:
    """Logarithmic axis of budgets with a place for "no attack" on the left; returns point -> x."""
    budgets = sorted({point["budget"] for point in points if point["budget"] > 0}) or [1.0]
    nothing = budgets[0] / 10
    axes.set_xscale("log")
    axes.set_xlim(nothing / 1.8, budgets[-1] * 1.8)
    axes.set_xticks([nothing, *budgets], ["no attack", *(f"{budget:g}" for budget in budgets)])
    axes.minorticks_off()
    largest = not points or bool(points[0]["norm"] and "inf" in points[0]["norm"].lower())
    meaning = (
        "largest change of a pixel" if largest else f"size of the change, norm {points[0]['norm'] or 'not stated'}"
    )
    axes.set_xlabel(f"budget: {meaning}, images in 0 to 1")
    return lambda point: point["budget"] if point["budget"] > 0 else nothing


def with_intervals(
    axes: Axes,
    x: list[float],
    estimates: list[dict[str, Any]],
    *,
    colour: str,
    marker: str,
    label: str,
    line: Any = "-",
) -> None:
    known = [(place, each) for place, each in zip(x, estimates, strict=True) if each["value"] is not None]
    axes.plot(
        [place for place, _ in known],
        [each["value"] for _, each in known],
        color=colour,
        marker=marker,
        linestyle=line,
        label=label or None,
        clip_on=False,
        zorder=3,
    )
    for place, each in known:
        if each["lower"] is not None:
            axes.plot([place, place], [each["lower"], each["upper"]], color=colour, linewidth=1.2, zorder=2)
            for end in (each["lower"], each["upper"]):
                axes.plot([place], [end], color=colour, marker="_", markersize=8, zorder=2, clip_on=False)


@contextmanager
def figure_of(name: str, width: float, height: float) -> Iterator[tuple[Axes, Any]]:
    """Axes of a figure of (width, height) inches, and a function that closes it into SVG with a spoken title."""
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        yield axes, lambda title: _svg(figure, name, title)


def _svg(figure: Figure, name: str, title: str) -> str:
    target = io.StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    size = re.search(r'viewBox="0 0 ([\d.]+) ', text)
    width = float(size.group(1)) * 4 / 3 if size else 400.0
    opening = f'<svg role="img" aria-label="{html.escape(title)}" style="max-width:{width:.0f}px"'
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head).replace("<svg", opening, 1)
    return f"{head}>{rest}"
