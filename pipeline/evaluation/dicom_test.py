"""Handler of a test evaluator: the DICOM attack on the original files of a few patients."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from monai.transforms import Compose
from torch import nn

from pipeline.evaluation.dicom_attack import dicom_attack_report
from pipeline.evaluation.effort import Effort
from pipeline.evaluation.effort import effort as effort_named
from pipeline.evaluation.extras import Extra, frozen_threshold
from pipeline.evaluation.metric import PatientAUC
from pipeline.evaluation.stored_exam import PatientFiles
from pipeline.evaluation.stored_view import ViewFile
from pipeline.evaluation.strong import chosen_items


class DicomTest(Extra):
    """Write `artefacts/dicom_attack.json`: what an attack on stored pixels does to some patients of the test.

    Args:
        network: the network under test.
        metric: the evaluator's metric; its clean validation patients fix the threshold.
        cohort: gives the test items and the data root.
        run_directory: an object with `path`.
        preprocessing: the chain that the network was trained with.
        effort: "none", "demo", "quick", "full" or sizes; the number of patients.
        budget: share of the pixel scale whose survival is measured; 1e-4 is the paper's eps2.
        limit: largest budget that is tried for a flip, in grey levels.
        files: a manifest of other patients' DICOM files, as `pipeline.cohort.read_manifest` gives it, for cohorts that
            are no DICOM files (digitised film); None takes the test patients.
        root: data root of `files`.
        name: of `files`, for the report.
        trained_on: digests of what the network was trained or selected on, as checkpoints hold them; such patients
            are left out of `files`.
        seed: of the choice, of dithering, and of written UIDs.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """

    file = "artefacts/dicom_attack.json"

    def __init__(
        self,
        network: nn.Module,
        *,
        metric: PatientAUC,
        cohort: Any,
        run_directory: Any,
        preprocessing: Compose,
        effort: str | Effort | Mapping[str, int] = "quick",
        budget: float = 1e-4,
        limit: int = 256,
        files: pd.DataFrame | None = None,
        root: str | Path | None = None,
        name: str | None = None,
        trained_on: Collection[str] = (),
        seed: int = 0,
        within_breast: Literal["mean", "max"] = "mean",
        across_breasts: Literal["mean", "max"] = "max",
    ) -> None:
        super().__init__(run_directory)
        self.network = network
        self.metric = metric
        self.cohort = cohort
        self.preprocessing = preprocessing
        self.effort = effort_named(effort)
        self.budget = budget
        self.limit = limit
        self.files = files
        self.root = root
        self.name = name
        self.trained_on = frozenset(trained_on)
        self.seed = seed
        self.within_breast: Literal["mean", "max"] = within_breast
        self.across_breasts: Literal["mean", "max"] = across_breasts

    @property
    def wanted(self) -> bool:
        return self.effort.dicom_patients > 0

    def measure(self) -> None:
        dicom_attack_report(
            self.network,
            self._patients(),
            chain=self.preprocessing,
            threshold=frozen_threshold(
                self.metric.table, within_breast=self.within_breast, across_breasts=self.across_breasts
            ),
            artefacts=self.path.parent,
            origin=None if self.files is None else (self.name or "another manifest"),
            budget=self.budget,
            limit=self.limit,
            within_breast=self.within_breast,
            across_breasts=self.across_breasts,
            seed=self.seed,
        )

    def _patients(self) -> Iterator[PatientFiles]:
        items, root = self.cohort.items("test", "scoring"), Path(self.cohort.root)
        if self.files is not None:
            rows = self.files.rename(columns={"image": "image_id"})
            seen = rows["patient_id"].map(self._seen)
            if seen.all():
                raise ValueError("the network was trained or selected on every patient of dicom_manifest; give others")
            items, root = rows[~seen].to_dict("records"), Path(self.root or ".")
        chosen = chosen_items(items, self.effort.dicom_patients, seed=self.seed)
        for patient in dict.fromkeys(item["patient_id"] for item in chosen):
            exam = [item for item in chosen if item["patient_id"] == patient]
            views = tuple(
                ViewFile(
                    path=root / item["image_id"],
                    image_id=item["image_id"],
                    laterality=item["laterality"],
                    view=item["view"],
                    study_id=str(item.get("study_id") or ""),
                )
                for item in exam
            )
            yield PatientFiles(patient, int(exam[0]["patient_label"]), views)

    def _seen(self, patient_id: str) -> bool:
        return f"patient:{hashlib.sha256(patient_id.encode()).hexdigest()}" in self.trained_on
