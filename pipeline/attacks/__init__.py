"""Attacks: pure functions from a score, images, labels and a budget to adversarial images."""

from pipeline.attacks.adaptive import FeatureAttack, FeatureObjective, WithLayers
from pipeline.attacks.apgd import APGD, apgd
from pipeline.attacks.best_pgd import BestPGD, best_pgd
from pipeline.attacks.component import Passes
from pipeline.attacks.count import Count
from pipeline.attacks.exam_component import ExamPGD
from pipeline.attacks.exam_pgd import exam_pgd
from pipeline.attacks.exam_pooling import ExamLayout, ExamPooling
from pipeline.attacks.expectation import EOT, Expectation
from pipeline.attacks.few_views import FewViews, worst_views
from pipeline.attacks.minimal_distance import FMN, Distances, fmn
from pipeline.attacks.mode import attack_mode
from pipeline.attacks.noise import Noise, noise
from pipeline.attacks.objectives import margin
from pipeline.attacks.pgd import PGD, pgd
from pipeline.attacks.shapes import as_labels, as_logit
from pipeline.attacks.single_step import FGSM, FGSMRS, NFGSM
from pipeline.attacks.spsa import SPSA, spsa
from pipeline.attacks.square import Square, square
from pipeline.attacks.transfer import Through, Transfer
from pipeline.attacks.universal import Universal, universal, with_universal
from pipeline.attacks.worst import WorstOf
from pipeline.attacks.wrapped import Attack

__all__ = [
    "APGD", "Attack", "BestPGD", "Count", "Distances", "EOT", "ExamLayout", "ExamPGD", "ExamPooling", "Expectation",
    "FGSM", "FGSMRS", "FMN", "FeatureAttack", "FeatureObjective", "FewViews", "NFGSM", "Noise", "PGD", "Passes", "SPSA",
    "Square", "Through", "Transfer", "Universal", "WithLayers", "WorstOf", "apgd", "as_labels", "as_logit",
    "attack_mode", "best_pgd", "exam_pgd", "fmn", "margin", "noise", "pgd", "spsa", "square", "universal",
    "with_universal", "worst_views",
]  # fmt: skip
