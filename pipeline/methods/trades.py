"""TRADES (Zhang et al. 2019): row H of the paper."""

from __future__ import annotations

from typing import Any, Literal

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.attacks import PGD, as_labels, as_logit, attack_mode
from pipeline.methods.attacking import AttackingMethod
from pipeline.methods.divergence import binary_divergence
from pipeline.methods.rows import adversarial_rows, grow_batch, split_rows

START_DEVIATION = 0.001  # of the normal noise that the inner maximisation starts from, in units of the images


def trades_loss(clean: Tensor, adversarial: Tensor, labels: Tensor, *, beta: float = 6.0) -> Tensor:
    """CE(clean, y) + beta * mean KL(p_clean || p_adversarial), a scalar; the gradient goes through both predictions.

    Args:
        clean: logits (N,), (N, 1) or (N, 2) of clean images.
        adversarial: logits of the same images attacked.
        labels: (N,) or (N, 1) in {0, 1}.
        beta: weight of the divergence; the original's value is 6.
    """
    clean, adversarial = as_logit(clean), as_logit(adversarial)
    targets = as_labels(labels, len(clean)).to(clean)
    divergence = binary_divergence(clean, adversarial).mean()
    return binary_cross_entropy_with_logits(clean, targets) + beta * divergence


class TRADES(AttackingMethod):
    """Train on CE(clean) + beta * KL(p_clean || p_adversarial), where the attack climbs the divergence.

    Inner maximisation as in the original: from the image plus normal noise of deviation 0.001, sign steps, projection
    to the budget and then to the bounds, network in eval mode; the clean probabilities are computed once. Labels play
    no part in the attack. Clean and attacked rows count half each for terms such as ARFL. In the update every row has
    dropout of its own, as in the original, so that a part of the divergence is dropout's (in MIRST, MART and ALP too).

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        attack: budget, steps, step size and bounds of the inner maximisation.
        beta: weight of the divergence.
        signs: "one" is the original (row H). "both" (ours): with one logit the divergence's gradient at the start is
            almost zero and its sign chance, so climb with the logit up and down and keep the larger divergence, at
            twice the cost.
        others: see `AttackingMethod`.

    Raises:
        ValueError: a negative beta, or an unknown `signs`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        attack: PGD,
        beta: float = 6.0,
        signs: Literal["one", "both"] = "one",
        **others: Any,
    ) -> None:
        if beta < 0:
            raise ValueError(f"beta is {beta}; allowed are numbers from 0 on, the original's is 6")
        if signs not in ("one", "both"):
            raise ValueError(f"signs {signs!r} is unknown; allowed are 'one' (the original) and 'both'")
        super().__init__(network, attack=attack, **others)
        self.beta = float(beta)
        self.signs = signs

    def attacked(self, images: Tensor, labels: Tensor, engine: SupervisedTrainer | None) -> Tensor:
        with torch.no_grad(), attack_mode(self.network) as module:
            clean = as_logit(module(images))
        generator = torch.Generator(device=images.device).manual_seed(self.step_seed(engine))
        noise = START_DEVIATION * torch.randn(images.shape, generator=generator, device=images.device)
        attack = self.current_attack(engine)

        def climb(objective: Any) -> Tensor:
            return attack(self.network, images, clean, objective=objective, noise=noise)

        if self.signs == "one":
            return climb(lambda logits, reference: binary_divergence(reference, logits))
        # On either side of the clean logit the divergence grows with the distance.
        ends = climb(lambda logits, _: logits), climb(lambda logits, _: -logits)
        with torch.no_grad(), attack_mode(self.network) as module:
            up, down = (binary_divergence(clean, as_logit(module(end))) for end in ends)
        return torch.where((up >= down).view(-1, 1, 1, 1), *ends)

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Add one attacked row for every clean one."""
        images, labels = self.rows(batch)
        return grow_batch(batch | {"image": images, "label": labels}, self.attacked(images, labels, engine))

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """The trainer's loss on the clean rows + beta * KL(p_clean || p_adversarial)."""
        adversarial = adversarial_rows(batch, len(logits))
        labels, _ = split_rows(batch["label"].to(logits.device), adversarial)
        clean, attacked = split_rows(logits, adversarial)
        divergence = binary_divergence(as_logit(clean), as_logit(attacked)).mean()
        return self.loss(clean, labels) + self.beta * divergence
