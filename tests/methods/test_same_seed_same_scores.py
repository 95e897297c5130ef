"""A training is a function of its seed: order, dropout and attacks follow it, bit for bit on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining
from pipeline.networks import vgg16
from pipeline.runs import EpochShuffle, Reseed


def scores(*, order: int = 0, dropout: int = 0, attack: int = 0, clutter: int = 0) -> Tensor:
    """Logits after two epochs of dual training + ARFL; one seed for each source of chance."""
    torch.manual_seed(clutter)  # what stands in the global random state before must not matter
    np.random.seed(clutter)
    generator = torch.Generator().manual_seed(0)
    items = [
        {"image": torch.rand(1, 32, 32, generator=generator), "label": torch.tensor([float(i % 2)])} for i in range(6)
    ]
    network = vgg16(weights="none", width=1 / 16, head="compact", seed=0)
    trainer = SupervisedTrainer(
        device="cpu", max_epochs=2, network=network, loss_function=nn.BCEWithLogitsLoss(), decollate=False,
        train_data_loader=DataLoader(items, batch_size=3, sampler=EpochShuffle(items, order), num_workers=0),
        optimizer=torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 1e-2),
        train_handlers=[
            AdversarialTraining(network, attack=PGD(budget=0.05, steps=2), seed=attack),
            ARFL(network, layer="features.28", feature_scale="auto"),
            Reseed(dropout),
        ],
    )  # fmt: skip
    trainer.run()
    with torch.no_grad():
        return network.eval()(torch.stack([item["image"] for item in items]))


def test_same_seed_same_scores_bit_for_bit() -> None:
    assert torch.equal(scores(), scores(clutter=99))


def test_every_source_of_chance_follows_its_seed() -> None:
    first = scores()
    for other in (scores(order=1), scores(dropout=1), scores(attack=1)):
        assert not torch.equal(first, other)


def test_every_iteration_of_every_epoch_starts_its_attack_elsewhere() -> None:
    def seeds(seed: int) -> list[int]:
        given: list[int] = []

        def attack(_network: nn.Module, images: Tensor, _labels: Tensor, *, seed: int) -> Tensor:
            given.append(seed)
            return images

        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
        data = [{"image": torch.rand(2, 1, 2, 2), "label": torch.tensor([[0.0], [1.0]])}] * 3
        SupervisedTrainer(
            device="cpu", max_epochs=2, network=network, loss_function=nn.BCEWithLogitsLoss(), decollate=False,
            train_data_loader=data, optimizer=torch.optim.SGD(network.parameters(), 0.1),
            train_handlers=[AdversarialTraining(network, attack=attack, seed=seed)],
        ).run()  # fmt: skip
        return given

    assert len(set(seeds(0))) == 6
    assert seeds(0) == seeds(0) and set(seeds(0)).isdisjoint(seeds(1))
