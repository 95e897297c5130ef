"""MART (Wang et al. 2020): misclassification-aware adversarial training."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn.functional import softplus

from pipeline.attacks import as_labels, as_logit
from pipeline.methods.attacking import Attack, AttackingMethod
from pipeline.methods.divergence import binary_divergence
from pipeline.methods.rows import adversarial_rows, grow_batch, split_rows


def mart_loss(clean: Tensor, adversarial: Tensor, labels: Tensor, *, beta: float = 5.0) -> Tensor:
    """BCE(p_adv, y) + beta * mean KL(p_clean || p_adv) * (1 - p_clean(y)), a scalar.

    The boosted cross-entropy -log p(y) - log(1 - max over other classes of p) is twice the cross-entropy where there
    are two classes.

    Args:
        clean: logits (N,), (N, 1) or (N, 2) of clean images.
        adversarial: logits of the same images attacked.
        labels: (N,) or (N, 1) in {0, 1}.
        beta: weight of the divergence; the original's value is 5.
    """
    clean, adversarial = as_logit(clean), as_logit(adversarial)
    signs = 2 * as_labels(labels, len(clean)).to(clean) - 1
    boosted = 2 * softplus(-signs * adversarial)  # -log p(y) = softplus(-margin)
    doubt = torch.sigmoid(-signs * clean)
    return (boosted + beta * doubt * binary_divergence(clean, adversarial)).mean()


class MART(AttackingMethod):
    """Train on attacked images with a divergence that counts most where the clean image is misclassified.

    The trainer's loss function plays no part; a class weight in it is not used.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        attack: climbs the margin of the true label, as the original climbs its cross-entropy.
        beta: weight of the divergence.
        others: see `AttackingMethod`.

    Raises:
        ValueError: a negative beta.
    """

    def __init__(self, network: nn.Module, *, attack: Attack, beta: float = 5.0, **others: Any) -> None:
        if beta < 0:
            raise ValueError(f"beta is {beta}; allowed are numbers from 0 on, the original's is 5")
        super().__init__(network, attack=attack, **others)
        self.beta = float(beta)

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Add one attacked row for every clean one."""
        images, labels = self.rows(batch)
        return grow_batch(batch | {"image": images, "label": labels}, self.attacked(images, labels, engine))

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """`mart_loss` of clean and attacked rows."""
        adversarial = adversarial_rows(batch, len(logits))
        labels, _ = split_rows(batch["label"].to(logits.device), adversarial)
        return mart_loss(*split_rows(logits, adversarial), labels, beta=self.beta)
