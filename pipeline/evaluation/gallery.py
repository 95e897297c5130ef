"""Gallery of failures: the worst errors and the patients that an attack turns over, as pictures with their saliency."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from pipeline.attacks import PGD, as_logit, attack_mode
from pipeline.evaluation.failures import choose_failures
from pipeline.evaluation.picture import Canvas
from pipeline.evaluation.saliency import saliency, smooth
from pipeline.evaluation.scores_file import image_seed, read_scores
from pipeline.imaging import Preparation, load_prepared, read_mammogram
from pipeline.statistics import CLEAN

SIGMA = 1.5  # smoothing of the map, in prepared pixels


class Gallery:
    """Handler of a test evaluator: write `artefacts/gallery.json` and its pictures when scores.csv is written.

    Of each patient that :func:`~pipeline.evaluation.failures.choose_failures` gives, the views of the breast with the
    highest clean logit are drawn: as acquired but black outside the breast, where films and screenshots carry names,
    the change that the attack adds (amplified), attacked, and the saliency of both.

    Args:
        network: the network that was scored.
        cohort: gives the test items and the data root.
        run_directory: holds scores.csv; its `artefacts/` receives the pictures.
        attack: the attack that is shown beside the clean image.
        patients: how many for each rule, at most; 0 writes an empty gallery.
        seed: that of the scores, so that the attacked image drawn is the one that was scored.
        within_breast: pooling of the views of a breast.
        across_breasts: pooling of the breasts of a patient.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        cohort: Any,
        run_directory: Any,
        attack: PGD,
        patients: int = 2,
        seed: int = 0,
        within_breast: str = "mean",
        across_breasts: str = "max",
    ) -> None:
        self.network = network
        self.cohort = cohort
        self.run_directory = run_directory
        self.attack = attack
        self.patients = patients
        self.seed = seed
        self.pooling = {"within_breast": within_breast, "across_breasts": across_breasts}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        folder = Path(self.run_directory.path) / "artefacts"
        (folder / "gallery").mkdir(parents=True, exist_ok=True)
        scores = read_scores(folder.parent / "scores.csv")
        rules = []
        if self.patients:
            rules = choose_failures(scores, attack_id=self.attack.attack_id, count=self.patients, pooling=self.pooling)
        content = {
            "attack_id": self.attack.attack_id,
            "budget": self.attack.budget,
            "rules": [failures.to_dict() for failures in rules],
            "images": [
                {"rule": failures.rule} | self._draw(item, folder)
                for failures in rules
                for item in self.items(scores, failures.patients)
            ],
        }
        (folder / "gallery.json").write_text(json.dumps(content, indent=2), encoding="utf-8")

    def items(self, scores: pd.DataFrame, patients: tuple[str, ...]) -> list[dict[str, Any]]:
        """Test items of the breast with the highest clean logit of each patient, in the order of the patients."""
        items = self.cohort.items("test", "scoring")
        clean = scores[scores["attack_id"] == CLEAN]
        chosen = []
        for patient in patients:
            side = clean[clean["patient_id"] == patient].groupby("laterality")["logit"].mean().idxmax()
            chosen += [item for item in items if item["patient_id"] == patient and item["laterality"] == side]
        return chosen

    def _draw(self, item: dict[str, Any], folder: Path) -> dict[str, Any]:
        device = next(self.network.parameters()).device
        image = load_prepared(item["image"])[None].to(device)
        label = torch.as_tensor(item["patient_label"], device=device).reshape(1)
        attacked = self.attack(
            self.network, image, label, seed=image_seed(self.seed, self.attack.attack_id, item["image_id"])
        )
        sidecar = json.loads(Path(item["image"]).with_suffix(".json").read_text(encoding="utf-8"))
        preparation = Preparation.from_dict(sidecar["preparation"])
        source = read_mammogram(
            Path(self.cohort.root) / item["image_id"], laterality=item["laterality"], view=item["view"]
        )
        canvas = Canvas(source.pixels, preparation, text=f"{item['laterality']} {item['view']}")
        canvas.keep_breast(image[0, 0])
        stem = f"artefacts/gallery/{picture_stem(item)}"
        change = (attacked - image)[0, 0]
        scenes = []
        for attack_id, budget, picture in ((CLEAN, 0.0, image), (self.attack.attack_id, self.attack.budget, attacked)):
            kind = "clean" if attack_id == CLEAN else "attacked"
            names = {what: f"{stem}_{kind}_{what}.png" for what in ("picture", "saliency")}
            added = (picture - image)[0, 0]
            canvas.save(folder.parent / names["picture"], change=added)
            canvas.save(folder.parent / names["saliency"], change=added, heat=self._heat(picture, label))
            scenes.append({"attack_id": attack_id, "budget": budget, "logit": self._logit(picture)} | names)
        limit = float(change.abs().max())
        canvas.save_change(folder.parent / f"{stem}_change.png", change, limit=limit)
        finding = float(item["breast_label"])
        return {key: item[key] for key in ("patient_id", "laterality", "view", "patient_label")} | {
            "breast_label": None if math.isnan(finding) else int(finding),
            "image": item["image_id"], "change": f"{stem}_change.png", "change_limit": limit, "scenes": scenes,
        }  # fmt: skip

    def _logit(self, picture: Tensor) -> float:
        with torch.no_grad(), attack_mode(self.network) as module:
            return float(as_logit(module(picture))[0])

    def _heat(self, picture: Tensor, label: Tensor) -> Tensor:
        return smooth(saliency(self.network, picture, label), sigma=SIGMA)[0]


def picture_stem(item: dict[str, Any]) -> str:
    """Beginning of an image's picture names: a digest, since ids may hold any text and views may stand twice."""
    digest = hashlib.sha256(item["image_id"].encode()).hexdigest()[:12]
    return f"{item['laterality']}_{item['view']}_{digest}"
