"""The worst of several attacks for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.attacks.ascent import Best, margin_of
from pipeline.attacks.component import Passes
from pipeline.attacks.mode import attack_mode
from pipeline.attacks.shapes import as_labels
from pipeline.attacks.wrapped import Attack


class WorstOf:
    """Run several attacks of one budget and keep, for each image, the result with the largest margin.

    The margin is that of the network as it is called, so for a network with domains that of the branch used at test.
    `steps` and `restarts` in the table of scores are the attacks' sums.

    Args:
        attacks: at least one, all of one norm and budget.
        name: in the table of scores; tells several sets apart.

    Raises:
        ValueError: no attack, or several norms or budgets.
    """

    def __init__(self, attacks: Sequence[Attack], *, name: str = "worst-of") -> None:
        self.attacks = list(attacks)
        if len({(attack.norm, attack.budget) for attack in self.attacks}) != 1:
            raise ValueError(
                f"{len(self.attacks)} attacks of several norms or budgets, or none; "
                "the worst of them is defined for one norm and one budget"
            )
        self.name = name
        self.norm = self.attacks[0].norm
        self.budget = self.attacks[0].budget
        self.steps = sum(attack.steps for attack in self.attacks)
        self.restarts = sum(attack.restarts for attack in self.attacks)

    @property
    def attack_id(self) -> str:
        """Name with the number of attacks and the budget."""
        norm = "-l2" if self.norm == "l2" else ""
        return f"{self.name}{norm}-{len(self.attacks)}@{self.budget:g}"

    @property
    def passes(self) -> Passes:
        """Sum over the attacks, and one look at each one's images."""
        forward = sum(attack.passes.forward + 1 for attack in self.attacks)
        return Passes(forward, sum(attack.passes.backward for attack in self.attacks))

    @torch.inference_mode(False)
    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Attack `images` (N, C, H, W) with labels (N,) or (N, 1) on `network`, which comes back as it was."""
        best = Best(images.detach().as_subclass(Tensor))
        flat_labels = as_labels(labels, len(images))
        for attack in self.attacks:
            found = attack(network, images, labels, seed=seed)
            with attack_mode(network) as module:
                best.offer(found, margin_of(module, found, flat_labels))
        return best.images
