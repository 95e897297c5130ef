"""MIRST: multi-instance robust self-training (after Sun et al. 2022), row I of the paper, as a reconstruction."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from pipeline.attacks import PGD, as_logit, attack_mode
from pipeline.methods.attacking import AttackingMethod
from pipeline.methods.divergence import binary_divergence
from pipeline.methods.rows import adversarial_rows, grow_batch, split_rows


class MIRST(AttackingMethod):
    """Train on CE(clean) + beta / K * sum over k of KL(p_clean || p_k), x_k instances of an image along a PGD path.

    A reconstruction: the equations of MIRST-DM were not available to us. Ours: K = 3 instances at growing budgets
    eps / 3, 2 eps / 3, eps; the attack's steps are shared among the levels, each going on from the instance before, so
    that all lie on one path whose cost is that of one attack. Within a level a step is 2.5 * (eps / K) / its steps.
    Self-training: rows whose label is NaN take the label that the network gives their clean image (`pseudo_labels`),
    and are refused without it. The original's drop-max pooling is an option of the network (`vgg16(drop_max=True)`).

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        attack: budget, steps and bounds; at least one step for each instance.
        instances: K.
        beta: weight of the divergence (not available; TRADES' value).
        pseudo_labels: label rows without a label by the network itself.
        others: see `AttackingMethod`.

    Raises:
        ValueError: fewer steps than instances, or a negative beta.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        attack: PGD,
        instances: int = 3,
        beta: float = 6.0,
        pseudo_labels: bool = False,
        **others: Any,
    ) -> None:
        if instances < 1 or attack.steps < instances:
            raise ValueError(
                f"{instances} instances on a path of {attack.steps} steps; allowed are 1 to as many as there are steps"
            )
        if beta < 0:
            raise ValueError(f"beta is {beta}; allowed are numbers from 0 on")
        super().__init__(network, attack=attack, **others)
        self.instances = instances
        self.beta = float(beta)
        self.pseudo_labels = pseudo_labels

    def path(self, images: Tensor, labels: Tensor, engine: SupervisedTrainer | None = None) -> list[Tensor]:
        """The K instances (N, C, H, W) of each image, at budgets k eps / K."""
        whole = self.current_attack(engine)
        done, instances = 0, []
        offset: Tensor | None = None
        for level in range(1, self.instances + 1):
            stage = whole.scaled(level / self.instances)
            stage.steps = whole.steps * level // self.instances - done
            done += stage.steps
            stage.step_size = 2.5 * whole.budget / self.instances / stage.steps
            instances.append(stage(self.network, images, labels, seed=self.step_seed(engine), noise=offset))
            offset = instances[-1] - images
        return instances

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Add K attacked rows for every clean one."""
        given = batch["label"]
        # Looked at where they come from, the loader: asking a GPU would wait for it in every step.
        if not self.pseudo_labels and given.device.type == "cpu" and given.isnan().any():
            raise ValueError("the batch has rows without a label; set pseudo_labels=True, or leave those rows out")
        images, labels = self.rows(batch)
        labels = self._complete(images, labels)
        return grow_batch(batch | {"image": images, "label": labels}, torch.cat(self.path(images, labels, engine)))

    def _complete(self, images: Tensor, labels: Tensor) -> Tensor:
        unknown = labels.isnan() if labels.is_floating_point() else torch.zeros_like(labels, dtype=torch.bool)
        if not self.pseudo_labels:
            return labels
        with torch.no_grad(), attack_mode(self.network) as module:
            own = (as_logit(module(images)) > 0).to(labels.dtype).view_as(labels)
        return torch.where(unknown, own, labels)

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """The trainer's loss on the clean rows + beta / K * sum of KL(p_clean || p_k)."""
        adversarial = adversarial_rows(batch, len(logits))
        labels, _ = split_rows(batch["label"].to(logits.device), adversarial)
        clean, attacked = split_rows(logits, adversarial)
        divergence = binary_divergence(as_logit(clean).repeat(self.instances), as_logit(attacked)).mean()
        return self.loss(clean, labels) + self.beta * divergence
