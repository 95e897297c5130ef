"""Adaptive attacks: what a defence adds to a network, used against it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

from torch import Tensor, nn

from pipeline.attacks.mode import bare
from pipeline.attacks.objectives import margin
from pipeline.attacks.wrapped import Attack, Wrapped


class FeatureObjective:
    """Objective margin + weight * term(features, labels), with the features of one layer of the forward just done.

    Use it as a context manager: the layer is watched inside only.

    Args:
        network: in which the layer stands.
        layer: dotted name, e.g. "features.28".
        term: `term(features (N, C, H, W), labels (N,)) -> (N,)`, ascended.
        weight: of the term beside the margin.

    Raises:
        ValueError: no such layer.
    """

    def __init__(
        self, network: nn.Module, layer: str, *, term: Callable[[Tensor, Tensor], Tensor], weight: float
    ) -> None:
        modules = dict(network.named_modules())
        if layer not in modules:
            raise ValueError(f"layer {layer!r} is not in {type(network).__name__}; name one of its modules")
        self._layer = modules[layer]
        self.term = term
        self.weight = weight
        self._features: Tensor | None = None

    def __enter__(self) -> Self:
        self._hook = self._layer.register_forward_hook(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self._features = None

    def _record(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._features = output

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        features, self._features = self._features, None
        if features is None or len(features) != len(labels):
            raise ValueError("the watched layer gave no map for these images; is it part of the network's forward?")
        return margin(logits, labels) + self.weight * self.term(features, labels)


class FeatureAttack(Wrapped):
    """Run an attack that ascends the margin and a term of the features that the defence trained, ARFL's say.

    ARFL lowers its robust feature loss; an attacker who knows it raises that loss beside the margin. Which image is
    kept is decided by the margin.

    Args:
        attack: one with an objective: `PGD`, `BestPGD`, `APGD`.
        layer: dotted name, e.g. "features.28".
        term: `term(features (N, C, H, W), labels (N,)) -> (N,)`, e.g. `pipeline.methods.robust_feature_rows`.
        weight: of the term beside the margin; 10 is the paper's lambda.
    """

    name = "feature"

    def __init__(
        self, attack: Attack, *, layer: str, term: Callable[[Tensor, Tensor], Tensor], weight: float = 10.0
    ) -> None:
        super().__init__(attack)
        self.layer = layer
        self.term = term
        self.weight = float(weight)

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Attack `images` (N, C, H, W) with labels (N,) or (N, 1) on `network`, which comes back as it was."""
        with FeatureObjective(bare(network), self.layer, term=self.term, weight=self.weight) as objective:
            return self.attack(network, images, labels, seed=seed, objective=objective)


class WithLayers:
    """Makes a view of a network in which layers of one class are replaced; parameters are shared, not copied.

    `Through(attack, view=WithLayers(DropMaxPool, lambda _: nn.MaxPool2d(2, 2)), name="through-max")` attacks drop-max
    pooling through the plain maximum, whose gradient goes to the pixel that an attacker moves most easily.

    Args:
        kind: class of the layers that are replaced.
        by: makes the new layer from the old one.
    """

    def __init__(self, kind: type[nn.Module], by: Callable[[nn.Module], nn.Module]) -> None:
        self.kind = kind
        self.by = by

    def __call__(self, network: nn.Module) -> nn.Module:
        """The view.

        Raises:
            ValueError: the network has no such layer.
        """
        if not any(isinstance(module, self.kind) for module in network.modules()):
            raise ValueError(f"{type(network).__name__} has no {self.kind.__name__} that could be replaced")
        return self._view(network)

    def _view(self, module: nn.Module) -> nn.Module:
        if isinstance(module, self.kind):
            return self.by(module)
        children = {name: None if child is None else self._view(child) for name, child in module._modules.items()}
        if all(child is module._modules[name] for name, child in children.items()):
            return module
        view = copy.copy(module)  # shares parameters and buffers
        view._modules = children
        return view
