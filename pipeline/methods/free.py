"""Free adversarial training (Shafahi et al. 2019): the training pass itself gives the attack's gradient."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from pipeline.attacks.shapes import start_noise
from pipeline.methods.attacking import AttackingMethod
from pipeline.methods.rows import replace_rows
from pipeline.runs import rank_of, seed_for


class FreeTraining(AttackingMethod):
    """Train on images plus a perturbation that each training step moves by the gradient it has computed anyway.

    Every batch must come several times in a row (`pipeline.runs.ReplayingLoader`, four times in the original). A step
    costs what one of standard training costs. The perturbation goes on from batch to batch, as in the original; ours:
    it starts anew, uniform in the budget, at every epoch, so that a resumed run repeats it. All rows are attacked,
    which is r = 0 for terms. With a term such as ARFL the perturbation climbs the whole loss that is trained on, not
    the classification loss alone as in Eq. 5: the gradient that comes for free is that of the sum.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        budget: largest absolute change of a pixel, and length of a step, in units of the images.
        bounds: smallest and largest pixel value.
        others: see `AttackingMethod`; no `attack`.

    Raises:
        ValueError: a negative budget.
    """

    standard_ratio = 0.0

    def __init__(
        self, network: nn.Module, *, budget: float, bounds: tuple[float, float] = (0.0, 1.0), **others: Any
    ) -> None:
        if budget < 0:
            raise ValueError(f"budget is {budget}; allowed are numbers from 0 on, in units of the images")
        super().__init__(network, attack=None, **others)
        self.budget = float(budget)
        self.bounds = bounds
        self.perturbation: Tensor | None = None
        self._images: Tensor | None = None

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Put the perturbed images, whose gradient the training pass will compute, in place of the clean ones."""
        images, labels = self.rows(batch)
        if self.perturbation is None or self.perturbation.shape[1:] != images.shape[1:]:
            place = (0, 0) if engine is None else (engine.state.epoch, rank_of(engine))
            self.perturbation = (
                self.budget * self.budget_share(engine) * start_noise(images, seed_for(self.seed, "free", *place))
            )
        elif len(self.perturbation) < len(images):
            raise ValueError(
                f"a batch of {len(images)} images after one of {len(self.perturbation)}; "
                "free training needs its largest batch first"
            )
        attacked = (images + self.perturbation[: len(images)]).clamp_(*self.bounds).requires_grad_(True)
        self._images = attacked
        return replace_rows(batch, attacked, labels)

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """The trainer's loss on the perturbed rows (Eq. 3 with a maximisation that lags behind)."""
        return self.loss(logits, batch["label"].to(logits.device))

    def attach(self, engine: SupervisedTrainer) -> None:
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._move)

    def _start(self, _engine: SupervisedTrainer) -> None:
        self.perturbation = None

    def _move(self, engine: SupervisedTrainer) -> None:
        images, self._images = self._images, None
        if images is None or images.grad is None or self.perturbation is None:
            return
        moved = self.perturbation[: len(images)]
        budget = self.budget * self.budget_share(engine)
        moved.add_(torch.nan_to_num(images.grad).sign(), alpha=budget).clamp_(-budget, budget)
