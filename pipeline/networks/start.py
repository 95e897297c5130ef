"""Start from data: an initialisation with which a deep plain network learns from few images."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from pipeline.networks.freezing import bare

NOISE = 0.3  # share of He noise beside the identity, by trial on phantoms


@torch.no_grad()
def start_from_data(features: nn.Sequential, images: Tensor, *, seed: int = 0) -> None:
    """Initialise a chain of convolutions so that it hands its first layer's filters on, at unit variance.

    Without normalisation layers, thirteen random convolutions bury a small finding, and a short training from random
    weights stays at chance. Here the first convolution gets orthogonal filters, every further one the identity over
    channels plus a little He noise, and each is then scaled and shifted channel by channel to zero mean and unit
    deviation on `images` (layer-sequential unit variance, Mishkin and Matas 2016). Not part of the paper, which starts
    from ImageNet weights.

    Args:
        features: convolutions, ReLUs and poolings; changed in place.
        images: (N, C, H, W), as the first layer of `features` sees them.
        seed: of the filters and the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    current = images
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            weight = torch.empty(layer.weight.shape)
            if layer is features[0]:
                nn.init.orthogonal_(weight, generator=generator)
            else:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator).mul_(NOISE)
                rows, columns = (size // 2 for size in layer.kernel_size)
                for channel in range(layer.out_channels):
                    weight[channel, channel % layer.in_channels, rows, columns] += 1
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.zero_()
            response = layer(current)
            mean, deviation = response.mean(dim=(0, 2, 3)), response.std(dim=(0, 2, 3)).clamp_min(1e-6)
            layer.weight.div_(deviation[:, None, None, None])
            layer.bias.copy_(-mean / deviation)
        current = layer(current)


class StartFromData:
    """Handler: `start_from_data` before the first epoch, on the first images of the training set.

    Attach it before the checkpoints, whose weights come after it on a resumed run.

    Args:
        network: a `VGG16`, or its data-parallel wrapper.
        dataset: the training set; its first items are taken in their order.
        count: how many.
        seed: of the filters.
    """

    def __init__(self, network: nn.Module, *, dataset: Any, count: int = 32, seed: int = 0) -> None:
        self.network = network
        self.dataset = dataset
        self.count = count
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        network = bare(self.network)
        rows = islice((self.dataset[i] for i in range(len(self.dataset))), self.count)
        images = torch.stack([torch.as_tensor(row["image"]) for row in rows])
        device = next(network.parameters()).device
        start_from_data(network.features, network.normalise(images.to(device)), seed=self.seed)  # type: ignore[arg-type, operator]
