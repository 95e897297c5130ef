"""What methods with an attack share: when it starts, how its budget grows, and under which seed it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from pipeline.attacks import as_labels, as_logit
from pipeline.methods.base import Method, warming_up
from pipeline.methods.rows import FLAG, adversarial_rows, split_rows
from pipeline.networks import bare, pause_cache
from pipeline.runs import running_means, seed_for


class Attack(Protocol):
    """Anything called as `attack(network, images, labels, seed=...)` that returns images of the same shape."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | None = None) -> Tensor: ...


class AttackingMethod(Method):
    """A method whose batches hold attacked rows.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        attack: e.g. `pipeline.attacks.PGD`; None where a subclass allows it.
        loss_function: loss of logits and labels with a scalar result; default: the trainer's own.
        seed: of the attacks' starts.
        start_epoch: first epoch with attacks; the epochs before train on clean images (ours, 1 is the paper).
        warmup_epochs: epochs from `start_epoch` on in which the budget grows linearly to its full size, 0 for none
            (not in the paper; the attack needs `scaled(fraction)`, as ours have).

    Raises:
        ValueError: a warm-up below 0, or with an attack that cannot be scaled.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        attack: Attack | None,
        loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        seed: int = 0,
        start_epoch: int = 1,
        warmup_epochs: int = 0,
    ) -> None:
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs is {warmup_epochs}; allowed are whole numbers from 0 on")
        if warmup_epochs and attack is not None and not hasattr(attack, "scaled"):
            raise ValueError(
                f"warmup_epochs needs an attack with scaled(fraction); {type(attack).__name__} has none, "
                "use one of pipeline.attacks or warmup_epochs=0"
            )
        self.network = network
        self.attack = attack
        self.loss_function = loss_function
        self.seed = seed
        self.start_epoch = start_epoch
        self.warmup_epochs = warmup_epochs

    def rows(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch as plain tensors on the network's device."""
        device = next(bare(self.network).parameters()).device
        # Plain tensors: a MetaTensor's bookkeeping does not know of added rows.
        return tuple(batch[key].to(device, non_blocking=True).as_subclass(Tensor) for key in ("image", "label"))

    def step_seed(self, engine: SupervisedTrainer | None) -> int:
        """Seed of this iteration's attack; without an engine the method's own."""
        if engine is None:
            return self.seed
        return seed_for(self.seed, "attack", engine.state.epoch, engine.state.iteration, engine.state.rank)

    def current_attack(self, engine: SupervisedTrainer | None) -> Any:
        """The attack with this epoch's budget."""
        share = self.budget_share(engine)
        if self.attack is None or share == 1:
            return self.attack
        return self.attack.scaled(share)  # type: ignore[attr-defined]

    def budget_share(self, engine: SupervisedTrainer | None) -> float:
        """This epoch's share of the budget: below 1 in the warm-up."""
        done = self.warmup_epochs + 1 if engine is None else engine.state.epoch - self.start_epoch + 1
        return min(1.0, done / (self.warmup_epochs + 1))

    def attacked(self, images: Tensor, labels: Tensor, engine: SupervisedTrainer | None) -> Tensor:
        """Attack images (N, C, H, W) towards the wrong label."""
        return self.current_attack(engine)(self.network, images, labels, seed=self.step_seed(engine))

    def attach(self, engine: SupervisedTrainer) -> None:
        super().attach(engine)
        # Attacked rows come once; the network need not look for their maps.
        engine.add_event_handler(Events.ITERATION_STARTED, self._pause)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda: pause_cache(self.network, False))
        if self.attack is not None:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._log_attack_success)

    def _pause(self, engine: SupervisedTrainer) -> None:
        pause_cache(self.network, FLAG in engine.state.batch)

    def _log_attack_success(self, engine: SupervisedTrainer) -> None:
        """Share of images that are right when clean and wrong when attacked; without clean rows, share wrong.

        Read from the training forward, so dropout is in it.
        """
        if warming_up(self, engine):
            return
        batch, logits = engine.state.batch, as_logit(engine.state.output["pred"].detach())
        labels = as_labels(batch["label"].to(logits.device), len(logits))
        wrong = (logits > 0) != (labels > 0.5)
        clean_wrong, attacked_wrong = split_rows(wrong, adversarial_rows(batch, len(logits)))
        clean_right = ~clean_wrong
        means = running_means(engine)
        if len(clean_right) == 0:
            means.add("attack_success", attacked_wrong.sum(), len(attacked_wrong))
            return
        clean_right = clean_right.repeat(len(attacked_wrong) // len(clean_right))  # several attacked rows an image
        means.add("attack_success", (clean_right & attacked_wrong).sum(), clean_right.sum())
