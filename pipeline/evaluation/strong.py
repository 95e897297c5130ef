"""The strong test: some test patients under many attacks, with what is measured to tell robustness from masking."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.attacks import FMN, PGD, as_logit, attack_mode
from pipeline.evaluation.effort import Effort
from pipeline.evaluation.effort import effort as effort_named
from pipeline.evaluation.extras import Extra, write_json
from pipeline.evaluation.metric import PatientAUC
from pipeline.evaluation.probes import Probes
from pipeline.evaluation.scores_file import COLUMNS, image_seed
from pipeline.evaluation.strong_attacks import Entry, FeatureTerm, strong_attacks
from pipeline.evaluation.surrogate import Surrogate, load_surrogate, train_surrogate
from pipeline.imaging import load_prepared
from pipeline.statistics import CLEAN


class StrongTest(Extra):
    """Handler of a test evaluator: add the scores of more attacks to the metric's table, and write what was measured.

    The patients are the first of each class in the order of a seeded hash, so that no result decides about them; images
    go through batch by batch, whole exams together, and nothing but scores is kept. An attack that the metric has
    scored already is not run again. `artefacts/strong.json` receives the attacks with their cost, the facts for the
    gates, and the distances.

    Args:
        network: the network under test.
        metric: the evaluator's metric, whose table grows.
        cohort: gives the items.
        run_directory: an object with `path`.
        effort: "none", "demo", "quick", "full" or sizes, see :func:`~pipeline.evaluation.effort.effort`.
        budget: at which the attacks are compared, in the maximum norm.
        steps: of the PGD that the run reports.
        surrogate: network for transfer: "train" trains one on the training patients, the content of a checkpoint takes
            another run's, None leaves transfer out.
        surrogate_epochs: of that training.
        feature_term: gives the term that the defence added on its features, which the adaptive attack raises,
            `pipeline.methods.trained_term`; called when the test begins. None, or None from it, leaves that out.
        batch_size: images of a batch, about.
        seed: of the choice, the surrogate and the attacks.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """

    file = "artefacts/strong.json"

    def __init__(
        self,
        network: nn.Module,
        *,
        metric: PatientAUC,
        cohort: Any,
        run_directory: Any,
        effort: str | Effort | Mapping[str, int] = "quick",
        budget: float = 1e-3,
        steps: int = 7,
        surrogate: str | dict[str, Any] | None = "train",
        surrogate_epochs: int = 6,
        feature_term: Callable[[], FeatureTerm | None] | None = None,
        batch_size: int = 8,
        seed: int = 0,
        within_breast: str = "mean",
        across_breasts: str = "max",
    ) -> None:
        super().__init__(run_directory)
        self.network = network
        self.metric = metric
        self.cohort = cohort
        self.effort = effort_named(effort)
        self.budget = budget
        self.steps = steps
        self.surrogate = surrogate
        self.surrogate_epochs = surrogate_epochs
        self.feature_term = feature_term
        self.batch_size = batch_size
        self.seed = seed
        self.pooling = {"within_breast": within_breast, "across_breasts": across_breasts}

    @property
    def wanted(self) -> bool:
        return self.effort.patients > 0

    def measure(self) -> None:
        items = chosen_items(self.cohort.items("test", "scoring"), self.effort.patients, seed=self.seed)
        surrogate = self._surrogate()
        random = self._random(items)
        entries = strong_attacks(
            self.network,
            effort=self.effort,
            budget=self.budget,
            steps=self.steps,
            image_size=load_prepared(items[0]["image"]).shape[-1],
            surrogate=surrogate,
            feature_term=None if self.feature_term is None else self.feature_term(),
            random=random,
            **self.pooling,
        )
        scored = set(self.metric.table["attack_id"])
        probes, described = Probes(self.network), []
        rows: list[dict[str, Any]] = []
        for entry in tqdm(entries, desc="strong test", unit="attack"):
            if entry.attack.attack_id in scored:
                described.append({"role": entry.role, "name": entry.name, **_about(entry.attack)})
                continue
            started = time.perf_counter()
            if entry.fits:
                entry.attack.fit(self.network, Pairs(lambda: self._batches(items)))
            for batch in self._batches(items):
                attacked = self._attacked(entry, batch)
                probes.see_attacked(batch.images, attacked, entry.attack, exams=batch.exams() if entry.exam else None)
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
            "scored_before": sorted(scored - {CLEAN}),
            "steps": self.steps,
            "random_forward": random,
            "patients": sorted({item["patient_id"] for item in items}),
            "images": len(items),
            "attacks": described,
            "facts": probes.facts(),
            "surrogate": None if surrogate is None else surrogate.origin,
            "distance_steps": search.steps,
            "distances": distances,
        }
        write_json(content, self.path)

    def _random(self, items: list[dict[str, Any]]) -> bool:
        """Whether the network's output differs from one look at the same images to the next."""
        batch = next(self._batches(items))
        with torch.no_grad(), attack_mode(self.network) as module:
            return not torch.equal(module(batch.images), module(batch.images))

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
    by_patient = _by_patient(items)
    return [item for name in order if name in chosen for item in by_patient[name]]


def whole_exams(items: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Runs of items of whole patients, each as long as `size` allows, at least one patient."""
    part: list[dict[str, Any]] = []
    for exam in _by_patient(items).values():
        if part and len(part) + len(exam) > size:
            yield part
            part = []
        part += exam
    if part:
        yield part


def _by_patient(items: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        found.setdefault(item["patient_id"], []).append(item)
    return found


def _about(attack: Any) -> dict[str, Any]:
    return {key: getattr(attack, key) for key in ("attack_id", "norm", "budget", "steps", "restarts")}


def _joined(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    added = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = pd.concat([table, added], ignore_index=True) if len(added) else table
    return whole.sort_values(["attack_id", "image_id"], ignore_index=True)
