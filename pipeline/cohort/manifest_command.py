"""The commands ``manifest cmmd | ddsm | folder``, which write a manifest and what was left out, and ``whose``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer

if TYPE_CHECKING:
    from pipeline.cohort.sources.listing import Listing

manifest = typer.Typer(help="Write the manifest of a data set.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Manifest to write (CSV); what was left out goes to NAME.rejects.csv.")]


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
    from pipeline.cohort.sources.ddsm import ddsm_manifest
    from pipeline.cohort.sources.listing import summary, write_csv

    write_csv(ddsm_manifest(root), out)
    read = read_manifest(out, dataset_dir=root)
    typer.echo(summary(read).to_string())
    typer.echo(f"manifest: {out} ({len(read)} images of {read['patient_id'].nunique()} patients below {root})")
    typer.echo(_next(out, root, public=False))


@manifest.command()
def cmmd(
    root: Annotated[Path, typer.Option(help="Folder of the archive's download, either layout; the data root.")],
    clinical: Annotated[Path, typer.Option(help="CMMD_clinicaldata_revision.xlsx, or the same as CSV.")],
    out: Out,
) -> None:
    """Write the manifest of a download of CMMD; its ids are public pseudonyms and are kept."""
    from pipeline.cohort.sources.cmmd import cmmd_manifest
    from pipeline.cohort.sources.listing import rejects_path, summary

    listing = cmmd_manifest(root, clinical, apart_from=(out, rejects_path(out)))
    parts = {name: summary(rows) for name, rows in listing.manifest.groupby("vendor")}
    _write(listing, out, root, public=True, table=pd.concat({**parts, "all": summary(listing.manifest)}))


@manifest.command()
def folder(
    root: Annotated[Path, typer.Option(help="Folder of DICOM files, however deep; the data root, unless --links.")],
    labels: Annotated[list[Path], typer.Option(help="Table of labels (CSV or XLSX); may be given several times.")],
    id_columns: Annotated[
        str,
        typer.Option(
            help="Columns that join rows to files, as COLUMN=KEYWORD,...; keywords: PatientID, AccessionNumber, "
            "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, FileName. A column called so needs no '='."
        ),
    ],
    label_column: Annotated[str, typer.Option(help="Column of the label.")],
    malignant: Annotated[str, typer.Option(help="Words of the label column that mean 1, for example M,malignant,1.")],
    benign: Annotated[str, typer.Option(help="Words that mean 0, for example B,benign,normal,0.")],
    out: Out,
    unknown: Annotated[str, typer.Option(help="Words that mean unknown; an empty cell always does.")] = "",
    side_column: Annotated[str | None, typer.Option(help="Column of the side: L, R, left, right or empty.")] = None,
    view_column: Annotated[str | None, typer.Option(help="Column of the view, where the tags lack it.")] = None,
    patient_column: Annotated[
        str | None, typer.Option(help="Column that tells patients apart, where the files lack PatientID.")
    ] = None,
    links: Annotated[
        Path | None,
        typer.Option(help="New folder of hard links under pseudonymous names; it becomes the data root."),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Kinds of unusual images to list: spot_compression, magnification, ...; the reader of the preparation "
            "must keep the same."
        ),
    ] = "implant,implant_displaced",
    for_processing: Annotated[
        str, typer.Option(help="refuse raw images, or log: list them; the reader must show them.")
    ] = "refuse",
    public_ids: Annotated[
        bool, typer.Option("--public-ids", help="The ids are public pseudonyms already: keep them and the paths.")
    ] = False,
) -> None:
    """Write the manifest of any DICOM tree and a table of labels, with pseudonyms in place of its ids."""
    from pipeline.cohort.pseudonyms import open_pseudonyms
    from pipeline.cohort.sources.folder import folder_manifest
    from pipeline.cohort.sources.labels import LabelColumns
    from pipeline.cohort.sources.listing import rejects_path, summary

    columns = LabelColumns(
        ids=dict(_pair(word) for word in _words(id_columns)),
        label=label_column,
        malignant=_words(malignant),
        benign=_words(benign),
        unknown=_words(unknown),
        side=side_column,
        view=view_column,
        patient=patient_column,
    )
    places = [root] if links is None else [root, links]
    pseudonyms = None if public_ids else open_pseudonyms(apart_from=places)
    listing = folder_manifest(
        root,
        labels,
        columns,
        pseudonyms=pseudonyms,
        links=links,
        apart_from=(out, rejects_path(out)),
        keep=_words(keep),
        for_processing=for_processing,
    )
    _write(
        listing, out, links or root, public=public_ids, table=summary(listing.manifest),
        more=_ways_in(listing.rejects, kept=_words(keep)),
        key="" if pseudonyms is None else pseudonyms.fingerprint,
    )  # fmt: skip


@manifest.command()
def whose(
    names: Annotated[list[str], typer.Argument(metavar="PSEUDONYM...", help="f-..., p-... or s-... of a manifest.")],
    root: Annotated[Path, typer.Option(help="Folder of the archive, as given to 'manifest folder'.")],
) -> None:
    """Print the files of an archive that pseudonyms stand for; needs their key. Paths may name patients."""
    from pipeline.cohort.pseudonyms import PseudonymKeyError, key_path, open_pseudonyms
    from pipeline.cohort.sources.whose import files_of

    if not key_path().is_file():
        raise PseudonymKeyError(f"there is no pseudonym key at {key_path()}; only the key that made them leads back")
    pseudonyms = open_pseudonyms(apart_from=[root])
    found = files_of(root, names, pseudonyms=pseudonyms)
    for name, paths in found.items():
        for path in paths or [f"no file below {root} with the key of fingerprint {pseudonyms.fingerprint}"]:
            typer.echo(f"{name}: {path}")
    if not all(found.values()):
        raise typer.Exit(1)


def _write(
    listing: Listing,
    out: Path,
    root: Path,
    *,
    public: bool,
    table: pd.DataFrame,
    more: list[str] | None = None,
    key: str = "",
) -> None:
    """Write both tables, check the manifest as every reader will, and print the summary and the next step."""
    from pipeline.cohort.manifest import read_manifest
    from pipeline.cohort.sources.listing import rejects_path, write_csv

    write_csv(listing.manifest, out)
    write_csv(listing.rejects, rejects_path(out))
    read = read_manifest(out, dataset_dir=root, allow_raw_ids=public)
    typer.echo(table.to_string())
    for code, count in listing.rejects["code"].value_counts().sort_index().items():
        typer.echo(f"left out as {code}: {count}")
    typer.echo(f"left out: {len(listing.rejects)} entries in {rejects_path(out)}")
    for note in (*listing.notes, *(more or ())):
        typer.echo(f"- {note}")
    typer.echo("- only headers were read: cut or damaged pixels are found when audit or prepare reads the images")
    typer.echo(f"manifest: {out} ({len(read)} images of {read['patient_id'].nunique()} patients)")
    if key:
        typer.echo(f"pseudonyms: made with the key of fingerprint {key}")
    if public:
        typer.echo("its ids are those of the files: bundle --cohort#allow_raw_ids True, prepare --allow-raw-ids")
    typer.echo(_next(out, root, public=public))


def _next(out: Path, root: Path, *, public: bool) -> str:
    """The command that comes next."""
    words = ["python", "-m", "pipeline", "audit", str(out), "--dataset_dir", str(root)]
    return f"next: {shlex.join([*words, *(['--allow-raw-ids'] if public else [])])}"


def _ways_in(rejects: pd.DataFrame, *, kept: tuple[str, ...]) -> list[str]:
    """Options that list what was left out by policy."""
    from pipeline.imaging import RefusalCode
    from pipeline.imaging.special import Special

    reasons = rejects.loc[rejects["code"] == RefusalCode.SPECIAL_IMAGE, "reason"]
    kinds = [kind for kind in Special if reasons.str.contains(f"'{kind}'", regex=False).any()]
    ways = []
    if kinds:
        listed = ",".join([*kept, *kinds])
        ways.append(f"--keep {listed} lists the special images too; the reader (ReadMammogramd) must keep the same")
    if (rejects["code"] == RefusalCode.NOT_FOR_PRESENTATION).any():
        ways.append("--for-processing log lists the For Processing images too; the reader must have the same")
    return ways


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _pair(word: str) -> tuple[str, str]:
    column, _, keyword = word.partition("=")
    return column.strip(), (keyword or column).strip()
