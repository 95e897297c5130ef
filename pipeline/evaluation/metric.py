"""Patient metric of an evaluator: every image scored clean and under attack, pooled to patients, right on any rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from pipeline.attacks import PGD, as_logit, attack_mode
from pipeline.evaluation.scores_file import COLUMNS, image_seed, read_scores, write_scores
from pipeline.statistics import NotEstimable, auc, pool_patients

REQUIRED = ("image_id", "patient_id", "laterality", "patient_label")
FACTS = (*REQUIRED, "study_id", "view", "partition", "fold", "breast_label")


class PatientAUC:
    """AUC by patient, clean and under each attack; goes into an evaluator as `key_val_metric`.

    Every image of the evaluator's loader is scored clean; images whose partition is in `attacked_partitions` are
    scored under each attack too. The attack is aimed at the patient's label on every image: the patient's logit rises
    with each image's, so that this is the strongest attack on the patient, while an attack that raised the healthy
    breast of a patient with cancer would help. Set `decollate=False` on the evaluator. Over several ranks the rows
    are gathered, and images that a distributed sampler padded are counted once. An attack's start is derived from the
    image's id, so that scores depend neither on batches nor on ranks.

    A batch holds image_id, patient_id, laterality and patient_label, and may hold study_id, view, partition, fold and
    breast_label (column `label` of the table, NaN unknown).

    Args:
        network: the network that is scored and attacked.
        attacks: attacks with `attack_id`, `norm`, `budget`, `steps`, `restarts`, such as `PGD`; none scores clean only.
        selection: the value under the metric's name: "mean" of clean and attacked AUC (attacked: the first attack),
            "clean" or "attacked". Not stated in the paper.
        within_breast: pooling of the views of a breast, "mean" or "max".
        across_breasts: pooling of the breasts of a patient, "max" or "mean".
        attacked_partitions: partitions that are attacked.
        validation_scores: a scores.csv of the run that trained the network. Its clean validation rows join the table,
            so that thresholds frozen on them can be used on an external test. None for no such file.
        seed: of the attacks' starts.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        attacks: Sequence[PGD] = (),
        selection: Literal["mean", "clean", "attacked"] = "mean",
        within_breast: Literal["mean", "max"] = "mean",
        across_breasts: Literal["mean", "max"] = "max",
        attacked_partitions: Sequence[str] = ("validation", "test"),
        validation_scores: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        if selection not in ("mean", "clean", "attacked"):
            raise ValueError(f"selection {selection!r} is unknown; allowed are 'mean', 'clean', 'attacked'")
        if selection == "attacked" and not attacks:
            raise ValueError("selection 'attacked' needs an attack; give attacks, or selection='clean'")
        repeated = {a.attack_id for a in attacks if [b.attack_id for b in attacks].count(a.attack_id) > 1}
        if repeated:
            raise ValueError(f"attacks: {', '.join(sorted(repeated))} stands there twice; remove one")
        self.network = network
        self.attacks = list(attacks)
        self.selection = selection
        self.pooling: dict[str, Any] = {"within_breast": within_breast, "across_breasts": across_breasts}
        self.attacked_partitions = frozenset(attacked_partitions)
        self.validation_scores = validation_scores
        self.seed = seed
        self._rows: list[dict[str, Any]] = []
        self.table = pd.DataFrame(columns=list(COLUMNS))

    def attach(self, engine: SupervisedEvaluator, name: str) -> None:
        """Tie the metric to an evaluator under `name`; `clean_auc` and one entry per attack stand beside it."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._complete, name)

    def _reset(self, _engine: Engine) -> None:
        self._rows = []

    def _update(self, engine: SupervisedEvaluator) -> None:
        batch, output = engine.state.batch, engine.state.output
        if not isinstance(output, dict):
            raise TypeError("PatientAUC reads whole batches; set decollate=False on the evaluator")
        missing = [key for key in REQUIRED if key not in batch]
        if missing:
            raise ValueError(f"the batch lacks {', '.join(missing)}; PatientAUC needs {', '.join(REQUIRED)}")
        images = output["image"]
        facts = [{key: _entry(batch[key], i) for key in FACTS if key in batch} for i in range(len(images))]
        for fact in facts:
            fact["label"] = fact.pop("breast_label", math.nan)
        labels = torch.tensor([fact["patient_label"] for fact in facts], dtype=images.dtype, device=images.device)
        self._add(facts, output["pred"], attack_id="clean", norm="", budget=0.0, steps=0, restarts=0)
        chosen = [i for i, fact in enumerate(facts) if fact.get("partition", "test") in self.attacked_partitions]
        if not chosen:
            return
        victims, victim_labels = images[chosen], labels[chosen]
        for attack in self.attacks:
            seeds = [image_seed(self.seed, attack.attack_id, facts[i]["image_id"]) for i in chosen]
            attacked = attack(self.network, victims, victim_labels, seed=seeds)
            # The evaluator has left its eval mode by now; without it, dropout would be in the attacked scores.
            with torch.no_grad(), attack_mode(self.network) as module:
                logits = module(attacked)
            about = {key: getattr(attack, key) for key in ("attack_id", "norm", "budget", "steps", "restarts")}
            self._add([facts[i] for i in chosen], logits, **about)

    def _add(self, facts: list[dict[str, Any]], logits: Tensor, **about: Any) -> None:
        for fact, logit in zip(facts, as_logit(logits).double().tolist(), strict=True):
            self._rows.append(fact | about | {"logit": logit})

    def _complete(self, engine: SupervisedEvaluator, name: str) -> None:
        rows = self._rows
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        table = table.drop_duplicates(["image_id", "attack_id"])
        table = table.sort_values(["attack_id", "image_id"], ignore_index=True)
        values = self._values(table)
        self.table = table if self.validation_scores is None else self._with_validation(table)
        engine.state.metrics.update({key: value for key, value in values.items() if key != name})
        engine.state.metrics[name] = self._select(values)

    def _with_validation(self, table: pd.DataFrame) -> pd.DataFrame:
        assert self.validation_scores is not None
        earlier = read_scores(Path(self.validation_scores))
        kept = earlier.query("partition == 'validation' and attack_id == 'clean'").reindex(columns=table.columns)
        # The fold is the training run's; beside an external test it has no meaning of its own.
        return pd.concat([table, kept.assign(fold=table["fold"].iloc[0])], ignore_index=True)

    def _values(self, table: pd.DataFrame) -> dict[str, float]:
        values = {}
        if table["partition"].notna().any():
            table = table[table["partition"].isin(self.attacked_partitions)]
        table = table.dropna(axis="columns", how="all")
        for attack_id, part in table.groupby("attack_id"):
            patients = pool_patients(part, **self.pooling)
            key = "clean_auc" if attack_id == "clean" else f"auc_{attack_id}"
            try:
                values[key] = auc(patients["patient_label"].to_numpy(), patients["logit"].to_numpy())
            except NotEstimable:
                values[key] = math.nan  # one class only; never becomes the best
        if self.attacks:
            first = f"auc_{self.attacks[0].attack_id}"
            values["attacked_auc"] = values.get(first, math.nan)
            if len(self.attacks) == 1:
                values.pop(first, None)  # the same figure under a longer name
        return values

    def _select(self, values: dict[str, float]) -> float:
        clean, attacked = values.get("clean_auc", math.nan), values.get("attacked_auc", math.nan)
        if self.selection == "clean" or not self.attacks:
            return clean
        return attacked if self.selection == "attacked" else (clean + attacked) / 2


class ScoreWriter:
    """Handler of an evaluator: write a `PatientAUC`'s rows to `scores.csv`.

    Once when the images are scored, so that nothing which follows can lose them, and once more at the end where other
    handlers have added rows.

    Args:
        metric: the evaluator's metric.
        run_directory: an object with `path`, read when writing; the folder is made.
    """

    def __init__(self, metric: PatientAUC, run_directory: Any) -> None:
        self.metric = metric
        self.run_directory = run_directory
        self._written = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._again)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) == 0:
            write_scores(self.metric.table, Path(self.run_directory.path) / "scores.csv")
            self._written = len(self.metric.table)

    def _again(self, engine: Engine) -> None:
        if len(self.metric.table) != self._written:
            self(engine)


def _entry(column: Any, index: int) -> Any:
    value = column[index]
    return value.item() if isinstance(value, Tensor) else value
