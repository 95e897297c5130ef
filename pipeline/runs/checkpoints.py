"""Checkpoints: atomic, safe to load, and enough to continue bit-identically on the CPU."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from ignite.engine import Engine, Events

from pipeline.runs.directory import RunDirectory
from pipeline.runs.seeds import rank_of

FORMAT = 1
_STATEFUL: WeakKeyDictionary[Engine, dict[str, Any]] = WeakKeyDictionary()
logger = logging.getLogger(__name__)


def keep_state(engine: Engine, handler: Any) -> None:
    """Let checkpoints of this engine hold a handler's `state_dict`, under its class's name and position."""
    held = _STATEFUL.setdefault(engine, {})
    held[f"{type(handler).__name__}-{len(held)}"] = handler


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of something else."""


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """`torch.save` under a temporary name, then rename; a crash leaves the previous file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this package with `weights_only=True`.

    Raises:
        CheckpointError: no such file, not readable, or not of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {str(path)!r}; a run writes them as checkpoints/best.pt and latest.pt")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be read ({type(error).__name__}); it is damaged or unsafe to load"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "network" not in content:
        raise CheckpointError(
            f"checkpoint {str(path)!r} is not of this package's format {FORMAT}; "
            "convert a plain state dict with {'format': 1, 'network': state_dict}"
        )
    return content


class Checkpoints:
    """Handler: `latest.pt` after every epoch, `best.pt` when validation improves; attach it last.

    Args:
        run_directory: its `checkpoints/` receives the files.
        network: the module, saved bare.
        optimizer: saved in `latest.pt` only.
        validator: evaluator whose key metric decides, of equals the later epoch; None keeps the last epoch as best.
        start_epoch: first epoch that may become the best; set it to the method's, if the method starts late.
        resume: continue from `latest.pt`; without that file the run starts from the beginning, which is said.
        initial_weights: a checkpoint of this package whose network the run starts from; None for none.
        trained_on: digests of the patients and images that this network has seen, kept in the file together with those
            of `initial_weights`, so that an external test can refuse them.
        refuse: digests of the patients and images that will be tested; initial weights that have seen one are refused.
        patience: stop after so many validated epochs without a better metric (robust early stopping, where the metric
            holds a validation attack); None trains to the end.
        model: plain values from which the network and its preprocessing can be built again (`predict` needs them).

    Raises:
        CheckpointError: on resume, a checkpoint that does not fit.
    """

    def __init__(
        self,
        run_directory: RunDirectory,
        *,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        validator: Engine | None = None,
        resume: bool = False,
        initial_weights: str | None = None,
        trained_on: Sequence[str] = (),
        refuse: Sequence[str] = (),
        model: Mapping[str, Any] | None = None,
        start_epoch: int = 1,
        patience: int | None = None,
    ) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience is {patience}; allowed are whole numbers from 1 on, or None")
        self.patience = patience
        self._worse = 0
        self.run_directory = run_directory
        self.network = getattr(network, "module", network)
        self.optimizer = optimizer
        self.validator = validator
        self.trained_on = sorted(set(trained_on))
        self.refuse = list(refuse)
        self.model = json.loads(json.dumps(dict(model or {})))
        self.resume = resume
        self.initial_weights = initial_weights
        self.start_epoch = start_epoch
        self.best_metric = -math.inf
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    @property
    def latest(self) -> Path:
        return self.run_directory.checkpoints / "latest.pt"

    @property
    def best(self) -> Path:
        return self.run_directory.checkpoints / "best.pt"

    def _start(self, engine: Engine) -> None:
        if self.resume and self.latest.is_file():
            self._restore(engine)
        else:
            if self.resume:
                logger.info("resume: %s does not exist; the run starts from its first epoch", self.latest)
            if self.initial_weights is not None:
                content = load_network(self.network, self.initial_weights, refuse=self.refuse)
                self._add_digests(content)

    def _restore(self, engine: Engine) -> None:
        content = load_checkpoint(self.latest, map_location="cpu")
        keep = _STATEFUL.get(engine, {})
        missing = [name for name in keep if name not in content["handlers"]]
        if missing:
            raise CheckpointError(f"checkpoint {self.latest} lacks the state of {', '.join(missing)}; start a new run")
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        for name, held in keep.items():
            held.load_state_dict(content["handlers"][name])
        engine.state.epoch = content["epoch"]
        engine.state.iteration = content["iteration"]
        self.best_metric = content["best_metric"]
        self.best_epoch = content["best_epoch"]
        self._worse = content.get("worse", 0)
        if self._stops():
            engine.terminate()
        self._add_digests(content)
        logger.info("resumed after epoch %d from %s", content["epoch"], self.latest)

    def _add_digests(self, content: Mapping[str, Any]) -> None:
        self.trained_on = sorted({*self.trained_on, *content["trained_on"]})

    def _metric(self, engine: Engine) -> float:
        if self.validator is None:
            return float(engine.state.epoch)
        if self.validator.state.epoch != engine.state.epoch:
            return math.nan  # this epoch was not validated
        name = getattr(self.validator.state, "key_metric_name")  # noqa: B009  (MONAI adds it to ignite's State)
        return float(self.validator.state.metrics[name])

    def _save(self, engine: Engine) -> None:
        metric = self._metric(engine)
        # A metric that is not a number never becomes the best, so that a bad first epoch cannot freeze it.
        better = metric >= self.best_metric and engine.state.epoch >= self.start_epoch
        if better:
            self.best_metric, self.best_epoch, self._worse = metric, engine.state.epoch, 0
        elif not math.isnan(metric) and engine.state.epoch >= self.start_epoch:
            self._worse += 1
        if self._stops():
            logger.info("no better epoch than %d in %d validations; training stops", self.best_epoch, self._worse)
            engine.terminate()
        if rank_of(engine) != 0:
            return
        self.run_directory.checkpoints.mkdir(parents=True, exist_ok=True)
        shared = {
            "format": FORMAT,
            "network": self.network.state_dict(),
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "worse": self._worse,
            "model": self.model,
            "handlers": {name: held.state_dict() for name, held in _STATEFUL.get(engine, {}).items()},
            "trained_on": self.trained_on,
        }
        if better:
            save_atomically(shared, self.best)
        save_atomically(shared | {"optimizer": self.optimizer.state_dict()}, self.latest)

    def _stops(self) -> bool:
        return self.patience is not None and self._worse >= self.patience

    def load_best(self) -> None:
        """Load `best.pt` into the network.

        Raises:
            CheckpointError: no epoch gave a validation metric that is a number.
        """
        if not self.best.is_file():
            raise CheckpointError(
                f"no {self.best}: no epoch from {self.start_epoch} (start_epoch) on had a validation metric; "
                "max_epochs must reach start_epoch and a multiple of val_interval, and both classes be in validation"
            )
        load_network(self.network, self.best)


def scores_beside(checkpoint: str | Path) -> str | None:
    """Path of the scores.csv of the run that a checkpoint (`<run>/checkpoints/*.pt`) belongs to; None without one."""
    scores = Path(checkpoint).resolve().parent.parent / "scores.csv"
    if scores.is_file():
        return str(scores)
    logger.warning("no %s: without the run's validation scores no threshold can be frozen", scores)
    return None


def load_network(network: torch.nn.Module, path: str | Path, *, refuse: Sequence[str] = ()) -> dict[str, Any]:
    """Load a checkpoint's network in place, strictly, and return the checkpoint.

    Args:
        network: receives the weights.
        path: the checkpoint.
        refuse: digests ("patient:..." and "image:...") of what is about to be tested; a network that was trained or
            selected on any of it is refused.

    Raises:
        CheckpointError: it does not fit, or has seen a test patient.
    """
    content = load_checkpoint(path)
    seen = set(content["trained_on"]) & set(refuse)
    if seen:
        patients, images = (sum(name.startswith(kind) for name in seen) for kind in ("patient:", "image:"))
        raise CheckpointError(
            f"checkpoint {str(path)!r} was trained or selected on {patients} of the patients and {images} of the "
            "images that are to be tested. Its own test patients again: repeat the files and settings of the training "
            "(presets, manifest, fold). Others: remove the seen ones from the manifest, or give other ids where other "
            "people are meant"
        )
    try:
        getattr(network, "module", network).load_state_dict(content["network"])
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} does not fit the network: {str(error).splitlines()[-1].strip()}; "
            "give the width and head that it was trained with (evaluate.json takes them from the checkpoint)"
        ) from error
    return content
