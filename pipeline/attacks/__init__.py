"""Attacks: pure functions from a score, images, labels and a budget to adversarial images."""

from pipeline.attacks.mode import attack_mode
from pipeline.attacks.objectives import margin
from pipeline.attacks.pgd import PGD, pgd
from pipeline.attacks.shapes import as_labels, as_logit
from pipeline.attacks.single_step import FGSM, FGSMRS, NFGSM

__all__ = ["FGSM", "FGSMRS", "NFGSM", "PGD", "as_labels", "as_logit", "attack_mode", "margin", "pgd"]
