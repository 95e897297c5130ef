"""The command ``prepare``: it fills the image store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import bundle_file

STOPPED = 130  # 128 + SIGINT, as shells count it


def prepare(
    path: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest to prepare (CSV).")],
    out: Annotated[
        Path, typer.Option(help="Folder of the image store (store_dir of train.json); receives ledger.csv.")
    ],
    dataset_dir: Annotated[
        Path | None, typer.Option("--dataset_dir", help="Data root of the manifest; default: the manifest's folder.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose 'preprocessing' is the chain; default: preprocess.json.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Overrides the configuration's image_size.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, by default one per core; 0 for this one.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler (tcp://host:8786) whose workers see the same folders.")
    ] = None,
    allow_raw_ids: Annotated[bool, typer.Option(help="Accept ids that equal the DICOM PatientID.")] = False,
) -> None:
    """Prepare every image of a manifest into the image store; a second run finds all done, a killed one goes on."""
    from monai.bundle import ConfigParser

    from pipeline.cohort.preparing import prepare_manifest

    parser = ConfigParser()
    parser.read_config(config or bundle_file("preprocess.json"))
    if image_size is not None:
        parser["image_size"] = image_size
    try:
        told = prepare_manifest(
            path,
            out=out,
            preprocessing=parser.get_parsed_content("preprocessing"),
            dataset_dir=dataset_dir,
            workers=workers,
            scheduler=scheduler,
            allow_raw_ids=allow_raw_ids,
        )
    except KeyboardInterrupt as stop:
        raise typer.Exit(STOPPED) from stop
    typer.echo(told)
