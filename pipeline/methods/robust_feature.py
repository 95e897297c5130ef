"""The robust feature loss of ARFL (Eq. 1) and the shares that tell whether it still has a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.networks import bare, last_convolution

Correlation = Literal["absolute", "signed"]
SATURATION = 10.0  # beyond |f| = 10 the sigmoid's slope is below 5e-5


def robust_feature_rows(features: Tensor, labels: Tensor, *, correlation: Correlation = "absolute") -> Tensor:
    """Eq. 1 per image: -(1 / CHW) sum sigmoid(|f y|), y in {-1, +1}; channels are averaged like positions (ours).

    With y in {-1, +1}, |f y| = |f|: the label drops out and strong activations of either sign are rewarded; the value
    lies in (-1, -0.5]. `correlation="signed"` keeps the sign (f y, after Ilyas et al. 2019) and lies in (-1, 0).

    Args:
        features: (N, C, H, W), the map of the last convolution.
        labels: (N,) or (N, 1) in {0, 1}.
        correlation: "absolute", as the paper writes it, or "signed".

    Returns:
        Tensor (N,), float32.

    Raises:
        ValueError: other shapes or an unknown correlation.
    """
    if features.ndim != 4:
        raise ValueError(f"features of shape {tuple(features.shape)}; expected (N, C, H, W)")
    if labels.numel() != len(features):
        raise ValueError(f"{labels.numel()} labels for {len(features)} feature maps")
    features = features.float()
    if correlation == "absolute":
        response = features.abs()
    elif correlation == "signed":
        signs = 2 * labels.reshape(-1, 1, 1, 1).to(features) - 1
        response = features * signs
    else:
        raise ValueError(f"correlation {correlation!r} is unknown; allowed are 'absolute' and 'signed'")
    return -torch.sigmoid(response).mean(dim=(1, 2, 3))


def robust_feature_loss(features: Tensor, labels: Tensor, *, correlation: Correlation = "absolute") -> Tensor:
    """Eq. 1, the mean of `robust_feature_rows` over the batch: a scalar."""
    return robust_feature_rows(features, labels, correlation=correlation).mean()


class FeatureShares(NamedTuple):
    """Shares of a feature map before the ReLU, each in [0, 1], zero-dimensional tensors."""

    positive: Tensor
    negative: Tensor
    saturated: Tensor
    dead: Tensor


def feature_shares(features: Tensor) -> FeatureShares:
    """Shares of values f > 0, f < 0 and |f| > 10 (no gradient left), and of channels that are dead after the ReLU.

    A channel of an image is dead if no position is positive. Rewarding |f| can push a mostly negative map further
    down until nothing passes the ReLU.

    Args:
        features: (N, C, H, W), before the ReLU and after scaling.
    """
    features = features.detach()
    return FeatureShares(
        positive=(features > 0).float().mean(),
        negative=(features < 0).float().mean(),
        saturated=(features.abs() > SATURATION).float().mean(),
        dead=(features.amax(dim=(2, 3)) <= 0).float().mean(),
    )


@dataclass(frozen=True)
class FeatureTerm:
    """What ARFL adds for each image: `weight` times this, of the map of `layer`.

    Attributes:
        layer: dotted name of the convolution.
        weight: lambda of Eq. 2.
        scale: divides the map.
        correlation: "absolute" or "signed".
        after_relu: the map after the ReLU.
    """

    layer: str
    weight: float
    scale: float = 1.0
    correlation: Correlation = "absolute"
    after_relu: bool = False

    def __call__(self, features: Tensor, labels: Tensor) -> Tensor:
        """Robust feature loss (N,) of features (N, C, H, W) as the layer gives them, without the weight."""
        if self.scale != 1.0:
            features = features / self.scale
        if self.after_relu:
            features = torch.relu(features)
        return robust_feature_rows(features, labels, correlation=self.correlation)


def trained_term(checkpoint: Mapping[str, Any], network: nn.Module) -> FeatureTerm | None:
    """The term that ARFL added when a checkpoint's network was trained; None without ARFL.

    Args:
        checkpoint: its content, see `pipeline.runs.load_checkpoint`.
        network: the network, which finds the last convolution where the training named none.

    Raises:
        ValueError: a checkpoint that says nothing of its term.
    """
    facts = checkpoint["model"].get("training", {})
    settings = facts.get("arfl")
    if settings is None:
        if "arfl" not in facts and facts.get("arfl_weight"):
            raise ValueError("the checkpoint does not say how ARFL was set; train again with this version")
        return None
    scale = settings.get("feature_scale", 1.0)
    if scale == "auto":
        scale = next(state["scale"] for name, state in checkpoint["handlers"].items() if name.startswith("ARFL-"))
    return FeatureTerm(
        layer=settings.get("layer") or last_convolution(bare(network)),
        weight=float(settings.get("weight", 10.0)),
        scale=float(scale),
        correlation=settings.get("correlation", "absolute"),
        after_relu=bool(settings.get("after_relu", False)),
    )
