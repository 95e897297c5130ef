"""Saliency: the gradient of the loss with respect to the input, as the paper's Figure 2 shows it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.attacks import as_labels, as_logit, attack_mode


def saliency(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Absolute gradient of the classification loss with respect to each pixel, scaled to [0, 1] per image.

    Binary cross-entropy's gradient is the logit's times (sigmoid(z) - y); scaled per image the two are the same map,
    so the logit's is taken: it does not vanish where the network is sure.

    Args:
        network: gives logits (N, 1) or (N, 2); comes back as it was.
        images: (N, C, H, W).
        labels: (N,) or (N, 1) in {0, 1}; their values do not change the map, their shape is checked.

    Returns:
        Tensor (N, H, W) in [0, 1]; an image whose gradient is zero everywhere gives zeros.
    """
    as_labels(labels, len(images))
    with attack_mode(network) as module:
        inputs = images.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(as_logit(module(inputs)).sum(), inputs)
    magnitude = gradient.abs().amax(dim=1)
    largest = magnitude.amax(dim=(1, 2), keepdim=True)
    return magnitude / largest.clamp_min(torch.finfo(magnitude.dtype).tiny)


def smooth(maps: Tensor, *, sigma: float) -> Tensor:
    """Gaussian smoothing of (N, H, W) maps for display, rescaled to a maximum of 1; sigma in pixels."""
    radius = max(int(3 * sigma), 1)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(maps[:, None], (radius,) * 4, mode="replicate")
    padded = functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    padded = functional.conv2d(padded, kernel.view(1, 1, 1, -1))[:, 0]
    return padded / padded.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
