"""Domain-specific batch normalisation (Chang et al. 2019; Han et al. 2021): row G of the paper, with PGD."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from pipeline.methods.attacking import Attack, AttackingMethod
from pipeline.methods.rows import FLAG, adversarial_rows, grow_batch, split_rows
from pipeline.networks import AUXILIARY, DomainView, bare, has_domains


class DSBN(AttackingMethod):
    """Train on the sum of the clean and the attacked loss, each group of rows through a normalisation of its own.

    The network takes `forward(images, domain)` with domain (N,) bool, True for attacked rows: give the trainer
    `monai.engines.PrepareBatchExtraInput(extra_keys={"domain": "adversarial"})`, which reads the batch's row flag. The
    attack goes through the auxiliary branch, the one that its images are trained with. In a distributed run every rank
    normalises by the statistics of its own rows, and the first rank's running statistics are kept. The best epoch is
    chosen through the main branch, for the auxiliary one too.

    Args:
        network: one with domains, e.g. `pipeline.networks.vgg16_domain`, or its data-parallel wrapper.
        attack: e.g. `pipeline.attacks.PGD` (the paper's row has PGD where the original had FGSM).
        others: see `AttackingMethod`.

    Raises:
        ValueError: a network without domain-specific normalisation.
    """

    def __init__(self, network: nn.Module, *, attack: Attack, **others: Any) -> None:
        if not has_domains(bare(network)):
            raise ValueError(
                f"DSBN needs a network with one normalisation per domain; {type(bare(network)).__name__} has none, "
                "use pipeline.networks.vgg16_domain"
            )
        super().__init__(network, attack=attack, **others)

    def auxiliary_branch(self) -> nn.Module:
        """The auxiliary branch as a network of its own."""
        return DomainView(bare(self.network), AUXILIARY)

    def attach(self, engine: SupervisedTrainer) -> None:
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_STARTED, self._flag)

    def _flag(self, engine: SupervisedTrainer) -> None:
        # Epochs before the method's first one have clean rows only; the trainer reads the flag all the same.
        if FLAG not in engine.state.batch:
            flag = torch.zeros(len(engine.state.batch["image"]), dtype=torch.bool)
            engine.state.batch = engine.state.batch | {FLAG: flag}

    def attacked(self, images: Tensor, labels: Tensor, engine: SupervisedTrainer | None) -> Tensor:
        view = self.auxiliary_branch()
        return self.current_attack(engine)(view, images, labels, seed=self.step_seed(engine))

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Add one attacked row for every clean one."""
        images, labels = self.rows(batch)
        return grow_batch(batch | {"image": images, "label": labels}, self.attacked(images, labels, engine))

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """L(x, y) through the first normalisation + L(x + delta, y) through the second."""
        labels, adversarial = batch["label"].to(logits.device), adversarial_rows(batch, len(logits))
        (clean, attacked), (clean_labels, attacked_labels) = (split_rows(v, adversarial) for v in (logits, labels))
        return self.loss(clean, clean_labels) + self.loss(attacked, attacked_labels)
