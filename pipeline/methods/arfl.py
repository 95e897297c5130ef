"""ARFL: adversarially robust feature learning as an additional term of the loss (Eq. 1, 2 and 5)."""

from __future__ import annotations

import math
from typing import Any, Literal

import ignite.distributed as idist
import torch
from monai.engines import SupervisedTrainer
from monai.utils.enums import CommonKeys
from torch import Tensor, nn

from pipeline.methods.base import Term, method_of
from pipeline.methods.robust_feature import Correlation, FeatureTerm, feature_shares
from pipeline.methods.rows import adversarial_rows, weighted_group_means
from pipeline.networks import FeatureTap, bare, last_convolution
from pipeline.runs import running_means


class ARFL(Term):
    """Add `weight` times the robust feature loss of one layer to whatever the trainer optimises.

    Clean and adversarial rows are weighed like the classification loss, r and 1 - r, with r from the trainer's method
    (Eq. 5 exactly); on a plain trainer every row counts alike (Eq. 2).

    Two ways to fail are logged every epoch (`share_*`): a saturated map has no gradient, and a map pushed below zero
    everywhere is dead after the ReLU.

    Args:
        network: the network that is trained, or its data-parallel wrapper.
        layer: the last convolution, e.g. ``"features.28"`` of VGG16; None finds it.
        weight: lambda of Eq. 2; the paper's value is 10.
        correlation: "absolute" (the paper's formula) or "signed" (after Ilyas et al. 2019).
        feature_scale: 1.0 takes the map as it is (the paper); a number divides it; "auto" divides it by its standard
            deviation on the first training batch, measured once and kept in the checkpoint (ours).
        start_epoch: first epoch in which the term counts (ours, 1 is the paper).
        after_relu: take the map after the ReLU (not stated in the paper; default before).

    Raises:
        ValueError: a negative weight, a scale that is not positive, or a layer that is no convolution.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        layer: str | None = None,
        weight: float = 10.0,
        correlation: Correlation = "absolute",
        feature_scale: float | Literal["auto"] = 1.0,
        after_relu: bool = False,
        start_epoch: int = 1,
    ) -> None:
        if weight < 0:
            raise ValueError(f"weight is {weight}; allowed are numbers from 0 on, the paper's is 10")
        if feature_scale != "auto" and not (isinstance(feature_scale, int | float) and feature_scale > 0):
            raise ValueError(f"feature_scale is {feature_scale!r}; allowed are positive numbers and 'auto'")
        if correlation not in ("absolute", "signed"):
            raise ValueError(f"correlation {correlation!r} is unknown; allowed are 'absolute' and 'signed'")
        layer = last_convolution(bare(network)) if layer is None else layer
        self.tap = FeatureTap(network, layer)
        if not isinstance(bare(network).get_submodule(layer), nn.Conv2d):
            raise ValueError(
                f"layer {layer!r} is a {type(bare(network).get_submodule(layer)).__name__}, no convolution; "
                f"the last one is {last_convolution(bare(network))!r}"
            )
        self.weight = float(weight)
        self.correlation = correlation
        self.after_relu = after_relu
        self.start_epoch = start_epoch
        self.scale: float | None = None if feature_scale == "auto" else float(feature_scale)

    def state_dict(self) -> dict[str, Any]:
        """The measured scale; NaN as long as none was measured."""
        return {"scale": math.nan if self.scale is None else self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale = None if math.isnan(state["scale"]) else float(state["scale"])

    def loss(self, engine: SupervisedTrainer) -> Tensor:
        features = self.tap.take()
        if self.scale is None:
            self.scale = _shared_deviation(features)
        shares = feature_shares(features if self.scale == 1.0 else features / self.scale)
        labels = engine.state.output[CommonKeys.LABEL].to(features.device)
        term = FeatureTerm(self.tap.layer, self.weight, self.scale, self.correlation, self.after_relu)
        rows = term(features, labels)
        method = method_of(engine)
        ratio = 0.5 if method is None else method.standard_ratio
        loss = weighted_group_means(rows, adversarial_rows(engine.state.batch, len(rows)), ratio)
        means = running_means(engine)
        means.add("robust_loss", loss, 1)
        for name, share in shares._asdict().items():
            means.add(f"share_{name}", share, 1)
        return loss

    def skip(self) -> None:
        self.tap.clear()


def _shared_deviation(features: Tensor) -> float:
    # One scale for all ranks, else every rank would train on a loss of its own; a float, so that a resumed run divides
    # by the same number.
    variance = features.detach().float().var() / idist.get_world_size()
    if idist.get_world_size() > 1:
        variance = torch.as_tensor(idist.all_reduce(variance))
    return max(float(variance.sqrt()), torch.finfo(torch.float32).eps)
