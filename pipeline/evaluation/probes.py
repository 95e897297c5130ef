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

    def see_attacked(self, images: Tensor, attacked: Tensor, attack: Any, *, exams: Tensor | None = None) -> None:
        """How far attacked images leave the budget and [0, 1] once stored with 16 bits, beyond the store's rounding.

        Args:
            images: (N, C, H, W).
            attacked: the same, attacked.
            attack: has `norm` and `budget`, and `views` where it may touch only so many of an exam.
            exams: (N,) numbers of the exams, for attacks on whole exams: an L2 budget is then that of an exam, and
                views beyond those that the attack may touch count with all of their change.
        """
        stored = (attacked * LEVELS).round() / LEVELS
        change = (stored - images).flatten(1)
        rounding = 0.5 / LEVELS
        if exams is not None and attack.norm == "l2":
            count = int(exams.max()) + 1
            squares = change.new_zeros(count).index_add_(0, exams, change.square().sum(1))
            pixels = change.new_zeros(count).index_add_(0, exams, change.new_full((len(change),), change.shape[1]))
            excess = squares.sqrt() - rounding * pixels.sqrt()
        elif attack.norm == "linf":
            excess = change.abs().amax(1) - rounding
        else:
            excess = torch.linalg.vector_norm(change, dim=1) - rounding * change.shape[1] ** 0.5
        views = getattr(attack, "views", None)
        if exams is not None and views is not None:
            # Beyond the allowed views, the smallest change there is breaks the budget.
            sizes = change.abs().amax(1) - rounding
            for exam in exams.unique().tolist():
                beyond = sizes[exams == exam].sort(descending=True).values[views:]
                if (beyond > 0).any():
                    excess = torch.cat([excess, attack.budget + beyond])
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
