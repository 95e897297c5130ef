"""A surrogate for transfer attacks: the same kind of network, trained independently of the one under test."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from monai.data import Dataset
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from pipeline.imaging import LoadPreparedd
from pipeline.networks import VGG16, bare, rebuilt, start_from_data

STARTING_IMAGES = 32


class Surrogate(NamedTuple):
    """A network that transfer attacks are made on, and where it comes from, in words for the report."""

    network: nn.Module
    origin: str


def load_surrogate(content: dict[str, Any], *, name: str, device: torch.device) -> Surrogate:
    """Build the network of another run.

    Args:
        content: of its checkpoint, as `pipeline.runs.load_checkpoint` reads it; same image size and preparation.
        name: of that run, for the report.
        device: where the network goes.
    """
    network = rebuilt(content["model"]["network"])
    network.load_state_dict(content["network"])
    return Surrogate(network.to(device).eval(), f"the network of the run {name}")


def train_surrogate(
    network: nn.Module,
    items: list[dict[str, Any]],
    *,
    epochs: int = 6,
    batch_size: int = 16,
    learning_rate: float = 5e-4,
    seed: int = 1,
    progress: bool = True,
) -> Surrogate:
    """Train the trainable layers of a copy of `network` anew, from another seed, on clean images.

    Frozen layers are shared: where a prefix is frozen, both networks stand on the same features, which makes the
    surrogate a strong one. `network` is left alone.

    Args:
        network: gives logits (N, 1).
        items: training items with `image` (path of a prepared image) and `label`.
        epochs: passes over the items.
        batch_size: images of a step.
        learning_rate: of AdamW.
        seed: of the initialisation and the order.
        progress: show a bar.
    """
    original = bare(network)
    device = next(original.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        other = _copied(original).to(device)
        _begin_anew(other, original, items, seed)
        rows = [{"image": item["image"], "label": item["label"]} for item in items]
        dataset = Dataset(rows, transform=LoadPreparedd(keys="image"))
        order = RandomSampler(rows, generator=torch.Generator().manual_seed(seed))
        loader = DataLoader(dataset, batch_size=batch_size, sampler=order)
        trained = [parameter for parameter in other.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=learning_rate)
        other.train()
        for _ in tqdm(range(epochs), desc="surrogate", unit="epoch", disable=not progress):
            for batch in loader:
                optimizer.zero_grad(set_to_none=True)
                images, labels = batch["image"].to(device), batch["label"].to(device)
                loss = functional.binary_cross_entropy_with_logits(other(images), labels)
                loss.backward()
                optimizer.step()
    other.eval()
    origin = f"the same kind of network, trained on clean images for {epochs} epochs from another seed"
    shared = sum(not parameter.requires_grad for parameter in other.parameters())
    if shared:
        count = sum(1 for _ in other.parameters())
        origin += f"; {shared} of its {count} weight and bias tensors are frozen and those of the network under test"
    return Surrogate(other, origin)


def _copied(network: nn.Module) -> nn.Module:
    settings = getattr(network, "settings", None)
    if settings is None:
        return copy.deepcopy(network)
    other = rebuilt(settings)
    other.load_state_dict(network.state_dict())
    for theirs, ours in zip(other.parameters(), network.parameters(), strict=True):
        theirs.requires_grad_(ours.requires_grad)
    return other


def _begin_anew(network: nn.Module, original: nn.Module, items: list[dict[str, Any]], seed: int) -> None:
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if own and all(parameter.requires_grad for parameter in own) and hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    whole = isinstance(network, VGG16) and all(parameter.requires_grad for parameter in network.parameters())
    if isinstance(network, VGG16) and whole:
        load = LoadPreparedd(keys="image")
        images = torch.stack([load({"image": item["image"]})["image"] for item in items[:STARTING_IMAGES]])
        device = next(original.parameters()).device
        start_from_data(network.features, network.normalise(images.to(device)), seed=seed)
