"""Warm-up: before its first epoch a method or term changes nothing."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch import nn

from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining
from pipeline.networks import vgg16


def train(*, with_handlers, start_epoch, epochs=2):
    network = vgg16(weights="none", trainable="all", width=0.0625, head="compact", dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    rows = [{"image": torch.rand(1, 32, 32, generator=generator), "label": torch.tensor([i % 2.0])} for i in range(8)]
    handlers = [
        AdversarialTraining(network, attack=PGD(budget=0.05, steps=1), start_epoch=start_epoch),
        ARFL(network, layer="features.28", start_epoch=start_epoch),
    ]
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=DataLoader(Dataset(rows), batch_size=4),
        network=network, optimizer=torch.optim.SGD(network.parameters(), lr=0.05),
        loss_function=nn.BCEWithLogitsLoss(), train_handlers=handlers if with_handlers else None, decollate=False,
    )  # fmt: skip
    rows_seen = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: rows_seen.append(len(e.state.output["pred"])))
    trainer.run()
    return network.state_dict(), rows_seen


def test_until_its_first_epoch_training_is_standard_to_the_bit():
    plain, _ = train(with_handlers=False, start_epoch=1)
    warming, rows = train(with_handlers=True, start_epoch=3)
    assert rows == [4, 4, 4, 4]
    assert all(torch.equal(plain[name], warming[name]) for name in plain)


def test_from_its_first_epoch_on_it_acts():
    plain, _ = train(with_handlers=False, start_epoch=1)
    started, rows = train(with_handlers=True, start_epoch=2)
    assert rows == [4, 4, 8, 8]
    assert not torch.equal(plain["features.28.weight"], started["features.28.weight"])


def test_a_term_that_waits_holds_no_graph():
    network = vgg16(weights="none", trainable="all", width=0.0625, head="compact")
    term = ARFL(network, layer="features.28", start_epoch=2)
    network(torch.rand(2, 1, 32, 32))
    term.skip()
    with pytest.raises(RuntimeError, match="holds no feature map"):
        term.tap.take()
