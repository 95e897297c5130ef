"""Domain-specific batch normalisation: VGG16 with one normalisation for clean and one for attacked images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from pipeline.networks.freezing import bare, freeze_except
from pipeline.networks.vgg import VGG16, vgg16

MAIN, AUXILIARY = "main", "auxiliary"


class DomainNorm(nn.Module):
    """One BatchNorm per domain (Chang et al. 2019).

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.BatchNorm2d(channels)
        self.auxiliary = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor, clean: Tensor, attacked: Tensor) -> Tensor:
        """Normalise (N, C, H, W): rows `clean` (indices) by the main branch, rows `attacked` by the auxiliary one."""
        if len(attacked) == 0:
            return self.main(maps)
        if len(clean) == 0:
            return self.auxiliary(maps)
        result = maps.index_copy(0, clean, self.main(maps[clean]))
        return result.index_copy(0, attacked, self.auxiliary(maps[attacked]))


class DomainVGG16(VGG16):
    """VGG16 with a `DomainNorm` between each convolution and its ReLU.

    `features` and the head are VGG16's, under the same names, so that a VGG16's weights fit; the normalisations stand
    in `norms` under the index of their convolution. They start as the identity, and `calibrate` keeps the function
    while giving them the statistics of data. Their affine parameters are always trained, at every layer.

    Args:
        test_branch: branch of rows whose domain is not given: "main" or "auxiliary".
        settings: see `VGG16`; there is no engine, since trained parameters lie in front of every layer.

    Raises:
        ValueError: an unknown branch.
    """

    calibrated: Tensor

    def __init__(self, *, test_branch: Literal["main", "auxiliary"] = "main", **settings: Any) -> None:
        super().__init__(**settings, engine=False)
        if test_branch not in (MAIN, AUXILIARY):
            raise ValueError(f"test_branch {test_branch!r} is unknown; allowed are {MAIN!r} and {AUXILIARY!r}")
        self.test_branch = test_branch
        convolutions = [(str(i), layer) for i, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        self.norms = nn.ModuleDict({index: DomainNorm(layer.out_channels) for index, layer in convolutions})
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        trainable = self.settings["trainable"]
        self.frozen = freeze_except(self, trainable if trainable == "all" else [*trainable, "norms"])
        self.settings |= {"name": "vgg16_domain", "test_branch": test_branch}
        self.register_load_state_dict_pre_hook(_fill_norms)

    def forward(self, images: Tensor, domain: Tensor | None = None) -> Tensor:
        """Logits (N, 1) of images (N, 1, H, W).

        Args:
            images: in [0, 1].
            domain: bool (N,), True for attacked rows; None takes `test_branch` for all.
        """
        if domain is None:
            domain = torch.full((len(images),), self.test_branch == AUXILIARY)
        # Once a pass: on a GPU finding the rows waits for the device.
        clean, attacked = ((domain == side).nonzero()[:, 0].to(images.device) for side in (False, True))
        maps = self.normalise(images)
        for index, layer in enumerate(self.features):
            maps = layer(maps)
            if str(index) in self.norms:
                maps = self.norms[str(index)](maps, clean, attacked)
        return self.classifier(self.pool(maps))

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Give both branches of every layer the statistics of `images`, and the affine parameters that undo them.

        In eval mode the network computes what it computed before: gamma = SD and beta = mean.
        """
        maps = self.normalise(images)
        for index, layer in enumerate(self.features):
            maps = layer(maps)
            if str(index) in self.norms:
                variance, mean = torch.var_mean(maps, dim=(0, 2, 3), unbiased=False)
                for branch in self.norms[str(index)].children():
                    assert isinstance(branch, nn.BatchNorm2d)
                    assert branch.running_mean is not None and branch.running_var is not None
                    branch.running_mean.copy_(mean)
                    branch.running_var.copy_(variance)
                    branch.weight.copy_((variance + branch.eps).sqrt())
                    branch.bias.copy_(mean)
        self.calibrated.fill_(True)


def _fill_norms(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # A VGG16's weights have no normalisations; those that stand here stay.
    own = network.state_dict()
    missing = [name for name in own if name.startswith("norms.") or name == "calibrated"]
    if not any(prefix + name in state for name in missing):
        state.update({prefix + name: own[name] for name in missing})


class DomainView(nn.Module):
    """One branch of a network with domains, as a network of images alone: what an attack or an evaluator takes.

    Args:
        network: takes `forward(images, domain)`.
        branch: "main" or "auxiliary".
    """

    def __init__(self, network: nn.Module, branch: str) -> None:
        super().__init__()
        self.network = network
        self.branch = branch

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, torch.full((len(images),), self.branch == AUXILIARY))


def has_domains(network: nn.Module) -> bool:
    """Does a normalisation of this network tell domains apart?"""
    return any(isinstance(module, DomainNorm) for module in network.modules())


def vgg16_domain(
    *, weights: str | Path | None, test_branch: Literal["main", "auxiliary"] = "main", **settings: Any
) -> DomainVGG16:
    """Build a `DomainVGG16` and load a VGG16's convolutions.

    Args:
        weights: see `vgg16`.
        test_branch: see `DomainVGG16`.
        settings: see `vgg16`.

    Raises:
        WeightsError: see `vgg16`.
    """
    settings.pop("engine", None)
    settings.pop("cache_gib", None)
    plain = vgg16(weights=weights, engine=False, **settings)
    settings.pop("seed", None)
    network = DomainVGG16(test_branch=test_branch, **settings)
    network.load_state_dict(plain.state_dict())
    network.pretrained = plain.pretrained
    return network


class CalibrateNorms:
    """Handler: `DomainVGG16.calibrate` before the first epoch, on the first images of the training set.

    Attach it behind the checkpoints: it comes after initial weights, and leaves a resumed network alone.

    Args:
        network: a `DomainVGG16`, or its data-parallel wrapper.
        dataset: the training set; its first items are taken in their order.
        count: how many.
    """

    def __init__(self, network: nn.Module, *, dataset: Any, count: int = 64) -> None:
        self.network = network
        self.dataset = dataset
        self.count = count

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, _engine: Engine) -> None:
        network = bare(self.network)
        assert isinstance(network, DomainVGG16)
        if bool(network.calibrated):
            return
        rows = islice((self.dataset[i] for i in range(len(self.dataset))), self.count)
        images = torch.stack([torch.as_tensor(row["image"]) for row in rows])
        network.calibrate(images.to(next(network.parameters()).device))
