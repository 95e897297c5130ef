"""The command `report`: build the page of a run directory again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>, with at least scores.csv.")],
    within_breast: Annotated[
        str | None, typer.Option(help="Pooling of the views of a breast, mean or max; the run's own where left out.")
    ] = None,
    across_breasts: Annotated[
        str | None, typer.Option(help="Pooling of a patient's breasts, max or mean; the run's own where left out.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of patients.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print report.pdf (extra pdf, Chromium).")] = False,
    compare: Annotated[Path | None, typer.Option(metavar="RUN2", help="Another run on the same patients.")] = None,
) -> None:
    """Write report.json and report.html from a run directory's files."""
    from pipeline.report.write import write_report

    page = write_report(
        run,
        within_breast=within_breast,
        across_breasts=across_breasts,
        resamples=resamples,
        seed=seed,
        compare=compare,
    )
    typer.echo(f"report: {page}")
    if pdf:
        from pipeline.report.pdf import write_pdf

        typer.echo(f"pdf: {write_pdf(page)}")
