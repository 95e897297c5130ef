"""The command ``audit``: prints what an audit found, writes it as JSON, and ends with 1 on a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import bundle_file


def audit(
    path: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest to audit (CSV).")],
    dataset_dir: Annotated[
        Path | None, typer.Option("--dataset_dir", help="Data root of the manifest's paths; default: its folder.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Image store to take prepared images from and add to; default: a temporary one.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Look at this fold only; default: all, or the fixed split.")] = None,
    folds: Annotated[int, typer.Option(help="Number of folds, as in training.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds, as in training.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON to write.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose 'preprocessing' is the chain; default: the bundle's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; 0 for this one, by default one per core.")] = None,
    allow_raw_ids: Annotated[bool, typer.Option(help="Accept ids that equal the DICOM PatientID.")] = False,
) -> None:
    """Look for leaks, contradictions and shortcuts in a manifest; ends with 1 on a leak, never on a warning."""
    from monai.bundle import ConfigParser

    from pipeline.cohort.auditing.audit import audit as look
    from pipeline.cohort.auditing.printing import printed

    parser = ConfigParser()
    parser.read_config(config or bundle_file("train.json"))
    result = look(
        path,
        dataset_dir=dataset_dir,
        preprocessing=parser.get_parsed_content("preprocessing"),
        store_dir=store,
        fold=fold,
        folds=folds,
        seed=seed,
        allow_raw_ids=allow_raw_ids,
        workers=workers,
    )
    for line in printed(result):
        typer.echo(line)
    if out is not None:
        result.save(out)
        typer.echo(f"audit: {out}")
    if result.leaks:
        raise typer.Exit(1)
