"""Certificates: what is certain of the smoothed network on some test patients, whatever an attacker does in L2."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from pipeline.evaluation.effort import Effort
from pipeline.evaluation.effort import effort as effort_named
from pipeline.evaluation.extras import Extra, frozen_threshold, write_json
from pipeline.evaluation.metric import PatientAUC
from pipeline.evaluation.smoothing import ExamImages, smoothing_samples
from pipeline.evaluation.strong import chosen_items, whole_exams
from pipeline.imaging import load_prepared
from pipeline.statistics import certified_cohort


class Certificates(Extra):
    """Handler of a test evaluator: write `artefacts/certified.json`, certified figures of the strong test's patients.

    The network is not trained for noise, so that what it keeps of its AUC under noise is part of the result. Calls are
    made at the threshold that clean validation patients fix (sensitivity of 0.9).

    Args:
        network: the network that is smoothed.
        metric: the evaluator's metric, for the threshold.
        cohort: gives the test items.
        run_directory: an object with `path`.
        effort: "none", "demo", "quick", "full" or sizes.
        sigma: standard deviation of the noise, in units of the pixel scale.
        radii: L2 radii over the whole exam, as multiples of sigma.
        alpha: chance that any bound at a radius is wrong.
        batch_size: images that go through the network at once.
        seed: of the choice of patients and of the noise.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """

    file = "artefacts/certified.json"

    def __init__(
        self,
        network: nn.Module,
        *,
        metric: PatientAUC,
        cohort: Any,
        run_directory: Any,
        effort: str | Effort | Mapping[str, int] = "quick",
        sigma: float = 0.02,
        radii: Sequence[float] = (0.0, 0.25, 0.5, 1.0),
        alpha: float = 0.001,
        batch_size: int = 32,
        seed: int = 0,
        within_breast: Literal["mean", "max"] = "mean",
        across_breasts: Literal["mean", "max"] = "max",
    ) -> None:
        super().__init__(run_directory)
        self.network = network
        self.metric = metric
        self.cohort = cohort
        self.effort = effort_named(effort)
        self.sigma = sigma
        self.radii = [float(radius) * sigma for radius in radii]
        self.alpha = alpha
        self.batch_size = batch_size
        self.seed = seed
        self.within_breast: Literal["mean", "max"] = within_breast
        self.across_breasts: Literal["mean", "max"] = across_breasts

    @property
    def wanted(self) -> bool:
        return self.effort.patients > 0

    def measure(self) -> None:
        started = time.perf_counter()
        items = chosen_items(self.cohort.items("test", "scoring"), self.effort.patients, seed=self.seed)
        labels = {item["patient_id"]: item["patient_label"] for item in items}
        samples = smoothing_samples(
            self.network,
            self._exams(items),
            sigma=self.sigma,
            n=self.effort.smoothing_draws,
            within_breast=self.within_breast,
            across_breasts=self.across_breasts,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        threshold = frozen_threshold(
            self.metric.table, within_breast=self.within_breast, across_breasts=self.across_breasts
        )
        found = certified_cohort(
            list(labels.values()), samples, sigma=self.sigma, radii=self.radii, alpha=self.alpha, threshold=threshold
        )
        content = {
            "patients": len(labels),
            "malignant": sum(labels.values()),
            "images": len(items),
            "pixels": load_prepared(items[0]["image"]).numel(),
            "sigma": self.sigma,
            "draws": self.effort.smoothing_draws,
            "alpha": self.alpha,
            "threshold": threshold,
            "radii": [entry.to_dict() for entry in found],
            "seconds": round(time.perf_counter() - started, 2),
        }
        write_json(content, self.path)

    def _exams(self, items: list[dict[str, Any]]) -> Iterator[ExamImages]:
        for exam in whole_exams(items, 1):
            images = torch.stack([load_prepared(item["image"]) for item in exam])
            breasts = tuple((item["study_id"], item["laterality"]) for item in exam)
            yield ExamImages(exam[0]["patient_id"], images, breasts)
