"""An attack made of another one: the base of transfer, expectation and adaptive attacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from pipeline.attacks.component import Passes


class Attack(Protocol):
    """An attack component at a stated budget."""

    @property
    def attack_id(self) -> str: ...
    @property
    def passes(self) -> Passes: ...

    norm: Any
    budget: float
    steps: int
    restarts: int

    def __call__(self, *arguments: Any, **others: Any) -> Tensor: ...


class Wrapped:
    """Carries the inner attack's facts into the table of scores under a name of its own.

    Args:
        attack: one of this room's.
    """

    name = "wrapped"

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.norm = attack.norm
        self.budget = attack.budget
        self.steps = attack.steps
        self.restarts = attack.restarts

    @property
    def attack_id(self) -> str:
        """The inner attack's name behind this one's."""
        return f"{self.name}-{self.attack.attack_id}"

    @property
    def passes(self) -> Passes:
        """Cost for one image on the network that is attacked."""
        return self.attack.passes

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Attack `images` (N, C, H, W) with labels (N,) or (N, 1) on `network`, which comes back as it was."""
        return self.attack(network, images, labels, seed=seed)
