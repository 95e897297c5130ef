"""Gallery: a few test patients with their saliency, clean and attacked, drawn on the picture as it was acquired."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from pipeline.attacks import PGD, as_logit, attack_mode
from pipeline.evaluation.metric import PatientAUC, image_seed
from pipeline.evaluation.picture import Canvas
from pipeline.evaluation.saliency import saliency, smooth
from pipeline.imaging import Preparation, load_prepared, read_mammogram

SIGMA = 1.5  # smoothing of the map, in prepared pixels


class Gallery:
    """Handler of a test evaluator: write `artefacts/gallery.json` and its pictures when scoring is done.

    The patients are not picked by result: half malignant, half not, the first of each class in the order of a seeded
    hash of the id. Of each, the views of the breast with the highest clean logit are drawn.

    Args:
        network: the network that was scored.
        metric: the evaluator's `PatientAUC`, whose rows choose the breasts.
        cohort: gives the test items and the data root.
        run_directory: its `artefacts/` receives the pictures.
        attack: the attack that is shown beside the clean image.
        patients: how many; 0 writes an empty gallery.
        seed: of the choice and of the attack's start.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        metric: PatientAUC,
        cohort: Any,
        run_directory: Any,
        attack: PGD,
        patients: int = 4,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.metric = metric
        self.cohort = cohort
        self.run_directory = run_directory
        self.attack = attack
        self.patients = patients
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        folder = Path(self.run_directory.path) / "artefacts"
        (folder / "gallery").mkdir(parents=True, exist_ok=True)
        entries = [entry for item in self._chosen_items() for entry in self._draw(item, folder)]
        (folder / "gallery.json").write_text(json.dumps(entries, indent=2), encoding="utf-8")

    def _chosen_items(self) -> list[dict[str, Any]]:
        items = self.cohort.items("test", "scoring")
        labels = {item["patient_id"]: item["patient_label"] for item in items}
        order = sorted(labels, key=lambda patient: image_seed(self.seed, "gallery", patient))
        malignant = [p for p in order if labels[p] == 1][: (self.patients + 1) // 2]
        others = [p for p in order if labels[p] == 0][: self.patients - len(malignant)]
        clean = self.metric.table.query("attack_id == 'clean'")
        chosen = []
        for patient in [*malignant, *others]:
            breasts = clean[clean["patient_id"] == patient].groupby("laterality")["logit"].mean()
            side = breasts.idxmax()
            chosen += [item for item in items if item["patient_id"] == patient and item["laterality"] == side]
        return chosen

    def _draw(self, item: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
        device = next(self.network.parameters()).device
        image = load_prepared(item["image"])[None].to(device)
        label = torch.as_tensor(item["label"], device=device).reshape(1)
        attacked = self.attack(self.network, image, label, seed=image_seed(self.seed, "gallery", item["image_id"]))
        sidecar = json.loads(Path(item["image"]).with_suffix(".json").read_text(encoding="utf-8"))
        preparation = Preparation.from_dict(sidecar["preparation"])
        source = read_mammogram(
            Path(self.cohort.root) / item["image_id"], laterality=item["laterality"], view=item["view"]
        )
        canvas = Canvas(source.pixels, preparation, text=f"{item['laterality']} {item['view']}")
        stem = picture_stem(item)
        entries = []
        shown = (("clean", 0.0, image), (self.attack.attack_id, self.attack.budget, attacked))
        for attack_id, budget, picture in shown:
            with torch.no_grad(), attack_mode(self.network) as module:
                logit = float(as_logit(module(picture))[0])
            heat = smooth(saliency(self.network, picture, label), sigma=SIGMA)[0]
            kind = "clean" if attack_id == "clean" else "attacked"
            names = {what: f"artefacts/gallery/{stem}_{kind}_{what}.png" for what in ("picture", "saliency")}
            canvas.save(folder.parent / names["picture"], change=(picture - image)[0, 0])
            canvas.save(folder.parent / names["saliency"], change=(picture - image)[0, 0], heat=heat)
            entries.append(
                {key: item[key] for key in ("patient_id", "laterality", "view", "patient_label")}
                | {"image": item["image_id"], "attack_id": attack_id, "budget": budget, "logit": logit}
                | names
            )
        return entries


def picture_stem(item: dict[str, Any]) -> str:
    """Beginning of an image's picture names: a digest, since ids may hold any text and views may stand twice."""
    digest = hashlib.sha256(item["image_id"].encode()).hexdigest()[:12]
    return f"{item['laterality']}_{item['view']}_{digest}"
