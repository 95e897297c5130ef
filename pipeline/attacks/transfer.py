"""Transfer: images made on a surrogate network, which the attacked one never sees being made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pipeline.attacks.component import Passes
from pipeline.attacks.mode import bare
from pipeline.attacks.wrapped import Attack, Wrapped


class Transfer(Wrapped):
    """Run an attack on `surrogate`, e.g. an independently trained network, and return its images.

    Args:
        attack: the attack that is run on the surrogate.
        surrogate: takes the same images, on the same device.
        name: in the table of scores; tells several surrogates apart.
    """

    def __init__(self, attack: Attack, *, surrogate: nn.Module, name: str = "transfer") -> None:
        super().__init__(attack)
        self.surrogate = surrogate
        self.name = name

    @property
    def passes(self) -> Passes:
        """None on the attacked network; the attack's own on the surrogate."""
        return Passes(0, 0)

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Attack `images` on the surrogate; `network` is left alone."""
        return self.attack(self.surrogate, images, labels, seed=seed)


class Through(Wrapped):
    """Run an attack on a view of the attacked network: another branch, or a part replaced by one with a better slope.

    With a network that normalises by domain, `view` gives the branch through which the images are made; with drop-max
    pooling, `WithLayers` gives the network with plain maximum pooling. What a defence hides from its own gradient, such
    a view may show; `WorstOf` takes the worse of it and the straight attack.

    Args:
        attack: the attack that is run on the view.
        view: makes the view from the bare network; shares its parameters.
        name: in the table of scores.
    """

    def __init__(self, attack: Attack, *, view: Callable[[nn.Module], nn.Module], name: str) -> None:
        super().__init__(attack)
        self.view = view
        self.name = name

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Attack `images` on the view of `network`, which comes back as it was."""
        return self.attack(self.view(bare(network)), images, labels, seed=seed)
