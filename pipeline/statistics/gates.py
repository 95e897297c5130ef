"""Gates against gradient masking: checks that an evaluation by attack must pass before its figures can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

import pandas as pd

from pipeline.statistics.arrays import check_confidence
from pipeline.statistics.gate_checks import (
    Finding,
    beaten_by_square,
    falls_with_budget,
    moved_by,
    not_weaker,
    reaches_zero,
)
from pipeline.statistics.paired_margins import Margins

Verdict = Literal["pass", "fail", "inconclusive"]

ZERO_GRADIENTS = 0.01
"""Share of images with a gradient of exactly 0 that still counts as none."""

LEAST_IMAGES = 10
"""A share of zero gradients of fewer images than this is no pass."""

REPEAT = 1e-5
"""Largest difference of repeated logits that is rounding: other kernels sum float32 in another order."""

STORED = 1e-6
"""Largest excess that is rounding: a float32 in [0, 1] is exact to 6e-8, and so is each of two that are subtracted."""


class Facts(TypedDict, total=False):
    """What an evaluation measured beside the scores; a fact that is absent makes its gate inconclusive.

    Attributes:
        attacks: Names (attack_id) by kind: ``single_step``, ``iterated``, ``white_box`` (all of them, single steps
            too), ``transfer``, ``noise`` and ``square`` are lists; ``more_restarts`` and ``more_steps`` (ten times as
            many) map an attack to the one that it repeats with more.
        zero_gradient_share: Share of images whose gradient of the margin is exactly 0 at every pixel, in [0, 1].
        zero_gradient_images: Images that it was measured on.
        repeat_difference: Largest absolute difference of the logits of an image in repeated forward passes.
        repeat_images: Images that it was measured on.
        budget_excess: Largest length of a stored perturbation less its budget; below 0 where all stay within.
        bounds_excess: Largest distance of a stored pixel beyond its bounds.
        stored_images: Stored images that both were measured on.
    """

    attacks: Mapping[str, Any]
    zero_gradient_share: float
    zero_gradient_images: int
    repeat_difference: float
    repeat_images: int
    budget_excess: float
    bounds_excess: float
    stored_images: int


@dataclass(frozen=True)
class Gate:
    """One check.

    Attributes:
        name: Its name, the same in every run.
        verdict: "pass", "fail", or "inconclusive" where it was not measured or the sample cannot tell.
        measured: What was measured, or None.
        limit: What it is held against.
        n: Patients (or images, see ``unit``) that it was measured on.
        explanation: What is held against what, and what a failure means; why where inconclusive.
        unit: "patients" or "images": what ``n`` counts.
    """

    name: str
    verdict: Verdict
    measured: float | None
    limit: float
    n: int
    explanation: str
    unit: str = "patients"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


MEANING = {
    "auc_falls_with_budget": "A larger budget allows all that a smaller one does, so an AUC that rises with it (by "
    "more than the limit) means that the attack fails to find what is there.",
    "auc_reaches_zero": "With a budget large enough every call can be turned round; an AUC that stays above the limit "
    "means that the attack is blocked, not that the network is robust.",
    "iterated_vs_single_step": "Several steps find at least what one step finds; if they find less (measured below the "
    "limit, as a share of the effect), the gradients point the wrong way.",
    "white_box_vs_transfer": "An attack that sees the network is at least as strong as one borrowed from another "
    "network; if not, its gradients are masked.",
    "transfer_vs_noise": "Perturbations made for another network do at least as much as noise; if not, the other "
    "network is no fair stand-in.",
    "white_box_vs_noise": "An attack that follows gradients does at least as much as random noise; if not, the "
    "gradients carry no information.",
    "square_vs_white_box": "An attack without gradients should rarely win against the best with them; if it wins on "
    "more images than the limit, the gradients mislead.",
    "more_restarts": "If more random starts move the mean margin by more than the limit, the attack was too weak and "
    "the figures are too kind.",
    "more_steps": "If ten times as many steps move the mean margin by more than the limit, the attack had not "
    "converged and the figures are too kind.",
    "zero_gradients": "Images with a gradient of exactly 0 cannot be attacked by gradients, so that their scores under "
    "attack mean nothing.",
    "repeated_forwards": "A network that answers the same image differently each time must be attacked through the "
    "average of its answers, or its randomness hides it.",
    "within_budget": "A perturbation larger than its budget makes the network look worse than it is.",
    "within_bounds": "Pixels beyond the bounds of an image could never be stored in one.",
}
"""Gates in the order of the report, each with what it means when it fails."""


def gates(scores: pd.DataFrame, facts: Facts, *, seed: int = 0, confidence: float = 0.95) -> list[Gate]:
    """Hold an evaluation by attacks against what must be true of any network (Athalye 2018; Carlini 2019).

    Attacks are compared on the margins (1 - 2 y) z of the same images under the same norm and budget, with intervals
    that know which images share a patient. A gate over several budgets passes where every one does, and fails where one
    fails at a confidence that makes the whole right (Bonferroni); the worst one is shown, and budgets at which no
    attack moves the margins measurably are left out. "Inconclusive" means that an interval reaches over the limit, that
    there are fewer than 10 patients, or that it was not measured.

    Args:
        scores: Rows of scores.csv with image_id, patient_id, patient_label, attack_id, norm, budget and logit: the
            attacked images of one partition and fold, clean ("clean") and under each attack.
        facts: What was measured beside the scores, and which attack is of which kind.
        seed: Seed of the bootstrap.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        All gates, in the order of ``MEANING``.

    Raises:
        ValueError: scores that are not allowed.
    """
    check_confidence(confidence)
    margins = Margins.of(scores)
    kinds = facts.get("attacks", {})

    def named(kind: str) -> list[str]:
        return margins.known(list(kinds.get(kind, ())))

    def repeated(kind: str) -> list[tuple[str, str]]:
        return [(name, base) for name, base in dict(kinds.get(kind, {})).items() if {name, base} <= set(margins.place)]

    iterated, single = named("iterated"), named("single_step")
    white, transfer, noise = named("white_box"), named("transfer"), named("noise")
    chain = (white, transfer, noise)
    findings = {
        "auc_falls_with_budget": falls_with_budget(margins, white, seed=seed, confidence=confidence),
        "auc_reaches_zero": reaches_zero(margins, white, seed=seed, confidence=confidence),
        "iterated_vs_single_step": not_weaker(margins, iterated, single, (), confidence=confidence),
        "white_box_vs_transfer": not_weaker(margins, white, transfer, chain, confidence=confidence),
        "transfer_vs_noise": not_weaker(margins, transfer, noise, chain, confidence=confidence),
        "white_box_vs_noise": not_weaker(margins, white, noise, chain, confidence=confidence),
        "square_vs_white_box": beaten_by_square(margins, white, named("square"), confidence=confidence),
        "more_restarts": moved_by(margins, repeated("more_restarts"), confidence=confidence),
        "more_steps": moved_by(margins, repeated("more_steps"), confidence=confidence),
        "zero_gradients": _at_most(
            facts.get("zero_gradient_share"), ZERO_GRADIENTS, facts.get("zero_gradient_images", 0), least=LEAST_IMAGES
        ),
        "repeated_forwards": _at_most(facts.get("repeat_difference"), REPEAT, facts.get("repeat_images", 0)),
        "within_budget": _at_most(facts.get("budget_excess"), STORED, facts.get("stored_images", 0)),
        "within_bounds": _at_most(facts.get("bounds_excess"), STORED, facts.get("stored_images", 0)),
    }
    return [
        Gate(
            name=name,
            verdict=(found := findings[name]).verdict,
            measured=found.measured,
            limit=found.limit,
            n=found.n,
            explanation=f"{meaning} {found.reason}".strip(),
            unit=found.unit,
        )
        for name, meaning in MEANING.items()
    ]


def _at_most(measured: float | None, limit: float, images: int, *, least: int = 1) -> Finding:
    if measured is None or images < 1:
        return Finding("inconclusive", None, limit, 0, "It was not measured.", "images")
    if math.isnan(measured):
        return Finding("fail", None, limit, int(images), "What was measured is not a number.", "images")
    if measured > limit:
        return Finding("fail", float(measured), limit, int(images), "", "images")
    if images < least:
        reason = f"The sample cannot tell: {images} images, at least {least} are needed."
        return Finding("inconclusive", float(measured), limit, int(images), reason, "images")
    return Finding("pass", float(measured), limit, int(images), "", "images")
