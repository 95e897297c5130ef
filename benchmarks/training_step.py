"""A step of dual training with ARFL (method F) through SupervisedTrainer, beside the same step with torchattacks.

    pip install -e .[bench]
    python benchmarks/training_step.py --size 160 --batch 4 --weights vgg16_features.pt

The peer is MONAI's SupervisedTrainer with torchattacks' PGD in a handler of its own, the plain network in the layout in
which it is faster, and the same loss written out. Both trainers take one step in turn; times are medians per step.

Two figures. First pass: every step has images that the run has not seen, as in a first epoch or where images are
augmented; a folder must hold batch x (steps + 1). Repeated images: the same batch again and again, so that the maps of
its clean rows come from the feature cache, as in later epochs without augmentation. A clock around every pass of the
network, every backward pass and the optimiser runs in our steps; what is left of their time is loader, handlers and
MONAI.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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

from benchmarks.peers import STEPS, Setting, TwoLogits, faster_layout, in_layout, load, setting
from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining, robust_feature_loss
from pipeline.networks import FeatureTap

RATIO, WEIGHT, LAYER = 0.5, 10.0, "features.28"
OURS, PEER = "ours", "MONAI + torchattacks"


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
    names = [OURS] if alone else [OURS, PEER]
    load([] if alone else ["torchattacks"])
    # A warm-up step and the timed ones; each its own images, which differ in their noise even where a folder holds
    # two alike.
    fresh = batch * (1 + steps)
    cases = {name: setting(size, fresh, weights=weights, images=images) for name in names}
    layout = ""
    if not alone:
        some = dataclasses.replace(cases[PEER], images=cases[PEER].images[:batch], labels=cases[PEER].labels[:batch])
        layout = faster_layout(some)
        cases[PEER] = in_layout(cases[PEER], layout)
    # The cache keeps maps from an image's second pass on: the batch comes once more before it is timed.
    order = [*range(fresh), *list(range(batch)) * (1 + steps)]
    runs = {
        name: steps_of((our_trainer if name == OURS else peer_trainer)(case, order, batch))
        for name, case in cases.items()
    }
    print(f"method F, {size} x {size}, batch {batch} ({2 * batch} rows), PGD-{STEPS}, median of {steps} steps")
    if layout:
        print(f"the peer's network in {layout}")
    for phase in ("first pass of every image", "repeated images, clean maps from the cache"):
        report(phase, *measure(runs, steps))


def measure(runs: dict[str, Iterator[None]], steps: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every step after a first untimed one, by contender in turn; where the time of our steps went."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    spent: dict[str, float] = defaultdict(float)
    for number in range(1 + steps):
        for name, step in runs.items():
            with clocks() as parts:
                started = time.perf_counter()
                next(step)
                seconds = time.perf_counter() - started
            if number == 0:
                continue
            times[name].append(seconds)
            if name == OURS:
                for part, value in parts.items():
                    spent[part] += value
    return times, spent


def report(phase: str, times: dict[str, list[float]], spent: dict[str, float]) -> None:
    print(f" {phase}:")
    for name, values in times.items():
        ratio = statistics.median(peer / own for peer, own in zip(values, times[OURS], strict=True))
        print(f"  {name:22}{statistics.median(values):8.2f} s{ratio:8.2f}x")
    total = sum(times[OURS])
    parts = {**spent, "loader, handlers, MONAI": total - sum(spent.values())}
    shares = ", ".join(f"{name} {value / total:.1%}" for name, value in parts.items())
    print(f"  where our steps go: {shares}", flush=True)


def trainer(
    case: Setting, network: nn.Module, handlers: list[Any], order: Sequence[int], batch: int
) -> SupervisedTrainer:
    """One epoch through the images in this order, item by item through a loader."""
    items = [
        {"image": image, "label": label.float()[None]} for image, label in zip(case.images, case.labels, strict=True)
    ]
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(items), batch_size=batch, sampler=order),
        network=network,
        optimizer=torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5, fused=True),
        loss_function=nn.BCEWithLogitsLoss(),
        train_handlers=handlers,
        decollate=False,
    )


def our_trainer(case: Setting, order: Sequence[int], batch: int) -> SupervisedTrainer:
    method = AdversarialTraining(case.network, standard_ratio=RATIO, attack=PGD(budget=case.budget, steps=STEPS))
    handlers = [method, ARFL(case.network, layer=LAYER, weight=WEIGHT)]
    return trainer(case, case.network, handlers, order, batch)


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


def peer_trainer(case: Setting, order: Sequence[int], batch: int) -> SupervisedTrainer:
    return trainer(case, case.plain, [PeerStep(case, case.plain)], order, batch)


def steps_of(engine: SupervisedTrainer) -> Iterator[None]:
    """Run an engine step by step, so that two can take turns: each in a thread of its own that waits for its turn."""
    import threading

    turn, done = threading.Semaphore(0), threading.Semaphore(0)

    def wait() -> None:
        done.release()
        turn.acquire()

    engine.add_event_handler(Events.ITERATION_COMPLETED, wait)

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
