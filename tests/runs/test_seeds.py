"""Derived seeds: stable across versions, different by purpose and position, and the shuffle that follows them."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.transforms import RandGaussianNoise

from pipeline.runs import EpochShuffle, Reseed, seed_for


def test_seed_for_is_the_first_63_bits_of_a_sha256() -> None:
    digest = hashlib.sha256(b"0\x1fattack\x1f1\x1f2\x1f0").digest()
    expected = sum(byte << (8 * i) for i, byte in enumerate(digest[:8])) // 2
    assert seed_for(0, "attack", 1, 2, 0) == expected
    assert seed_for(0, "attack", 1, 2, 0) == 2743022077824364387, "published runs depend on it"


def test_seeds_differ_by_seed_purpose_and_position() -> None:
    calls = [(s, p, e, i) for s in range(3) for p in ("attack", "order") for e in range(1, 12) for i in range(1, 12)]
    seeds = {seed_for(*call) for call in calls}
    assert len(seeds) == len(calls), "(1, 11) and (11, 1) are two positions"
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochShuffle(range(20), seed)
        sampler.epoch = epoch
        torch.manual_seed(random.getrandbits(32))
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(20)) and order(0, 3) != list(range(20))
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (1, 2, 3)}) == 6
    assert len(EpochShuffle(range(20), 0)) == 20


def recorded(epochs: int, *, start: int = 0, seed: int = 0, draws: int = 0) -> dict[int, list]:
    """Batches, dropout and augmentation of each epoch of an engine that begins after epoch `start`."""
    transform = RandGaussianNoise(prob=1.0)
    sampler = EpochShuffle(range(6), seed)
    loader = DataLoader(list(range(6)), batch_size=2, sampler=sampler, num_workers=0)
    seen: dict[int, list] = {}

    def step(engine: Engine, batch: torch.Tensor) -> None:
        noise = float(transform(torch.zeros(1, 1))[0, 0])
        drawn = (batch.tolist(), noise, float(torch.rand(1)), random.random(), float(np.random.rand()))
        seen.setdefault(engine.state.epoch, []).append(drawn)

    engine = Engine(step)
    engine.data_loader = loader  # as MONAI's engines have it
    Reseed(seed, transform).attach(engine)

    def resume(engine: Engine) -> None:
        engine.state.epoch, engine.state.iteration = start, 3 * start

    engine.add_event_handler(Events.STARTED, resume)
    engine.add_event_handler(Events.GET_BATCH_COMPLETED, lambda: (torch.rand(draws), np.random.rand(draws)))
    engine.run(loader, max_epochs=epochs)
    return seen


def test_an_epoch_draws_the_same_whether_the_run_was_interrupted_or_not() -> None:
    whole, rest = recorded(4), recorded(4, start=2)
    assert rest == {epoch: whole[epoch] for epoch in (3, 4)}
    assert recorded(4, seed=1)[3] != whole[3]


def test_what_others_draw_between_iterations_does_not_matter() -> None:
    assert recorded(2, draws=5) == recorded(2)


def test_epochs_and_iterations_draw_different_numbers() -> None:
    whole = recorded(4)
    for position in range(1, 5):  # noise, torch, random, numpy
        drawn = [step[position] for steps in whole.values() for step in steps]
        assert len(set(drawn)) == len(drawn)
    assert len({str([step[0] for step in steps]) for steps in whole.values()}) == 4
