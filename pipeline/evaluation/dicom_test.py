"""Handler of a test evaluator: the DICOM attack on the original files of a few patients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from ignite.engine import Engine, Events
from monai.transforms import Compose
from torch import nn

from pipeline.evaluation.dicom_attack import dicom_attack_report
from pipeline.evaluation.effort import effort as effort_named
from pipeline.evaluation.metric import PatientAUC
from pipeline.evaluation.stored_exam import PatientFiles
from pipeline.evaluation.stored_view import ViewFile
from pipeline.evaluation.strong import chosen_items
from pipeline.statistics import CLEAN, freeze_threshold, pool_patients


class DicomTest:
    """Write `artefacts/dicom_attack.json`: what an attack on stored pixels does to some patients of the test.

    Args:
        network: the network under test.
        metric: the evaluator's metric; its clean validation patients fix the threshold.
        cohort: gives the test items and the data root.
        run_directory: an object with `path`.
        preprocessing: the chain that the network was trained with.
        effort: "none", "demo", "quick" or "full"; the number of patients.
        budget: share of the pixel scale whose survival is measured; 1e-4 is the paper's eps2.
        limit: largest budget that is tried for a flip, in grey levels.
        files: a manifest of other patients' DICOM files, as `pipeline.cohort.read_manifest` gives it, for cohorts that
            are no DICOM files (digitised film); None takes the test patients.
        root: data root of `files`.
        seed: of the choice, of dithering, and of written UIDs.
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
        preprocessing: Compose,
        effort: str = "quick",
        budget: float = 1e-4,
        limit: int = 256,
        files: pd.DataFrame | None = None,
        root: str | Path | None = None,
        seed: int = 0,
        within_breast: Literal["mean", "max"] = "mean",
        across_breasts: Literal["mean", "max"] = "max",
    ) -> None:
        self.network = network
        self.metric = metric
        self.cohort = cohort
        self.run_directory = run_directory
        self.preprocessing = preprocessing
        self.effort = effort_named(effort)
        self.budget = budget
        self.limit = limit
        self.files = files
        self.root = root
        self.seed = seed
        self.within_breast: Literal["mean", "max"] = within_breast
        self.across_breasts: Literal["mean", "max"] = across_breasts

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0 or not self.effort.dicom_patients:
            return
        dicom_attack_report(
            self.network,
            self._patients(),
            chain=self.preprocessing,
            threshold=self._threshold(),
            artefacts=Path(self.run_directory.path) / "artefacts",
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
            items, root = rows.to_dict("records"), Path(self.root or ".")
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

    def _threshold(self) -> float:
        """Frozen on validation; 0, a probability of one half, where the run holds no validation patients."""
        table = self.metric.table
        rows = table[(table["partition"] == "validation") & (table["attack_id"] == CLEAN)]
        if rows.empty:
            return 0.0
        pooled = pool_patients(rows, within_breast=self.within_breast, across_breasts=self.across_breasts)
        value = freeze_threshold(pooled["patient_label"].to_numpy(), pooled["logit"].to_numpy()).value
        return 0.0 if value is None else value
