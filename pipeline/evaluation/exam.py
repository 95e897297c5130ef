"""One exam without labels: from a folder of DICOM files to image, breast and patient scores."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose
from torch import Tensor, nn

from pipeline.attacks import as_logit
from pipeline.evaluation.picture import Canvas
from pipeline.evaluation.saliency import saliency, smooth
from pipeline.imaging import Preparation, Refusal, explain, prepare_item, read_mammogram
from pipeline.imaging.parsing import open_dataset, refusing
from pipeline.statistics import pool_patients

STANDARD_VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
SKIPPED_NAMES = {"DICOMDIR"}
SCORE_COLUMNS = ("level", "image_id", "laterality", "view", "logit", "probability")


class ExamError(ValueError):
    """A folder that cannot be scored as one exam."""


class Exam:
    """The images of one exam folder, prepared; refused files are kept with their reasons.

    Files are named by the first twelve digits of their SHA-256, because file and folder names may hold a patient's
    name. DICOM files are found at any depth; hidden files and DICOMDIR are passed over.

    Args:
        folder: the exam's folder.
        preprocessing: the chain that the network was trained with.
        mixed_ids: accept files of several PatientIDs as one exam (CBIS-DDSM gives every view its own).

    Raises:
        ExamError: no such folder, no file in it, or files of several patients.
    """

    def __init__(self, folder: str | Path, *, preprocessing: Compose, mixed_ids: bool = False) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise ExamError(f"{str(folder)!r} is no folder; give the folder of one exam's DICOM files")
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.name not in SKIPPED_NAMES
        )
        if not files:
            raise ExamError(f"{str(folder)!r} holds no file; give the folder of one exam's DICOM files")
        self.sources: dict[str, Path] = {}
        self.preparations: dict[str, Preparation] = {}
        self.items: list[dict[str, Any]] = []
        self.refusals: list[dict[str, str]] = []
        patients: set[str] = set()
        for path in files:
            image_id = _digest(path)
            if image_id in self.sources:
                self.refusals.append({"image_id": image_id, "code": "duplicate", "reason": "the file stands twice"})
                continue
            self.sources[image_id] = path
            try:
                item = prepare_item(preprocessing, {"image": str(path)})
            except Exception as error:  # one odd file must not end the exam
                code, reason = explain(error)
                self.refusals.append({"image_id": image_id, "code": code, "reason": reason})
                continue
            patients.add(_patient_id(path))
            self.items.append(
                {key: item[key] for key in ("image", "laterality", "view")}
                | {"laterality": str(item["laterality"]), "view": str(item["view"]), "image_id": image_id}
            )
            self.preparations[image_id] = item["preparation"]
        if len(patients - {""}) > 1 and not mixed_ids:
            raise ExamError(
                f"the folder holds files of {len(patients)} patients (PatientID differs); put one exam into a folder, "
                "or pass --mixed-ids where one exam's files are known to carry several ids"
            )

    @property
    def missing_views(self) -> list[str]:
        """Standard views that no usable image shows, e.g. "L MLO"."""
        present = {(item["laterality"], item["view"]) for item in self.items}
        return [f"{side} {view}" for side, view in STANDARD_VIEWS if (side, view) not in present]


class ExamWriter:
    """Handler of an evaluator: collect the logits of an `Exam`; `write` gives scores, refusals and saliency.

    Args:
        network: the network that is run.
        exam: the exam.
        output_dir: receives `scores.csv`, `exam.json` and, with `pictures`, one saliency picture per image.
        pictures: draw saliency.
        facts: further entries of `exam.json`, e.g. the checkpoint's digest.
        within_breast: pooling of the views of a breast, "mean" or "max"; take the training's.
        across_breasts: pooling of the breasts, "max" or "mean"; take the training's.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        exam: Exam,
        output_dir: str | Path,
        pictures: bool = True,
        facts: dict[str, Any] | None = None,
        within_breast: str = "mean",
        across_breasts: str = "max",
    ) -> None:
        self.network = network
        self.exam = exam
        self.output_dir = Path(output_dir)
        self.pictures = pictures
        self.facts = facts or {}
        self.pooling: dict[str, Any] = {"within_breast": within_breast, "across_breasts": across_breasts}
        self._rows: list[dict[str, Any]] = []
        self._maps: dict[str, Tensor] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)

    def _collect(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        images = output["image"]  # type: ignore[index]
        logits = as_logit(output["pred"]).double().tolist()  # type: ignore[index]
        for i, logit in enumerate(logits):
            facts = {key: batch[key][i] for key in ("image_id", "laterality", "view")}  # type: ignore[index]
            self._rows.append({"level": "image", **facts, "logit": logit})
        if self.pictures:
            maps = smooth(saliency(self.network, images, torch.zeros(len(images))), sigma=1.5).cpu()
            self._maps.update(zip(batch["image_id"], maps, strict=True))  # type: ignore[index]

    def scores(self) -> pd.DataFrame:
        """Rows of images, breasts and the patient: level, image_id, laterality, view, logit, probability."""
        images = pd.DataFrame(self._rows, columns=[*SCORE_COLUMNS[:-1]])
        if images.empty:
            return pd.DataFrame(columns=list(SCORE_COLUMNS))
        # An exam has no label; pooling groups by one, so all rows carry the same.
        unlabelled = images.assign(patient_id="exam", patient_label=0, attack_id="clean")
        parts = [images]
        for side, rows in unlabelled.groupby("laterality"):
            pooled = pool_patients(rows, **self.pooling)["logit"].iloc[0]
            parts.append(pd.DataFrame([{"level": "breast", "laterality": side, "logit": pooled}]))
        patient = pool_patients(unlabelled, **self.pooling)["logit"].iloc[0]
        parts.append(pd.DataFrame([{"level": "patient", "logit": patient}]))
        table = pd.concat(parts, ignore_index=True)
        table["probability"] = [1 / (1 + math.exp(-logit)) for logit in table["logit"]]
        return table[list(SCORE_COLUMNS)]

    def write(self) -> Path:
        """Write everything below `output_dir` and return the path of `exam.json`.

        Raises:
            ExamError: no image was usable; the files with the reasons are written before.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        table = self.scores()
        table.to_csv(self.output_dir / "scores.csv", index=False, float_format="%.9g")
        pictures = {}
        for image_id, heat in self._maps.items():
            item = next(item for item in self.exam.items if item["image_id"] == image_id)
            source = read_mammogram(self.exam.sources[image_id])
            preparation: Preparation = self.exam.preparations[image_id]
            name = f"{item['laterality']}_{item['view']}_{image_id}_saliency.png"
            canvas = Canvas(source.pixels, preparation, text=f"{item['laterality']} {item['view']}")
            canvas.save(self.output_dir / name, heat=heat)
            pictures[image_id] = name
        content = {
            "notice": "Research use only, not for diagnosis.",
            "scores": json.loads(table.to_json(orient="records")),
            "missing_views": self.exam.missing_views,
            "refusals": self.exam.refusals,
            "saliency": pictures,
            "pooling": self.pooling,
            **self.facts,
        }
        target = self.output_dir / "exam.json"
        target.write_text(json.dumps(content, indent=2), encoding="utf-8")
        if not self._rows:
            counts = Counter(refusal["code"] for refusal in self.exam.refusals)
            codes = ", ".join(f"{count} {code}" for code, count in counts.items())
            raise ExamError(f"none of the exam's files could be used ({codes}); the reasons stand in {target}")
        return target


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _patient_id(path: Path) -> str:
    try:
        with refusing("DICOM file"):
            return str(open_dataset(path, header_only=True, tags=["PatientID"]).get("PatientID", ""))
    except Refusal:  # a PNG
        return ""
