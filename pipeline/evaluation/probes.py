"""Facts about a network and its attacked images that show a masked gradient or a broken budget."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.attacks import as_logit, attack_mode, margin

LEVELS = 65535
"""Grey levels of a stored prepared image."""


class Probes:
    """Measure image by image, keep the worst.

    Args:
        network: gives logits (N, 1) or (N, 2); comes back as it was.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._flat = self._clean = self._stored = 0
        self._zeros: list[float] = []
        self._repeat, self._budget, self._bounds = 0.0, -math.inf, -math.inf

    def see_clean(self, images: Tensor, labels: Tensor) -> None:
        """Gradient of the margin and repeated forwards of images (N, C, H, W)."""
        with attack_mode(self.network) as module:
            inputs = images.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                logits = as_logit(module(inputs))
                (gradient,) = torch.autograd.grad(margin(logits, labels).sum(), inputs)
            with torch.no_grad():
                first, second = as_logit(module(images)), as_logit(module(images))
        zero = (gradient == 0).flatten(1)
        self._flat += int(zero.all(1).sum())
        self._zeros += zero.double().mean(1).tolist()
        self._clean += len(images)
        self._repeat = max(self._repeat, float((first - second).abs().max()))

    def see_attacked(self, images: Tensor, attacked: Tensor, attack: Any) -> None:
        """How far attacked images leave the budget and [0, 1] once stored with 16 bits, beyond the store's rounding."""
        stored = (attacked * LEVELS).round() / LEVELS
        change = (stored - images).flatten(1)
        rounding = 0.5 / LEVELS
        if attack.norm == "linf":
            excess = change.abs().amax(1) - rounding
        else:
            excess = torch.linalg.vector_norm(change, dim=1) - rounding * change.shape[1] ** 0.5
        self._budget = max(self._budget, float(excess.max()) - attack.budget)
        self._bounds = max(self._bounds, float(torch.maximum(-stored, stored - 1).amax()))
        self._stored += len(images)

    def facts(self) -> dict[str, float | int | None]:
        """What was seen, as :class:`~pipeline.statistics.gates.Facts` names it; None where nothing was looked at.

        ``zero_pixel_share`` stands beside them: pixels without influence, which maximum pooling leaves in any network.
        """
        clean, stored = self._clean > 0, self._stored > 0
        return {
            "zero_gradient_share": self._flat / self._clean if clean else None,
            "zero_gradient_images": self._clean,
            "zero_pixel_share": sum(self._zeros) / len(self._zeros) if clean else None,
            "repeat_difference": self._repeat if clean else None,
            "repeat_images": self._clean,
            "budget_excess": self._budget if stored else None,
            "bounds_excess": self._bounds if stored else None,
            "stored_images": self._stored,
        }
