"""A small network and a trainer for tests of methods."""

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch import nn

from pipeline.networks import vgg16


def smooth_network(seed=0, outputs=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, outputs),
    )  # fmt: skip


def narrow_vgg(seed=0, **settings):
    return vgg16(weights="none", width=0.0625, head="compact", trainable="all", seed=seed, **settings)


def rows(count=6, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 + 0.6 * torch.rand(count, 1, size, size, generator=generator)  # away from the bounds
    return [{"image": image, "label": torch.tensor([float(i % 2)])} for i, image in enumerate(images)]


def batch(count=6, size=16, seed=0):
    items = rows(count, size, seed)
    return {key: torch.stack([item[key] for item in items]) for key in ("image", "label")}


def trainer_of(network, handlers, *, items=None, batch_size=3, epochs=1, rate=0.1, loader=None, **settings):
    items = rows() if items is None else items
    loader = DataLoader(Dataset(items), batch_size=batch_size) if loader is None else loader
    return SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=loader, network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], rate),
        loss_function=nn.BCEWithLogitsLoss(), train_handlers=handlers, decollate=False, **settings,
    )  # fmt: skip
