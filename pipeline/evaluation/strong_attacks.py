"""The attacks of the strong test: white box, black box, transfer, adaptive, and on whole exams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from pipeline.attacks import (
    APGD,
    EOT,
    FGSM,
    PGD,
    SPSA,
    Attack,
    BestPGD,
    ExamPGD,
    ExamPooling,
    FeatureAttack,
    FewViews,
    Noise,
    Square,
    Through,
    Transfer,
    Universal,
    WithLayers,
    WorstOf,
)
from pipeline.evaluation.effort import Effort
from pipeline.evaluation.surrogate import Surrogate
from pipeline.networks import AUXILIARY, MAIN, DomainView, bare, has_domains
from pipeline.networks.vgg import DropMaxPool

LARGE_BUDGETS = (0.03, 0.1)
"""Budgets at which nothing should be left: at 0.1 of the grey scale an attacker repaints the image."""


EOT_DRAWS = 10
"""Forwards per look at a network whose forward is random."""


class FeatureTerm(Protocol):
    """The term of a defence on the features of one layer, which an attack raises."""

    layer: str
    weight: float

    def __call__(self, features: Tensor, labels: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Entry:
    """One attack of the strong test.

    Attributes:
        role: what the gates take it for, e.g. "more_steps", "square"; see `pipeline.statistics.gates`.
        name: in words, for the report.
        attack: a component on images, or on whole exams if `exam`.
        exam: the attack takes `exams` and `breasts`, and sees whole exams.
        fits: the attack is fitted on all images together before it is called.
    """

    role: str
    name: str
    attack: Any
    exam: bool = False
    fits: bool = False


def strong_attacks(
    network: nn.Module,
    *,
    effort: Effort,
    budget: float,
    steps: int,
    image_size: int,
    surrogate: Surrogate | None = None,
    feature_term: FeatureTerm | None = None,
    random: bool = False,
    within_breast: str = "mean",
    across_breasts: str = "max",
) -> list[Entry]:
    """List the attacks of the strong test on a network.

    Args:
        network: the network under test; what it is made of decides about the adaptive attacks.
        effort: sizes.
        budget: at which all attacks are compared, in the maximum norm.
        steps: of the PGD that the run reports at its test budgets.
        image_size: side of the prepared images in pixels; makes the L2 budget, that of a change of `budget` everywhere.
        surrogate: for transfer; None leaves transfer out.
        feature_term: what the defence added on its features, for the adaptive attack; None leaves it out.
        random: the network's forward is random, so that an attack on its expectation is due.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """
    pool = ExamPooling(within_breast, across_breasts)  # type: ignore[arg-type]
    length = budget * image_size
    usual, long = PGD(budget=budget, steps=steps), BestPGD(budget=budget, steps=10 * steps)
    several = BestPGD(budget=budget, steps=steps, restarts=effort.starts)
    square = Square(budget=budget, queries=effort.square_queries)
    spsa = SPSA(budget=budget, steps=effort.spsa_steps, samples=effort.spsa_samples)
    whole = ExamPGD(budget=2 * length, steps=steps, norm="l2", pool=pool)
    entries = [
        Entry("noise", "random noise", Noise(budget=budget, draws=effort.noise_draws)),
        Entry("single_step", "one step (FGSM)", FGSM(budget=budget)),
        Entry("more_steps", f"PGD, {long.steps} steps", long),
        Entry("restarts", f"PGD, {steps} steps from {effort.starts} starts", several),
        Entry("iterated", f"APGD, {effort.apgd_steps} steps", APGD(budget=budget, steps=effort.apgd_steps)),
        Entry("square", f"Square, {square.steps} queries", square),
        Entry("spsa", f"SPSA, {effort.spsa_steps} steps", spsa),
        Entry("l2", f"PGD in L2, {length:.3g}", BestPGD(budget=length, steps=steps, norm="l2")),
        Entry("exam", f"whole exam in L2, {2 * length:.3g}", whole, exam=True),
        Entry("exam", "one view of the exam only", FewViews(usual, views=1, pool=pool), exam=True),
        Entry(
            "universal",
            f"universal, {effort.universal_steps} steps",
            Universal(budget=budget, steps=effort.universal_steps),
            fits=True,
        ),
        *(Entry("budget", f"PGD, {steps} steps", PGD(budget=large, steps=steps)) for large in LARGE_BUDGETS),
    ]
    if surrogate is not None:
        entries.append(Entry("transfer", "made on another network", Transfer(long, surrogate=surrogate.network)))
    if random:
        entries.append(Entry("adaptive", f"mean of {EOT_DRAWS} draws (EOT)", EOT(long, draws=EOT_DRAWS)))
    return entries + _adaptive(network, long, feature_term)


def _adaptive(network: nn.Module, attack: BestPGD, term: FeatureTerm | None) -> list[Entry]:
    """Attacks that use what the defence added."""
    entries = []
    if term is not None:
        knowing = FeatureAttack(attack, layer=term.layer, term=term, weight=term.weight)
        entries.append(Entry("adaptive", "against the features of ARFL", knowing))
    inner = bare(network)
    if has_domains(inner):
        branches: list[Attack] = [
            Through(attack, view=lambda module, name=name: DomainView(module, name), name=f"through-{name}")  # type: ignore[misc]
            for name in (MAIN, AUXILIARY)
        ]
        entries.append(Entry("adaptive", "the worse of both branches", WorstOf(branches, name="branches")))
    if any(isinstance(module, DropMaxPool) for module in inner.modules()):
        view = WithLayers(DropMaxPool, lambda _: nn.MaxPool2d(2, 2))
        plain = WorstOf([attack, Through(attack, view=view, name="through-max")], name="drop-max")
        entries.append(Entry("adaptive", "straight, and through plain pooling", plain))
    return entries
