"""A run: its directory, configuration check, derived seeds, history, checkpoints, and readable errors."""

from pipeline.runs.checkpoints import (
    CheckpointError,
    Checkpoints,
    keep_state,
    load_checkpoint,
    load_network,
    scores_beside,
)
from pipeline.runs.configuration import ConfigurationError, check_configuration, training_facts
from pipeline.runs.directory import RunDirectory
from pipeline.runs.errors import install_error_printer
from pipeline.runs.history import History, running_means
from pipeline.runs.seeds import EpochShuffle, ReplayingLoader, Reseed, rank_of, seed_for

install_error_printer()

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "ConfigurationError",
    "EpochShuffle",
    "History",
    "ReplayingLoader",
    "Reseed",
    "RunDirectory",
    "check_configuration",
    "keep_state",
    "load_checkpoint",
    "load_network",
    "rank_of",
    "running_means",
    "scores_beside",
    "seed_for",
    "training_facts",
]
