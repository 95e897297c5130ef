"""Checkpoints: atomic, safe to load, and enough to continue bit for bit."""

from __future__ import annotations

import csv
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events, State
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import nn

from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining
from pipeline.networks import vgg16
from pipeline.runs import (
    CheckpointError,
    Checkpoints,
    EpochShuffle,
    History,
    Reseed,
    RunDirectory,
    load_checkpoint,
    load_network,
)
from pipeline.runs.checkpoints import save_atomically


def items() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.rand(1, 32, 32, generator=generator), "label": torch.tensor([float(i % 2)])} for i in range(6)
    ]


class Training:
    """Dual training + ARFL with dropout, AdamW, shuffling and a measured feature scale; new objects every time."""

    def __init__(self, folder: Path, *, epochs: int, resume: bool = False, extra: tuple = (), **settings) -> None:
        torch.manual_seed(int.from_bytes(os.urandom(4), "little"))  # a process does not start where another ended
        self.directory = RunDirectory(folder, "run", resume=resume)
        self.network = vgg16(weights="none", width=1 / 16, head="compact", dropout=0.5)
        optimizer = torch.optim.AdamW([p for p in self.network.parameters() if p.requires_grad], 1e-2)
        data = items()
        self.term = ARFL(self.network, layer="features.28", feature_scale="auto")
        self.checkpoints = Checkpoints(
            self.directory, network=self.network, optimizer=optimizer, resume=resume, **settings
        )
        self.trainer = SupervisedTrainer(
            device="cpu", max_epochs=epochs, network=self.network, optimizer=optimizer,
            train_data_loader=DataLoader(data, batch_size=3, sampler=EpochShuffle(data, 0), num_workers=0),
            loss_function=nn.BCEWithLogitsLoss(), decollate=False,
            train_handlers=[
                AdversarialTraining(self.network, attack=PGD(budget=0.05, steps=2)), self.term, Reseed(0),
                *extra, History(self.directory), self.checkpoints,
            ],
        )  # fmt: skip

    def run(self) -> Training:
        self.directory.open({"seed": 0})
        self.trainer.run()
        return self


def history(folder: Path) -> list[dict]:
    with (folder / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", epochs=4).run()
    Training(tmp_path / "parts", epochs=2).run()
    resumed = Training(tmp_path / "parts", epochs=4, resume=True).run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert resumed.term.scale == whole.term.scale is not None
    ours, theirs = (t.checkpoints.optimizer.state_dict()["state"] for t in (resumed, whole))
    assert all(torch.equal(ours[i]["exp_avg_sq"], theirs[i]["exp_avg_sq"]) for i in theirs)
    assert history(tmp_path / "parts") == history(tmp_path / "whole")
    assert [row["epoch"] for row in history(tmp_path / "parts")] == ["1", "2", "3", "4"]
    # the comparison can fail: epoch 3 changes what epoch 2 left
    third = Training(tmp_path / "third", epochs=3).run()
    assert not torch.equal(third.network.features[28].weight, whole.network.features[28].weight)


class Killed(Exception):
    """Stands for a process that ends in the middle of an epoch."""


class KillAt:
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self.kill)

    def kill(self, _engine: Engine) -> None:
        raise Killed


def test_a_run_killed_within_an_epoch_continues_from_the_epoch_before(tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", epochs=3).run()
    with pytest.raises(Killed):
        Training(tmp_path / "parts", epochs=3, extra=(KillAt(5),)).run()  # first iteration of epoch 3
    resumed = Training(tmp_path / "parts", epochs=3, resume=True).run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert history(tmp_path / "parts") == history(tmp_path / "whole")


def test_resuming_a_finished_run_trains_nothing(tmp_path: Path) -> None:
    done = Training(tmp_path, epochs=1).run()
    again = Training(tmp_path, epochs=1, resume=True).run()
    assert again.trainer.state.iteration == done.trainer.state.iteration == 2
    assert torch.equal(again.network.features[28].weight, done.network.features[28].weight)


def test_resume_without_a_checkpoint_starts_from_the_beginning_and_says_so(tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO", logger="pipeline.runs.checkpoints"):
        Training(tmp_path, epochs=1, resume=True).run()
    assert "latest.pt does not exist; the run starts from its first epoch" in caplog.text


def test_a_checkpoint_without_the_terms_state_is_refused(tmp_path: Path) -> None:
    latest = Training(tmp_path, epochs=1).run().checkpoints.latest
    content = load_checkpoint(latest)
    content["handlers"] = {}
    save_atomically(content, latest)
    with pytest.raises(CheckpointError, match="lacks the state of ARFL-0; start a new run"):
        Training(tmp_path, epochs=2, resume=True).run()


def test_initial_weights_are_loaded_and_the_run_starts_at_epoch_one(tmp_path: Path) -> None:
    first = Training(tmp_path / "first", epochs=1).run()
    second = Training(tmp_path / "second", epochs=1, initial_weights=str(first.checkpoints.best))
    started = []
    second.trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda e: started.append((e.state.epoch, second.network.features[28].weight.clone()))
    )
    second.run()
    assert started[0][0] == 1 and torch.equal(started[0][1], first.network.features[28].weight)


def test_initial_weights_that_have_seen_a_test_patient_are_refused(tmp_path: Path) -> None:
    first = Training(tmp_path / "first", epochs=1, trained_on=["image:1", "patient:a", "patient:b"]).run()
    start = str(first.checkpoints.best)
    with pytest.raises(CheckpointError, match="trained or selected on 1 of the patients and 1 of the images"):
        Training(
            tmp_path / "second", epochs=1, initial_weights=start, refuse=["image:1", "patient:b", "patient:c"]
        ).run()


def test_a_checkpoint_knows_the_patients_of_its_initial_weights_too(tmp_path: Path) -> None:
    first = Training(tmp_path / "first", epochs=1, trained_on=["image:1", "patient:a", "patient:b"]).run()
    settings = {"initial_weights": str(first.checkpoints.best), "trained_on": ["patient:c"], "refuse": ["patient:d"]}
    Training(tmp_path / "second", epochs=1, **settings).run()
    second = Training(tmp_path / "second", epochs=2, resume=True, **settings).run()
    assert load_checkpoint(second.checkpoints.best)["trained_on"] == ["image:1", "patient:a", "patient:b", "patient:c"]


def test_a_crash_while_saving_leaves_the_previous_file_whole(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "latest.pt"
    save_atomically({"format": 1, "network": {"w": torch.ones(2)}}, target)
    before = target.read_bytes()

    def crash(_content, file) -> None:
        file.write(b"half a checkpoint")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="no space left"):
        save_atomically({"format": 1, "network": {}}, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target], "no temporary file is left"
    monkeypatch.undo()
    assert torch.equal(load_checkpoint(target)["network"]["w"], torch.ones(2))


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path, monkeypatch, writer: str) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"format": 1, "network": Code()}
    if writer == "torch":
        torch.save(content, "evil.pt")
    else:
        Path("evil.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="damaged or unsafe to load"):
        load_checkpoint("evil.pt")
    assert not Path("ran").exists()


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint '.*gone\.pt'.*checkpoints/best\.pt and latest\.pt"):
        load_checkpoint(tmp_path / "gone.pt")
    (tmp_path / "text.pt").write_text("x")
    with pytest.raises(CheckpointError, match="damaged or unsafe"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"w": torch.ones(1)}, tmp_path / "plain.pt")
    with pytest.raises(CheckpointError, match="not of this package's format 1; convert"):
        load_checkpoint(tmp_path / "plain.pt")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    best = Training(tmp_path, epochs=1).run().checkpoints.best
    with pytest.raises(CheckpointError, match="does not fit the network.*give the width and head"):
        load_network(vgg16(weights="none", width=1 / 8, head="compact"), best)


def track(folder: Path, values: list[float | None]) -> Checkpoints:
    """Run one epoch for every value; None is an epoch that was not validated. The weight holds the epoch."""
    network = nn.Linear(1, 1)
    validator = Engine(lambda *_: None)
    validator.state = State(epoch=0, metrics={}, key_metric_name="auc")
    checkpoints = Checkpoints(
        RunDirectory(folder, "run"), network=network, validator=validator,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
    )  # fmt: skip
    engine = Engine(lambda *_: None)

    def validate(engine: Engine) -> None:
        nn.init.constant_(network.weight, engine.state.epoch)
        value = values[engine.state.epoch - 1]
        if value is not None:
            validator.state.epoch, validator.state.metrics = engine.state.epoch, {"auc": value}

    engine.add_event_handler(Events.EPOCH_COMPLETED, validate)
    checkpoints.attach(engine)
    engine.run([0], max_epochs=len(values))
    return checkpoints


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.5, 0.7, 0.6], 2),
        ([math.nan, 0.6, 0.5], 2),
        ([0.6, math.nan, 0.5], 1),
        ([None, 0.6, None, 0.7, None], 4),
        ([0.7, None, 0.6], 1),
        ([0.6, 0.6], 2),
        ([-1.5, -0.5], 2),
    ],
)
def test_best_is_the_last_epoch_with_the_highest_metric(tmp_path: Path, values: list, best: int) -> None:
    checkpoints = track(tmp_path, values)
    content = load_checkpoint(checkpoints.best)
    assert content["epoch"] == content["best_epoch"] == best
    assert content["network"]["weight"].item() == best and "optimizer" not in content
    latest = load_checkpoint(checkpoints.latest)
    assert latest["epoch"] == len(values) and latest["best_epoch"] == best
    checkpoints.load_best()
    assert checkpoints.network.weight.item() == best


def test_without_a_metric_that_is_a_number_there_is_no_best(tmp_path: Path) -> None:
    checkpoints = track(tmp_path, [math.nan, None])
    assert checkpoints.latest.is_file()
    with pytest.raises(CheckpointError, match=r"no epoch from 1 .start_epoch. on had a validation metric"):
        checkpoints.load_best()


def test_a_resumed_run_remembers_the_best_metric(tmp_path: Path) -> None:
    track(tmp_path, [0.9])
    network = nn.Linear(1, 1)
    checkpoints = Checkpoints(
        RunDirectory(tmp_path, "run"), network=network, resume=True,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
    )  # fmt: skip
    engine = Engine(lambda *_: None)
    checkpoints.attach(engine)
    engine.run([0], max_epochs=1)
    assert checkpoints.best_metric == 0.9 and checkpoints.best_epoch == 1 and engine.state.epoch == 1


def test_epochs_and_losses_that_are_not_numbers_never_reach_a_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path, epochs=1)
    training.network.classifier[0].weight.data.fill_(math.nan)
    with pytest.raises((FloatingPointError, ValueError)):
        training.run()
    assert not training.checkpoints.latest.exists()


def test_a_fresh_run_forgets_the_history_that_lies_there(tmp_path: Path) -> None:
    Training(tmp_path, epochs=2).run()
    fresh = Training(tmp_path, epochs=1)
    fresh.trainer.run()  # without opening, so that the earlier history.csv still lies there
    assert [row["epoch"] for row in history(tmp_path)] == ["1"]


def test_history_holds_the_cost_and_the_losses_of_every_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path, epochs=1).run()
    with training.directory.path.joinpath("history.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert {"epoch", "classification_loss", "robust_loss", "attack_success"} <= row.keys()
    assert {"share_positive", "share_negative", "share_saturated", "share_dead"} <= row.keys()
    assert float(row["seconds_attack"]) > 0 and float(row["seconds_step"]) > 0 and float(row["seconds_loading"]) >= 0
