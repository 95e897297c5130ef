"""How a training method plugs into MONAI's `SupervisedTrainer`: one method, then any number of terms."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from pipeline.runs import keep_state, running_means

_ATTACHED: WeakKeyDictionary[Engine, list[Any]] = WeakKeyDictionary()


class PlugInError(ValueError):
    """Handlers that do not go together on one trainer."""


def attached(engine: Engine) -> list[Method | Term]:
    """Method and terms of an engine, in the order of their attachment."""
    return _ATTACHED.setdefault(engine, [])


def method_of(engine: Engine) -> Method | None:
    """The engine's method, or None on a plain trainer."""
    return next((handler for handler in attached(engine) if isinstance(handler, Method)), None)


class Method:
    """A training method: it may grow the batch, and it gives the loss. A trainer has at most one.

    `expand` runs at ITERATION_STARTED; `objective` replaces the loss at LOSS_COMPLETED, which is what the trainer
    back-propagates. Subclasses implement both and may set `standard_ratio`, the weight r of clean rows that terms
    share.
    """

    standard_ratio: float = 0.5
    start_epoch: int = 1
    loss_function: Callable[[Tensor, Tensor], Tensor] | None = None

    def attach(self, engine: SupervisedTrainer) -> None:
        """Tie this method to a trainer.

        Raises:
            PlugInError: the trainer has a method already, or terms that were attached before it.
        """
        _refuse_other_engines(self, engine)
        present = attached(engine)
        if method_of(engine) is not None:
            raise PlugInError(
                f"{type(self).__name__}: the trainer already has the method {type(method_of(engine)).__name__}; "
                "a trainer takes one method and any number of terms"
            )
        if present:
            raise PlugInError(
                f"{type(self).__name__}: attach the method before its terms ({type(present[0]).__name__} came first); "
                "put it first in train_handlers"
            )
        _register(self, engine)
        means = running_means(engine)

        def on_started(engine: SupervisedTrainer) -> None:
            # Handlers are attached while the trainer is still being built; it has its loss by now.
            if self.loss_function is None:
                self.loss_function = engine.loss_function

        def on_iteration_started(engine: SupervisedTrainer) -> None:
            if warming_up(self, engine):
                return
            started = time.perf_counter()
            _refuse_other_batches(self, engine.state.batch)
            engine.state.batch = self.expand(engine.state.batch, engine=engine)
            means.add_seconds("seconds_attack", time.perf_counter() - started)

        def on_loss_completed(engine: SupervisedTrainer) -> None:
            output = engine.state.output
            if not warming_up(self, engine):
                output[CommonKeys.LOSS] = self.objective(output[CommonKeys.PRED], engine.state.batch)
            means.add("classification_loss", output[CommonKeys.LOSS].detach(), 1)

        engine.add_event_handler(Events.STARTED, on_started)
        engine.add_event_handler(Events.ITERATION_STARTED, on_iteration_started)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, on_loss_completed)

    def expand(self, batch: dict[str, Any], *, engine: SupervisedTrainer | None = None) -> dict[str, Any]:
        """Return the batch that the trainer sees; default: the same."""
        return batch

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss function's mean over rows, a scalar.

        Raises:
            ValueError: the method has no loss function: it was neither given one nor attached to a trainer.
        """
        if self.loss_function is None:
            raise ValueError(
                f"{type(self).__name__} has no loss function; attach it to a trainer or pass loss_function"
            )
        return self.loss_function(logits, labels).mean()

    def objective(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss, a scalar; pure in its arguments."""
        raise TypeError(f"{type(self).__name__} defines no objective")


class Term:
    """An addition to the loss, after the method; any number of them, in any order.

    Subclasses implement `loss(engine) -> scalar`, or override `attach` and begin it with `register`.
    """

    weight: float = 1.0
    start_epoch: int = 1

    def register(self, engine: SupervisedTrainer) -> None:
        """Note this term as the trainer's, with its state in the checkpoints.

        Raises:
            PlugInError: not a trainer that back-propagates.
        """
        _refuse_other_engines(self, engine)
        _register(self, engine)

    def attach(self, engine: SupervisedTrainer) -> None:
        """Tie this term to a trainer, after its method if it has one."""
        self.register(engine)

        def on_loss_completed(engine: SupervisedTrainer) -> None:
            if warming_up(self, engine):
                self.skip()
                return
            output = engine.state.output
            output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + self.weight * self.loss(engine)

        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, on_loss_completed)

    def loss(self, engine: SupervisedTrainer) -> Tensor:
        """Return this term's loss before weighting, a scalar."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def skip(self) -> None:
        """Let go of what a step recorded in which the term does not count."""


def warming_up(handler: Method | Term, engine: Engine) -> bool:
    """Whether the handler's first epoch is still to come: until then the trainer trains as if it were not there."""
    return engine.state.epoch < handler.start_epoch


def _refuse_other_engines(handler: object, engine: Engine) -> None:
    # Every MONAI engine registers LOSS_COMPLETED; only this one back-propagates what it finds after it.
    if not isinstance(engine, SupervisedTrainer):
        raise PlugInError(
            f"{type(handler).__name__} plugs into MONAI's SupervisedTrainer, which back-propagates the loss; "
            f"this engine is a {type(engine).__name__}"
        )


def _refuse_other_batches(handler: object, batch: Any) -> None:
    missing = [key for key in (CommonKeys.IMAGE, CommonKeys.LABEL) if not isinstance(batch, dict) or key not in batch]
    if missing:
        raise PlugInError(
            f"{type(handler).__name__} takes batches as dictionaries with 'image' and 'label'; "
            f"this batch is a {type(batch).__name__} without {' and '.join(map(repr, map(str, missing)))}"
        )


def _register(handler: Method | Term, engine: Engine) -> None:
    attached(engine).append(handler)
    if hasattr(handler, "state_dict"):
        keep_state(engine, handler)
