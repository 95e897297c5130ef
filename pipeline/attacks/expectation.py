"""Expectation over transformations (Athalye et al. 2018): the mean gradient of a network whose forward is random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.attacks.component import Passes
from pipeline.attacks.mode import bare
from pipeline.attacks.shapes import as_logit
from pipeline.attacks.streams import image_seeds
from pipeline.attacks.wrapped import Attack, Wrapped


class Expectation(nn.Module):
    """Mean logit (N,) over several forwards, with the mean of their gradients.

    The gradients are taken one after the other, so that memory holds one forward's graph. Only the images get a
    gradient.

    Args:
        score: maps images to logits (N,), (N, 1) or (N, 2), another result each time.
        draws: number of forwards, at least 1.

    Raises:
        ValueError: no draw.
    """

    def __init__(self, score: Callable[[Tensor], Tensor], *, draws: int) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws is {draws}; at least 1 is needed")
        self.score = score
        self.draws = int(draws)

    def forward(self, images: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and images.requires_grad):
            return torch.stack([as_logit(self.score(images)) for _ in range(self.draws)]).mean(0)
        logits, gradient = [], torch.zeros_like(images)
        for _ in range(self.draws):
            probe = images.detach().requires_grad_(True)
            drawn = as_logit(self.score(probe))
            gradient += torch.autograd.grad(drawn.sum(), probe)[0]
            logits.append(drawn.detach())
        mean = torch.stack(logits).mean(0)
        # Adds exactly 0 and carries the gradient.
        carrier = ((images - images.detach()) * (gradient / self.draws)).flatten(1).sum(1)
        return mean + carrier.to(mean)


class EOT(Wrapped):
    """Run an attack on the expectation of a network whose forward is random.

    Its draws come from the global random state, set from the seed for the time of the attack: the same call gives the
    same images on a CPU; an image's draws depend on its batch, since a network draws for a batch. In an attack the
    network is in eval mode, so that dropout is off; meant are defences that are random in eval mode too.

    Args:
        attack: the attack that is run.
        draws: forwards per look at the network.
    """

    def __init__(self, attack: Attack, *, draws: int = 10) -> None:
        super().__init__(attack)
        self.draws = int(draws)
        self.name = f"eot{self.draws}"

    @property
    def passes(self) -> Passes:
        return Passes(*(self.draws * count for count in self.attack.passes))

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        seeds = image_seeds(seed, len(images))
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(seeds[0] if seeds else 0)
            if devices:
                with torch.cuda.device(images.device):
                    torch.cuda.manual_seed(seeds[0] if seeds else 0)
            return self.attack(Expectation(bare(network), draws=self.draws), images, labels, seed=seeds)
