"""Adversarial logit pairing (Kannan et al. 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pipeline.attacks import as_logit
from pipeline.methods.adversarial_training import AdversarialTraining
from pipeline.methods.attacking import Attack
from pipeline.methods.rows import adversarial_rows, split_rows


class ALP(AdversarialTraining):
    """Dual adversarial training (Eq. 4) plus the squared distance of each image's clean and attacked logit.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        attack: e.g. `pipeline.attacks.PGD`.
        pairing_weight: of the mean squared distance; 0.5 is the original's on ImageNet.
        standard_ratio: r of Eq. 4, strictly between 0 and 1.
        others: see `AttackingMethod`.

    Raises:
        ValueError: a negative weight, or r of 0 or 1, where there are no pairs.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        attack: Attack,
        pairing_weight: float = 0.5,
        standard_ratio: float = 0.5,
        **others: Any,
    ) -> None:
        if pairing_weight < 0:
            raise ValueError(f"pairing_weight is {pairing_weight}; allowed are numbers from 0 on")
        if not 0 < standard_ratio < 1:
            raise ValueError(f"standard_ratio is {standard_ratio}; pairs need one strictly between 0 and 1")
        super().__init__(network, standard_ratio=standard_ratio, attack=attack, **others)
        self.pairing_weight = float(pairing_weight)

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """Eq. 4 + pairing_weight * mean (z_clean - z_attacked)^2."""
        clean, attacked = split_rows(as_logit(logits), adversarial_rows(batch, len(logits)))
        distance = clean - attacked
        return super().objective(logits, batch) + self.pairing_weight * distance.square().mean()
