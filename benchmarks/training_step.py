"""A step of dual training with ARFL (method F) through SupervisedTrainer, beside the same step with torchattacks.

    pip install -e .[bench]
    python benchmarks/training_step.py --size 160 --batch 4 --weights vgg16_features.pt

The peer is MONAI's SupervisedTrainer with torchattacks' PGD in a handler of its own, the plain network, and the same
loss written out. Both trainers take one step in turn; times are medians per step. Then ours runs once more with a clock
around every pass of the network, every backward pass and the optimiser: what is left is loader, handlers and MONAI.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import STEPS, Setting, TwoLogits, setting
from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining, robust_feature_loss
from pipeline.networks import FeatureTap

RATIO, WEIGHT, LAYER = 0.5, 10.0, "features.28"


def main(
    size: int = 160,
    batch: int = 4,
    steps: Annotated[int, typer.Option(help="timed steps")] = 5,
    weights: str = "none",
    images: Annotated[str | None, typer.Option(help="folder of images")] = None,
    threads: int = 2,
    alone: Annotated[bool, typer.Option(help="without the peer")] = False,
) -> None:
    torch.set_num_threads(threads)
    runs = {"ours": steps_of(our_trainer(setting(size, batch, weights=weights, images=images)))}
    if not alone:
        runs["MONAI + torchattacks"] = steps_of(peer_trainer(setting(size, batch, weights=weights, images=images)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(steps + 1):
        for name, step in runs.items():
            started = time.perf_counter()
            next(step)
            if number:  # the first warms up
                times[name].append(time.perf_counter() - started)
    print(f"method F, {size} x {size}, batch {batch} ({2 * batch} rows), PGD-{STEPS}, median of {steps} steps")
    for name, values in times.items():
        ratio = statistics.median(peer / own for peer, own in zip(values, times["ours"], strict=True))
        print(f"  {name:22}{statistics.median(values):8.2f} s{ratio:8.2f}x")

    with clocks() as spent:
        started = time.perf_counter()
        next(runs["ours"])
        total = time.perf_counter() - started
    rest = total - sum(spent.values())
    parts = {**spent, "loader, handlers, MONAI": rest}
    print("  where our step goes: " + ", ".join(f"{name} {value / total:.1%}" for name, value in parts.items()))


def trainer(case: Setting, network: nn.Module, handlers: list[Any]) -> SupervisedTrainer:
    """Endless training on the batch, item by item through a loader."""
    items = [
        {"image": image, "label": label.float()[None]} for image, label in zip(case.images, case.labels, strict=True)
    ]
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=10_000,
        train_data_loader=DataLoader(Dataset(items), batch_size=len(items), shuffle=True),
        network=network,
        optimizer=torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5),
        loss_function=nn.BCEWithLogitsLoss(),
        train_handlers=handlers,
        decollate=False,
    )


def our_trainer(case: Setting) -> SupervisedTrainer:
    method = AdversarialTraining(case.network, standard_ratio=RATIO, attack=PGD(budget=case.budget, steps=STEPS))
    return trainer(case, case.network, [method, ARFL(case.network, layer=LAYER, weight=WEIGHT)])


class PeerStep:
    """Dual training with ARFL as a lab would write it around torchattacks."""

    def __init__(self, case: Setting, network: nn.Module) -> None:
        from torchattacks import PGD as Peer

        self.network = network
        self.tap = FeatureTap(network, LAYER)
        two = TwoLogits(network)
        self.attack = Peer(two, eps=case.budget, alpha=case.step_size, steps=STEPS, random_start=True)

    def attach(self, engine: SupervisedTrainer) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.grow)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.loss)

    def grow(self, engine: SupervisedTrainer) -> None:
        images, labels = engine.state.batch["image"], engine.state.batch["label"]
        attacked = self.attack(images, labels[:, 0].long())
        engine.state.batch = {"image": torch.cat([images, attacked]), "label": torch.cat([labels, labels])}

    def loss(self, engine: SupervisedTrainer) -> None:
        logits, labels = engine.state.output["pred"], engine.state.output["label"]
        features, half = self.tap.take(), len(labels) // 2
        total = logits.new_zeros(())
        for rows, weight in ((slice(0, half), RATIO), (slice(half, None), 1 - RATIO)):
            classification = nn.functional.binary_cross_entropy_with_logits(logits[rows], labels[rows])
            robust = robust_feature_loss(features[rows], labels[rows, 0])
            total = total + weight * (classification + WEIGHT * robust)
        engine.state.output["loss"] = total


def peer_trainer(case: Setting) -> SupervisedTrainer:
    network = case.plain
    return trainer(case, network, [PeerStep(case, network)])


def steps_of(engine: SupervisedTrainer) -> Iterator[None]:
    """Run an engine step by step, so that two can take turns: each in a thread of its own that waits for its turn."""
    import threading

    turn, done = threading.Semaphore(0), threading.Semaphore(0)

    def wait() -> None:
        done.release()
        turn.acquire()

    engine.add_event_handler(Events.EPOCH_COMPLETED, wait)

    def run() -> None:
        turn.acquire()
        engine.run()

    threading.Thread(target=run, daemon=True).start()
    while True:
        turn.release()
        done.acquire()
        yield


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Time inside the network's forward passes, backward passes and the optimiser."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started

        return call

    from pipeline.networks import VGG16

    places: list[tuple[Any, str, str]] = [
        (VGG16, "forward", "forward passes"),
        (torch.autograd, "grad", "backward passes"),
        (torch.Tensor, "backward", "backward passes"),
        (torch.optim.AdamW, "step", "optimiser"),
    ]
    kept = [getattr(owner, attribute) for owner, attribute, _ in places]
    try:
        for (owner, attribute, name), function in zip(places, kept, strict=True):
            setattr(owner, attribute, timed(name, function))
        yield spent
    finally:
        for (owner, attribute, _), function in zip(places, kept, strict=True):
            setattr(owner, attribute, function)


if __name__ == "__main__":
    typer.run(main)
