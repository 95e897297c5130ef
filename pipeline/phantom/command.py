"""The command `phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.phantom.cohort import write_cohort
from pipeline.phantom.lesions import Difficulty

__all__ = ["phantom"]


def phantom(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    patients: Annotated[int, typer.Option(help="Number of patients.", min=1, max=9999)] = 60,
    seed: Annotated[int, typer.Option(help="Same seed, same files.", min=0)] = 0,
    height: Annotated[int, typer.Option(help="Rows of an image.", min=64)] = 1000,
    difficulty: Annotated[Difficulty, typer.Option(help="How conspicuous findings are.")] = Difficulty.MEDIUM,
    masks: Annotated[bool, typer.Option("--masks", help="Also write true breast and lesion masks (NIfTI).")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core by default.", min=1)] = None,
) -> None:
    """Write a cohort of simulated patients as DICOM mammograms with a manifest."""
    manifest = write_cohort(
        out, patients=patients, seed=seed, height=height, difficulty=difficulty, masks=masks, workers=workers
    )
    typer.echo(f"{patients} patients, {4 * patients} images: {manifest}")
