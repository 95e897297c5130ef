"""Figures of the strong test, calibration and the decision curve, in the style of the other figures."""

from __future__ import annotations

from typing import Any

from pipeline.report.figures import ATTACK_COLOURS, CLEAN_COLOUR, GREY, figure_of, with_intervals

_FAMILIES = {
    "clean": CLEAN_COLOUR,
    "noise": GREY,
    "square": ATTACK_COLOURS[3],
    "spsa": ATTACK_COLOURS[3],
    "transfer": ATTACK_COLOURS[2],
    "exam": ATTACK_COLOURS[4],
    "l2": ATTACK_COLOURS[4],
    "universal": ATTACK_COLOURS[4],
}


def strong_figure(attacks: list[dict[str, Any]]) -> str | None:
    """AUC under every attack of the strong test, the strongest on top of the attacks; None without an AUC."""
    shown = [attack for attack in attacks if attack["auc"]["value"] is not None]
    if not shown:
        return None
    with figure_of("strong", 5.6, 0.9 + 0.3 * len(shown)) as (axes, finish):
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
        for place, attack in enumerate(shown):
            colour = _FAMILIES.get(attack["role"], ATTACK_COLOURS[1])
            auc = attack["auc"]
            if auc["lower"] is not None:
                axes.plot([auc["lower"], auc["upper"]], [place, place], color=colour, linewidth=1.4)
            axes.plot([auc["value"]], [place], color=colour, marker="o" if attack["role"] == "clean" else "s")
        axes.set(xlim=(-0.02, 1.02), ylim=(len(shown) - 0.4, -0.6), xlabel="AUC (dotted: chance)")
        axes.set_yticks(range(len(shown)), [attack["label"] for attack in shown])
        axes.grid(visible=False, axis="y")
        return finish("AUC of some test patients under every attack of the strong test, with intervals")


def calibration_figure(calibration: dict[str, Any]) -> str | None:
    """Observed against predicted, before and after recalibration; None without a curve."""
    states = [("before", "as given", ATTACK_COLOURS[1], "s"), ("after", "recalibrated", CLEAN_COLOUR, "o")]
    drawn = [(calibration[name], *style) for name, *style in states if calibration.get(name)]
    if not any(state["curve"] for state, *_ in drawn):
        return None
    with figure_of("calibration", 4.6, 4.6) as (axes, finish):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 2)))
        for state, label, colour, marker in drawn:
            with_intervals(
                axes,
                [point["predicted"] for point in state["curve"]],
                [point["observed"] for point in state["curve"]],
                colour=colour,
                marker=marker,
                label=label,
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xlabel("output of the network")
        axes.set_ylabel("share of patients with a malignant finding")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9)
        return finish("Observed share of malignant patients against the output, before and after recalibration")


def decision_figures(curves: list[dict[str, Any]]) -> list[str]:
    """Net benefit against threshold, one figure per prevalence; the band is the model's interval."""
    figures = []
    for number, curve in enumerate(curves):
        if curve["reason"] or not curve["thresholds"]:
            continue
        with figure_of(f"decision{number}", 4.6, 3.8) as (axes, finish):
            x = curve["thresholds"]
            axes.fill_between(
                x, curve["model_lower"], curve["model_upper"], color=CLEAN_COLOUR, alpha=0.15, linewidth=0
            )
            axes.plot(x, curve["model"], color=CLEAN_COLOUR, label="follow the network")
            axes.plot(x, curve["treat_all"], color=ATTACK_COLOURS[1], linestyle=(0, (6, 2)), label="everybody")
            axes.plot(x, curve["treat_none"], color=GREY, linestyle=(0, (2, 1.5)), label="nobody")
            top = max(curve["model_upper"])
            axes.set(xlim=(0, x[-1]), ylim=(-0.35 * top if top > 0 else -0.1, 1.1 * top if top > 0 else 0.1))
            axes.set_xlabel("threshold: risk from which on a patient is sent on")
            axes.set_ylabel("net benefit")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=9)
            figures.append(finish(f"Net benefit against threshold at {curve['prevalence']:.1%} malignant patients"))
    return figures
