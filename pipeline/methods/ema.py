"""Weight averaging: an exponential moving average of the weights, validated and saved in place of the last ones."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from pipeline.methods.base import Term
from pipeline.networks import bare


class EMA(Term):
    """Average the trained weights over steps: a <- decay * a + (1 - decay) * w.

    Between epochs the network holds the average, so that validation, checkpoints and the test see it; when the next
    epoch starts, it gets the weights that the optimiser left. Early on the decay is (1 + t) / (10 + t) after t steps,
    if that is smaller, so that the start is forgotten. Put the term before the validation handler.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        decay: 0.999 by default.

    Raises:
        ValueError: a decay outside (0, 1).
    """

    def __init__(self, network: nn.Module, *, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}; allowed are numbers between 0 and 1, e.g. 0.999")
        self.network = network
        self.decay = float(decay)
        self.steps = 0
        self.others: dict[str, Tensor] = {}  # the average in an epoch, the optimiser's weights between epochs
        self.averaged = False  # does the network hold the average?

    def attach(self, engine: SupervisedTrainer) -> None:
        self.register(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._enter)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._leave)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "others": dict(self.others), "averaged": self.averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        weights = self._weights()
        self.steps, self.averaged = state["steps"], state["averaged"]
        self.others = {name: value.to(weights[name].device).clone() for name, value in state["others"].items()}

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.data for name, p in bare(self.network).named_parameters() if p.requires_grad}

    def _swap(self) -> None:
        with torch.no_grad():
            for name, parameter in bare(self.network).named_parameters():
                if name in self.others:
                    kept = parameter.detach().clone()
                    parameter.copy_(self.others[name])
                    self.others[name] = kept
        self.averaged = not self.averaged

    def _enter(self, _engine: SupervisedTrainer) -> None:
        if self.averaged:
            self._swap()
        elif not self.others:
            self.others = {name: value.clone() for name, value in self._weights().items()}

    def _update(self, _engine: SupervisedTrainer) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self._weights().items():
            self.others[name].lerp_(value, 1 - decay)

    def _leave(self, _engine: SupervisedTrainer) -> None:
        self._swap()
