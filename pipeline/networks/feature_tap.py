"""Feature tap: the output of one named layer, taken in training forwards only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pipeline.networks.freezing import bare


class FeatureTap:
    """Record the feature map that a layer gives in a training forward.

    Attacks run with the whole network in eval mode and leave no trace here, so no method has to know about its tap.
    torchvision's ReLU works in place and would overwrite a map after it was recorded. Such a ReLU right behind the
    tapped layer of an `nn.Sequential` is refused at once; anywhere else `take` finds that the map was written to.
    A normalisation in between is out of place and does no harm.

    Args:
        network: the module, or a data-parallel wrapper around it.
        layer: dotted name of a layer with output (N, C, H, W), e.g. ``"features.28"``.

    Raises:
        ValueError: no such layer, or an in-place ReLU follows it.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.network = bare(network)
        modules = dict(self.network.named_modules())
        if layer not in modules or layer == "":
            convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
            raise ValueError(
                f"layer {layer!r} is not in {type(self.network).__name__}; its convolutions are "
                f"{', '.join(convolutions[-5:]) or 'none'} (last five)"
            )
        _refuse_in_place_successor(modules, layer)
        self.layer = layer
        self._features: Tensor | None = None
        self._version = 0
        self._hook = modules[layer].register_forward_hook(self._record)

    def _record(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self.network.training:
            self._features = output
            self._version = output._version  # autograd's count of in-place writes

    _record.in_training_only = True  # type: ignore[attr-defined]  # the frozen engine may pass the layer by otherwise

    def take(self) -> Tensor:
        """Return the map of the last training forward and forget it, so that no graph outlives its step.

        Raises:
            RuntimeError: no training forward since the last call.
            ValueError: a later layer has overwritten the map in place.
        """
        if self._features is None:
            raise RuntimeError(
                f"the tap on {self.layer!r} holds no feature map: no forward in train mode since it was last read"
            )
        features, self._features = self._features, None
        if features._version != self._version:
            raise ValueError(
                f"a layer after {self.layer!r} works in place and has overwritten the tapped map; "
                "set inplace=False on it (often the ReLU that follows), or tap the convolution before its normalisation"
            )
        return features

    def clear(self) -> None:
        """Forget a recorded map."""
        self._features = None

    def close(self) -> None:
        """Remove the hook."""
        self._hook.remove()
        self._features = None


def _refuse_in_place_successor(modules: dict[str, nn.Module], layer: str) -> None:
    parent_name, _, child = layer.rpartition(".")
    parent = modules[parent_name]
    if not isinstance(parent, nn.Sequential):
        return
    names = [name for name, _ in parent.named_children()]
    after = names.index(child) + 1
    if after < len(names) and getattr(parent[after], "inplace", False):
        raise ValueError(
            f"the layer after {layer!r} works in place and would overwrite the tapped map; "
            f"set inplace=False on {parent_name}.{names[after]}"
        )
