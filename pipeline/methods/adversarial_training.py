"""Standard, adversarial and dual training (Eq. 2 to 4): rows A, C and E of the paper."""

from __future__ import annotations

from typing import Any

from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from pipeline.methods.attacking import Attack, AttackingMethod
from pipeline.methods.rows import adversarial_rows, grow_batch, replace_rows, split_rows


class AdversarialTraining(AttackingMethod):
    """Train on clean and attacked images with weights r and 1 - r.

    For 0 < r < 1 every image stands in the batch twice, clean and attacked, and the objective is
    ``r * mean(clean) + (1 - r) * mean(attacked)``: Eq. 4 exactly (row E). r = 1 keeps the clean rows only (row A),
    r = 0 the attacked rows only (Eq. 3, row C). The attack climbs the loss of the network as it stands, in eval mode.
    With `attacks.FGSMRS` and r = 0 this is Fast-AT (Wong et al. 2020), with `attacks.NFGSM` N-FGSM.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        standard_ratio: r in [0, 1], the share of standard data.
        attack: e.g. `pipeline.attacks.PGD`; not needed for r = 1.
        others: see `AttackingMethod`.

    Raises:
        ValueError: r outside [0, 1], or r < 1 without an attack.
    """

    def __init__(
        self, network: nn.Module, *, standard_ratio: float = 0.5, attack: Attack | None = None, **others: Any
    ) -> None:
        if not 0 <= standard_ratio <= 1:
            raise ValueError(f"standard_ratio is {standard_ratio}; allowed are 0 (attacked only) to 1 (clean only)")
        if standard_ratio < 1 and attack is None:
            raise ValueError(f"standard_ratio {standard_ratio} needs an attack; give one, or standard_ratio=1")
        super().__init__(network, attack=None if standard_ratio == 1 else attack, **others)
        self.standard_ratio = float(standard_ratio)

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Attack the batch and add the attacked rows, or put them in place of the clean ones for r = 0."""
        if self.attack is None:
            return batch
        images, labels = self.rows(batch)
        attacked = self.attacked(images, labels, engine)
        if self.standard_ratio == 0:
            return replace_rows(batch, attacked, labels)
        return grow_batch(batch | {"image": images, "label": labels}, attacked)

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """Eq. 4: (1 - r) L(x + delta, y) + r L(x, y), each L the loss function's value on its group of rows."""
        labels = batch["label"].to(logits.device)
        adversarial = adversarial_rows(batch, len(logits))
        if not 0 < self.standard_ratio < 1:
            return self.loss(logits, labels)
        groups = zip(split_rows(logits, adversarial), split_rows(labels, adversarial), strict=True)
        standard, attacked = (self.loss(*group) for group in groups)
        return self.standard_ratio * standard + (1 - self.standard_ratio) * attacked
