"""The commands of the cohort room: ``manifest ddsm`` writes a manifest, ``prepare`` fills the image store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import bundle_file

manifest = typer.Typer(help="Write the manifest of a data set.", no_args_is_help=True)


@manifest.callback()
def _manifest() -> None:
    """Write the manifest of a data set."""


@manifest.command()
def ddsm(
    root: Annotated[Path, typer.Option(help="Folder with labels.csv and images/; it becomes the data root.")],
    out: Annotated[Path, typer.Option(help="Manifest to write (CSV).")],
) -> None:
    """Write the manifest of a small four-view DDSM folder and print its summary."""
    from pipeline.cohort.manifest import read_manifest
    from pipeline.cohort.sources.ddsm import ddsm_manifest, summary

    table = ddsm_manifest(root)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    table.to_csv(temporary, index=False, float_format="%g")
    temporary.replace(out)
    read = read_manifest(out, dataset_dir=root)
    typer.echo(summary(read).to_string())
    typer.echo(f"manifest: {out} ({len(read)} images of {read['patient_id'].nunique()} patients below {root})")


def prepare(
    path: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest to prepare (CSV).")],
    root: Annotated[Path, typer.Option(help="Data root that the manifest's paths are relative to.")],
    store: Annotated[Path, typer.Option(help="Folder of the image store.")],
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose 'preprocessing' is the chain; default: the bundle's.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Overrides the configuration's image_size.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; 0 for this one, by default one per core.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Table of the rejected images to write (CSV).")] = None,
    allow_raw_ids: Annotated[bool, typer.Option(help="Accept ids that equal the DICOM PatientID.")] = False,
) -> None:
    """Prepare every image of a manifest into the image store; a second run finds everything done."""
    from monai.bundle import ConfigParser

    from pipeline.cohort.manifest import read_manifest
    from pipeline.cohort.preparing import prepare_images
    from pipeline.imaging import ImageStore

    listed = read_manifest(path, dataset_dir=root, allow_raw_ids=allow_raw_ids)
    parser = ConfigParser()
    parser.read_config(config or bundle_file("train.json"))
    if image_size is not None:
        parser["image_size"] = image_size
    prepared, rejected = prepare_images(
        listed,
        dataset_dir=root,
        chain=parser.get_parsed_content("preprocessing"),
        store=ImageStore(store),
        workers=workers,
        allow_raw_ids=allow_raw_ids,
    )
    if rejects is not None:
        rejected.to_csv(rejects, index=False)
    for code, count in rejected["code"].value_counts().items():
        typer.echo(f"rejected as {code}: {count}")
    typer.echo(f"prepared: {len(prepared)} of {len(listed)} images in {store}")
