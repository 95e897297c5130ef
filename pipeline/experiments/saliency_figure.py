"""The paper's Figure 2: saliency of the same patients' images with and without ARFL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from torch import nn

from pipeline.evaluation import saliency
from pipeline.imaging import load_prepared
from pipeline.networks import backbone
from pipeline.runs import load_checkpoint

PATIENTS = 3


def saliency_figure(
    without: Path,
    with_arfl: Path,
    folder: Path,
    *,
    places: Mapping[str, Any] | None = None,
    patients: int = PATIENTS,
) -> list[Path]:
    """Draw images, and the loss gradient of two runs of one fold scaled to [0, 1] each, with a colour bar.

    The patients are the first malignant test patients in the order of their ids, one image each: the first of a breast
    labelled malignant where breasts are labelled.

    Args:
        without: run directory of the method without ARFL (row E).
        with_arfl: run directory of the same fold with ARFL (row F).
        folder: receives figure2.png and figure2.svg.
        places: where manifest and images lie now, as overrides of the run's configuration.
        patients: how many rows.

    Returns:
        The files; none where no test patient is malignant.
    """
    items = _chosen(_test_items(with_arfl, places or {}), patients)
    if not items:
        return []
    images = torch.stack([load_prepared(item["image"]) for item in items])
    maps = [saliency(_network(run), images, torch.ones(len(items))) for run in (without, with_arfl)]
    figure = Figure(figsize=(7.2, 2.0 * len(items) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(items), 3, squeeze=False)
    drawn: Any = None
    for row, (name, image) in enumerate(zip([item["patient_id"] for item in items], images[:, 0], strict=True)):
        # Film of DDSM uses a part of the scale; stretched for the eye alone.
        axes[row][0].imshow(image, cmap="gray", vmin=0, vmax=max(float(image.quantile(0.995)), 1e-3))
        axes[row][0].set_ylabel(f"patient {name}")
        for column, each in enumerate(maps, start=1):
            drawn = axes[row][column].imshow(each[row], cmap="inferno", vmin=0, vmax=1)
    for axis, title in zip(axes[0], ("image (stretched)", "dual", "dual + ARFL"), strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="loss gradient, scaled to [0, 1]")
    files = [folder / f"figure2.{kind}" for kind in ("png", "svg")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files


def _test_items(run: Path, places: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Prepared test images of a run's fold, from its configuration; the image store has them already."""
    parser = ConfigParser(json.loads((run / "config.json").read_text(encoding="utf-8")))
    for key, value in places.items():
        parser[key] = value
    parser.get_parsed_content("imports")
    return parser.get_parsed_content("cohort").items("test", "scoring")


def _chosen(items: list[dict[str, Any]], patients: int) -> list[dict[str, Any]]:
    malignant = [item for item in items if item["patient_label"] == 1]
    malignant.sort(key=lambda item: (item["patient_id"], item["breast_label"] != 1, item["image_id"]))
    first = {item["patient_id"]: item for item in reversed(malignant)}
    return [first[patient] for patient in sorted(first)][:patients]


def _network(run: Path) -> nn.Module:
    content = load_checkpoint(run / "checkpoints" / "best.pt")
    network = backbone(weights="none", **content["model"]["network"])
    network.load_state_dict(content["network"])
    return network
