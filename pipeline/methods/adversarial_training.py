"""Standard, adversarial and dual training (Eq. 2 to 4): rows A, C and E of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from pipeline.attacks import as_labels, as_logit
from pipeline.methods.base import Method, warming_up
from pipeline.methods.rows import FLAG, adversarial_rows, grow_batch
from pipeline.networks import bare
from pipeline.runs import running_means, seed_for


class Attack(Protocol):
    """Anything called as `attack(network, images, labels, seed=...)` that returns images of the same shape."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | None = None) -> Tensor: ...


class AdversarialTraining(Method):
    """Train on clean and attacked images with weights r and 1 - r.

    For 0 < r < 1 every image stands in the batch twice, clean and attacked, and the objective is
    ``r * mean(clean) + (1 - r) * mean(attacked)``: Eq. 4 exactly (row E). r = 1 keeps the clean rows only (row A),
    r = 0 the attacked rows only (Eq. 3, row C). The attack climbs the loss of the network as it stands, in eval mode.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        standard_ratio: r in [0, 1], the share of standard data.
        attack: e.g. `pipeline.attacks.PGD`; not needed for r = 1.
        loss_function: loss of logits and labels with a scalar result; default: the trainer's own.
        seed: of the attacks' starts.
        start_epoch: first epoch with attacks; the epochs before train on clean images (ours, 1 is the paper).

    Raises:
        ValueError: r outside [0, 1], or r < 1 without an attack.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        standard_ratio: float = 0.5,
        attack: Attack | None = None,
        loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        seed: int = 0,
        start_epoch: int = 1,
    ) -> None:
        if not 0 <= standard_ratio <= 1:
            raise ValueError(f"standard_ratio is {standard_ratio}; allowed are 0 (attacked only) to 1 (clean only)")
        if standard_ratio < 1 and attack is None:
            raise ValueError(f"standard_ratio {standard_ratio} needs an attack; give one, or standard_ratio=1")
        self.network = network
        self.standard_ratio = float(standard_ratio)
        self.attack = attack
        self.loss_function = loss_function
        self.seed = seed
        self.start_epoch = start_epoch

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Attack the batch and add the attacked rows, or put them in place of the clean ones for r = 0."""
        if self.standard_ratio == 1 or self.attack is None:
            return batch
        device = next(bare(self.network).parameters()).device
        # Plain tensors: a MetaTensor's bookkeeping does not know of the added rows.
        images = batch["image"].to(device, non_blocking=True).as_subclass(Tensor)
        labels = batch["label"].to(device, non_blocking=True).as_subclass(Tensor)
        seed = self.seed
        if engine is not None:
            seed = seed_for(self.seed, "attack", engine.state.epoch, engine.state.iteration, engine.state.rank)
        attacked = self.attack(self.network, images, labels, seed=seed)
        if self.standard_ratio == 0:
            return batch | {"image": attacked, "label": labels, FLAG: torch.ones(len(attacked), dtype=torch.bool)}
        return grow_batch(batch | {"image": images, "label": labels}, attacked)

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """Eq. 4: (1 - r) L(x + delta, y) + r L(x, y), each L the loss function's value on its group of rows."""
        if self.loss_function is None:
            raise ValueError("AdversarialTraining has no loss function; attach it to a trainer or pass loss_function")
        labels = batch["label"].to(logits.device)
        adversarial = adversarial_rows(batch, len(logits))
        if not 0 < self.standard_ratio < 1:
            return self.loss_function(logits, labels).mean()
        clean = ~adversarial
        standard = self.loss_function(logits[clean], labels[clean]).mean()
        attacked = self.loss_function(logits[adversarial], labels[adversarial]).mean()
        return self.standard_ratio * standard + (1 - self.standard_ratio) * attacked

    def attach(self, engine: SupervisedTrainer) -> None:
        super().attach(engine)
        if self.standard_ratio < 1:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._log_attack_success)

    def _log_attack_success(self, engine: SupervisedTrainer) -> None:
        if not warming_up(self, engine):
            _add_attack_success(engine)


def _add_attack_success(engine: SupervisedTrainer) -> None:
    """Share of images that are right when clean and wrong when attacked; without clean rows, share wrong.

    Read from the training forward, so dropout is in it.
    """
    batch, logits = engine.state.batch, as_logit(engine.state.output["pred"].detach())
    labels = as_labels(batch["label"].to(logits.device), len(logits))
    wrong = (logits > 0) != (labels > 0.5)
    adversarial = adversarial_rows(batch, len(logits))
    attacked_wrong = wrong[adversarial]
    means = running_means(engine)
    if bool(adversarial.all()):
        means.add("attack_success", attacked_wrong.sum(), len(attacked_wrong))
    else:
        clean_right = ~wrong[~adversarial]
        means.add("attack_success", (clean_right & attacked_wrong).sum(), clean_right.sum())
