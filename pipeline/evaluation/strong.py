"""The strong test: some test patients under many attacks, with what is measured to tell robustness from masking."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.attacks import FMN, PGD, as_logit, attack_mode
from pipeline.evaluation.effort import effort as effort_named
from pipeline.evaluation.metric import PatientAUC
from pipeline.evaluation.probes import Probes
from pipeline.evaluation.scores_file import COLUMNS, image_seed
from pipeline.evaluation.strong_attacks import Entry, strong_attacks
from pipeline.evaluation.surrogate import Surrogate, load_surrogate, train_surrogate
from pipeline.imaging import load_prepared

FILE = "artefacts/strong.json"


class StrongTest:
    """Handler of a test evaluator: add the scores of more attacks to the metric's table, and write what was measured.

    Attach it before the `ScoreWriter`. The patients are the first of each class in the order of a seeded hash, so that
    no result decides about them; images go through batch by batch, whole exams together, and nothing but scores is
    kept. `artefacts/strong.json` receives the attacks with their cost, the facts for the gates, and the distances.

    Args:
        network: the network under test.
        metric: the evaluator's metric, whose table grows.
        cohort: gives the items.
        run_directory: an object with `path`.
        effort: "none", "demo", "quick" or "full", see :data:`~pipeline.evaluation.effort.EFFORTS`.
        budget: at which the attacks are compared, in the maximum norm.
        steps: of the PGD that the run reports.
        surrogate: network for transfer: "train" trains one on the training patients, the content of a checkpoint takes
            another run's, None leaves transfer out.
        surrogate_epochs: of that training.
        layer: layer of ARFL's features, for the adaptive attack; None leaves it out.
        feature_term: what the adaptive attack raises there, `pipeline.methods.robust_feature_rows`.
        batch_size: images of a batch, about.
        seed: of the choice, the surrogate and the attacks.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        metric: PatientAUC,
        cohort: Any,
        run_directory: Any,
        effort: str = "quick",
        budget: float = 1e-3,
        steps: int = 7,
        surrogate: str | dict[str, Any] | None = "train",
        surrogate_epochs: int = 6,
        layer: str | None = None,
        feature_term: Callable[[Tensor, Tensor], Tensor] | None = None,
        batch_size: int = 8,
        seed: int = 0,
        within_breast: str = "mean",
        across_breasts: str = "max",
    ) -> None:
        self.network = network
        self.metric = metric
        self.cohort = cohort
        self.run_directory = run_directory
        self.effort = effort_named(effort)
        self.budget = budget
        self.steps = steps
        self.surrogate = surrogate
        self.surrogate_epochs = surrogate_epochs
        self.layer = layer
        self.feature_term = feature_term
        self.batch_size = batch_size
        self.seed = seed
        self.pooling = {"within_breast": within_breast, "across_breasts": across_breasts}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0 or not self.effort.patients:
            return
        items = chosen_items(self.cohort.items("test", "scoring"), self.effort.patients, seed=self.seed)
        surrogate = self._surrogate()
        entries = strong_attacks(
            self.network,
            effort=self.effort,
            budget=self.budget,
            steps=self.steps,
            image_size=load_prepared(items[0]["image"]).shape[-1],
            surrogate=surrogate,
            layer=self.layer,
            feature_term=self.feature_term,
            **self.pooling,
        )
        probes, described = Probes(self.network), []
        rows: list[dict[str, Any]] = []
        for entry in tqdm(entries, desc="strong test", unit="attack"):
            started = time.perf_counter()
            if entry.fits:
                entry.attack.fit(self.network, Pairs(lambda: self._batches(items)))
            for batch in self._batches(items):
                attacked = self._attacked(entry, batch)
                probes.see_attacked(batch.images, attacked, entry.attack)
                rows += self._rows(batch, attacked, entry.attack)
            described.append(
                {
                    "role": entry.role,
                    "name": entry.name,
                    **_about(entry.attack),
                    "forward_passes": len(items) * entry.attack.passes.forward,
                    "backward_passes": len(items) * entry.attack.passes.backward,
                    "seconds": round(time.perf_counter() - started, 2),
                }
            )
        search = FMN(steps=self.effort.distance_steps)
        distances = []
        for batch in self._batches(items):
            probes.see_clean(batch.images, batch.labels)
            found = search(self.network, batch.images).distances.tolist()
            distances += [
                {name: item[name] for name in ("image_id", "patient_id", "patient_label")}
                | {"distance": value if math.isfinite(value) else None}
                for item, value in zip(batch.items, found, strict=True)
            ]
        self.metric.table = _joined(self.metric.table, rows)
        content = {
            "budget": self.budget,
            "reported": PGD(budget=self.budget, steps=self.steps).attack_id,
            "patients": sorted({item["patient_id"] for item in items}),
            "images": len(items),
            "attacks": described,
            "facts": probes.facts(),
            "surrogate": None if surrogate is None else surrogate.origin,
            "distance_steps": search.steps,
            "distances": distances,
        }
        write_json(content, Path(self.run_directory.path) / FILE)

    def _surrogate(self) -> Surrogate | None:
        if self.surrogate is None:
            return None
        if isinstance(self.surrogate, dict):
            device = next(self.network.parameters()).device
            return load_surrogate(self.surrogate, name="given as surrogate", device=device)
        return train_surrogate(
            self.network, self.cohort.items("training"), epochs=self.surrogate_epochs, seed=self.seed + 1
        )

    def _batches(self, items: list[dict[str, Any]]) -> Iterator[Batch]:
        device = next(self.network.parameters()).device
        for part in whole_exams(items, self.batch_size):
            images = torch.stack([load_prepared(item["image"]) for item in part]).to(device)
            labels = torch.tensor([float(item["patient_label"]) for item in part], device=device)
            yield Batch(part, images, labels)

    def _attacked(self, entry: Entry, batch: Batch) -> Tensor:
        seeds = [image_seed(self.seed, entry.attack.attack_id, item["image_id"]) for item in batch.items]
        exam = {"exams": batch.exams(), "breasts": batch.breasts()} if entry.exam else {}
        return entry.attack(self.network, batch.images, batch.labels, seed=seeds, **exam)

    def _rows(self, batch: Batch, attacked: Tensor, attack: Any) -> list[dict[str, Any]]:
        with torch.no_grad(), attack_mode(self.network) as module:
            logits = as_logit(module(attacked)).double().tolist()
        about = _about(attack)
        return [
            {name: item[name] for name in ("image_id", "patient_id", "study_id", "laterality", "view", "partition")}
            | {"fold": item["fold"], "label": item["breast_label"], "patient_label": item["patient_label"]}
            | about
            | {"logit": logit}
            for item, logit in zip(batch.items, logits, strict=True)
        ]


@dataclass(frozen=True)
class Batch:
    """Whole exams: their items, images (N, 1, H, W) and the patient's label (N,) of each."""

    items: list[dict[str, Any]]
    images: Tensor
    labels: Tensor

    def exams(self) -> Tensor:
        """Number of each image's exam (N,)."""
        names = list(dict.fromkeys(item["patient_id"] for item in self.items))
        return torch.tensor([names.index(item["patient_id"]) for item in self.items], device=self.images.device)

    def breasts(self) -> Tensor:
        """Number of each image's breast within its exam (N,); every examination of a patient has its own."""
        shown = [(item["study_id"], item["laterality"]) for item in self.items]
        names = list(dict.fromkeys(shown))
        return torch.tensor([names.index(name) for name in shown], device=self.images.device)


@dataclass(frozen=True)
class Pairs:
    """Images and labels of batches, read anew each time they are gone through."""

    batches: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((batch.images, batch.labels) for batch in self.batches())


def chosen_items(items: list[dict[str, Any]], patients: int, *, seed: int) -> list[dict[str, Any]]:
    """Items of some patients, half of them malignant where there are enough, in the order of a seeded hash.

    Args:
        items: test items.
        patients: how many patients, at most.
        seed: of the order.
    """
    labels = {item["patient_id"]: item["patient_label"] for item in items}
    order = sorted(labels, key=lambda name: image_seed(seed, "strong test", name))
    malignant, benign = ([name for name in order if labels[name] == label] for label in (1, 0))
    first = min(len(malignant), max((patients + 1) // 2, patients - len(benign)))
    chosen = set(malignant[:first]) | set(benign[: patients - first])
    return [item for name in order if name in chosen for item in items if item["patient_id"] == name]


def whole_exams(items: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Runs of items of whole patients, each as long as `size` allows, at least one patient."""
    part: list[dict[str, Any]] = []
    patients = dict.fromkeys(item["patient_id"] for item in items)
    for name in patients:
        exam = [item for item in items if item["patient_id"] == name]
        if part and len(part) + len(exam) > size:
            yield part
            part = []
        part += exam
    if part:
        yield part


def write_json(content: Any, path: Path) -> None:
    """Write JSON under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    temporary.replace(path)


def _about(attack: Any) -> dict[str, Any]:
    return {key: getattr(attack, key) for key in ("attack_id", "norm", "budget", "steps", "restarts")}


def _joined(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    added = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = pd.concat([table, added], ignore_index=True) if len(added) else table
    return whole.sort_values(["attack_id", "image_id"], ignore_index=True)
