"""The command `predict`: one exam folder through `inference.json`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline import bundle_file


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with one exam's DICOM files.")],
    checkpoint: Annotated[Path, typer.Option(help="runs/<name>/checkpoints/best.pt of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder for scores.csv, exam.json and pictures.")] = Path("prediction"),
    config: Annotated[Path | None, typer.Option(help="Default: the bundle's inference.json.")] = None,
    pictures: Annotated[bool, typer.Option(help="Draw the saliency of every image.")] = True,
    mixed_ids: Annotated[bool, typer.Option(help="The exam's files are known to carry several PatientIDs.")] = False,
) -> None:
    """Score one exam without labels: images, breasts, patient. Research use only, not for diagnosis."""
    from monai.bundle import ConfigWorkflow

    logging.getLogger("monai").setLevel(logging.WARNING)
    workflow = ConfigWorkflow(
        config_file=str(config or bundle_file("inference.json")),
        workflow_type="infer",
        dataset_dir=str(folder),
        checkpoint=str(checkpoint),
        output_dir=str(out),
        pictures=pictures,
        mixed_ids=mixed_ids,
    )
    workflow.initialize()
    workflow.run()
    content = json.loads((out / "exam.json").read_text(encoding="utf-8"))
    for row in content["scores"]:
        name = " ".join(str(row[key]) for key in ("level", "laterality", "view", "image_id") if row[key] is not None)
        typer.echo(f"{name:40}  score {row['probability']:.3f}  logit {row['logit']:+.3f}")
    typer.echo(
        "A score is the sigmoid of a logit, not a calibrated risk; the training run's report holds the threshold that "
        "was frozen on its validation patients."
    )
    if content["missing_views"]:
        typer.echo(f"missing views: {', '.join(content['missing_views'])}")
    for refusal in content["refusals"]:
        typer.echo(f"refused {refusal['image_id']}: {refusal['code']}: {refusal['reason']}")
    typer.echo(content["notice"])
