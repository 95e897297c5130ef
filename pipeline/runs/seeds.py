"""Derived seeds: every random stream is a function of the run's seed, its purpose, and where the run stands."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch.utils.data import DataLoader, Sampler


def seed_for(seed: int, purpose: str, *position: int | str) -> int:
    """Derive a seed in [0, 2^63) from the run's seed, a purpose, and a position such as epoch, iteration, rank.

    Checkpoints then need no random states: epoch 7 draws the same numbers whether the run was interrupted or not.
    """
    text = "\x1f".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rank_of(engine: Engine) -> int:
    """Rank of this process; 0 outside distributed runs."""
    return int(getattr(engine.state, "rank", 0) or 0)


class Reseed:
    """Handler: reseed dropout and augmentation at every epoch and iteration from the derived seed.

    Args:
        seed: the run's seed.
        transform: a MONAI transform with `set_random_state`, reseeded at every epoch; None for none.
    """

    def __init__(self, seed: int, transform: object | None = None) -> None:
        self.seed = seed
        self.transform = transform

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._iteration)

    def _epoch(self, engine: Engine) -> None:
        epoch_seed = seed_for(self.seed, "epoch", engine.state.epoch, rank_of(engine))
        self._all(epoch_seed)
        randomise = getattr(self.transform, "set_random_state", None)
        if randomise is not None:
            randomise(seed=epoch_seed % 2**32)
        sampler = getattr(getattr(engine, "data_loader", None), "sampler", None)
        if isinstance(sampler, EpochShuffle):
            sampler.epoch = engine.state.epoch

    def _iteration(self, engine: Engine) -> None:
        self._all(seed_for(self.seed, "iteration", engine.state.iteration, rank_of(engine)))

    @staticmethod
    def _all(seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)


class EpochShuffle(Sampler[int]):
    """Sampler whose order is a function of seed and epoch; `Reseed` tells it the epoch.

    In a distributed run every rank takes each so-many-th image of the one order, so that the ranks' batches together
    are the batch that a single process would draw. The order is filled up from its start to a multiple of the ranks.

    Args:
        data_source: the data set.
        seed: the run's seed.
    """

    def __init__(self, data_source: Sized, seed: int) -> None:
        self.data_source = data_source
        self.seed = seed
        self.epoch = 1

    def __len__(self) -> int:
        return -(-len(self.data_source) // _world_size())

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, "order", self.epoch))
        order = torch.randperm(len(self.data_source), generator=generator).tolist()
        ranks = _world_size()
        order += order[: -len(order) % ranks]
        yield from order[(dist.get_rank() if ranks > 1 else 0) :: ranks]


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class ReplayingLoader(DataLoader):
    """A loader that gives every batch several times in a row, for free adversarial training.

    An epoch has as many steps as without replays, so that epochs of all methods count the same number of updates: it
    takes one of `replays` shares of the batches; with a sampler that shuffles, `replays` epochs see about all images.

    Args:
        arguments, settings: as for `torch.utils.data.DataLoader`.
        replays: how often a batch comes; 4 in the original.

    Raises:
        ValueError: fewer than one.
    """

    def __init__(self, *arguments: Any, replays: int = 4, **settings: Any) -> None:
        if replays < 1:
            raise ValueError(f"replays is {replays}; allowed are whole numbers from 1 on")
        super().__init__(*arguments, **settings)
        self.replays = replays

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        left = len(self)
        for batch in super().__iter__():
            for _ in range(min(self.replays, left)):
                left -= 1
                yield dict(batch) if isinstance(batch, dict) else batch
            if left == 0:
                return
