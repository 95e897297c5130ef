"""Adversarial weight perturbation (Wu et al. 2020) as a term that composes with any method."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor, nn

from pipeline.methods.base import Term, method_of, warming_up
from pipeline.networks import bare


class AWP(Term):
    """Take each step's gradient at weights moved to raise the loss, and apply it to the weights as they were.

    Layer by layer, w becomes w + gamma * ||w|| * g / ||g|| with g the gradient of the method's objective on the whole
    batch (attacked rows included); biases and normalisations stay. The step's pass then runs there, and before the
    optimiser acts the weights are put back bit by bit. Costs one more pass forward and back; batch statistics see the
    batch once. Terms such as ARFL count in the step, not in the perturbation.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        gamma: size of the perturbation relative to the weights; 0.005 to 0.01 is theirs.
        start_epoch: first epoch in which the term counts.

    Raises:
        ValueError: gamma not above 0.
    """

    def __init__(self, network: nn.Module, *, gamma: float = 0.01, start_epoch: int = 1) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma is {gamma}; allowed are numbers above 0, 0.005 to 0.01 is the paper's")
        self.network = network
        self.gamma = float(gamma)
        self.start_epoch = start_epoch
        self._kept: list[tuple[Tensor, Tensor]] = []

    def attach(self, engine: SupervisedTrainer) -> None:
        self.register(engine)
        engine.add_event_handler(Events.ITERATION_STARTED, self.perturb)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.restore)

    def perturb(self, engine: SupervisedTrainer) -> None:
        """Move the weights; the batch has been grown by the method before."""
        if warming_up(self, engine):
            return
        network = bare(self.network)
        weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        network.train()
        gradients = torch.autograd.grad(self._objective(engine), weights, allow_unused=True)
        if idist.get_world_size() > 1:  # all ranks move to the same place, that of the whole batch
            for gradient in gradients:
                if gradient is not None:
                    gradient.copy_(torch.as_tensor(idist.all_reduce(gradient)) / idist.get_world_size())
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
            self._kept = [(weight, weight.clone()) for weight in weights]
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    length = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
                    weight.addcmul_(gradient, self.gamma * weight.norm() / length)

    def restore(self, _engine: SupervisedTrainer | None = None) -> None:
        """Put the weights back exactly."""
        kept, self._kept = self._kept, []
        with torch.no_grad():
            for weight, value in kept:
                weight.copy_(value)

    def _objective(self, engine: SupervisedTrainer) -> Tensor:
        batch = engine.prepare_batch(engine.state.batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, labels, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        with torch.autocast(inputs.device.type, enabled=bool(engine.amp)):
            logits: Any = engine.inferer(inputs, bare(self.network), *args, **kwargs)
            method = method_of(engine)
            if method is None:
                return engine.loss_function(logits, labels).mean()
            return method.objective(logits, {**engine.state.batch, CommonKeys.LABEL: labels})
