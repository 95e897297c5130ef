"""What an experiment leaves: tables, tests, claims and figures from the finished cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.experiments.cells import Cell, Shelf
from pipeline.experiments.claims import claims, verdicts
from pipeline.experiments.figures import budget_curve, sweep_figure
from pipeline.experiments.results import patient_scores
from pipeline.experiments.saliency_figure import saliency_figure
from pipeline.experiments.tables import as_text, comparisons, fold_aucs, paper_table, pooled_table, write_tables
from pipeline.runs.directory import write_atomically

SWEEPS = "sweeps"
PAPERS_OWN = "dual_arfl"


def write_outcome(
    shelf: Shelf, cells: Sequence[Cell], *, published: Any = None, resamples: int = 2000, seed: int = 0
) -> list[str]:
    """Write tables and figures of what is finished into the grid's folder.

    Args:
        shelf: the grid's folder.
        cells: those of the table, without the cells that they start from.
        published: "cmmd" or "upmc" puts the paper's figures beside ours.
        resamples: bootstrap resamples of patients.
        seed: of the resamples.

    Returns:
        Lines to print: the table, and where everything is.
    """
    done = [cell for cell in cells if shelf.done(cell)]
    scores = patient_scores(shelf, done).drop(columns="value")
    if scores.empty:
        return ["no cell is finished; nothing to tabulate"]
    tables = {
        "paper": paper_table(scores, published=published),
        "pooled": pooled_table(scores, resamples=resamples, seed=seed),
        "comparisons": comparisons(scores, resamples=resamples, seed=seed),
        "folds": fold_aucs(scores),
    }
    tables["claims"] = claims(
        scores,
        tables["comparisons"],
        sweeps=read_sweeps(shelf.folder, PAPERS_OWN),
        dataset=published,
        resamples=resamples,
        seed=seed,
    )
    files = write_tables(shelf.folder, tables)
    files += budget_curve(scores, shelf.folder)
    drawn, remark = _saliency(shelf, done)
    files += drawn
    missing = len(cells) - len(done)
    lines = [
        "AUC x 100 by patient, mean (SD) over folds:",
        as_text(tables["paper"]).to_string(index=False),
        "\nThe paper's claims, and what this run says of each (with figures in claims.md):",
        verdicts(tables["claims"]),
        "",
    ]
    if len(shelf.codes(done)) > 1:
        lines.append(f"the cells of these tables were made by {len(shelf.codes(done))} states of the code")
    if missing:
        lines.append(f"{missing} of {len(cells)} cells are not finished and not in these tables")
    lines += remark
    return [*lines, f"written to {shelf.folder}: {', '.join(sorted({file.name for file in files}))}"]


def write_sweep(shelf: Shelf, cells: Sequence[Cell], parameter: str, *, method: str = PAPERS_OWN) -> list[str]:
    """Write a sweep's AUCs and the figure of all sweeps of the method that lie in the grid's folder.

    Args:
        shelf: the grid's folder.
        cells: the sweep's.
        parameter: its name.
        method: that was varied; the figure of any but row F, which the paper varies, bears its name.

    Returns:
        Lines to print.
    """
    done = [cell for cell in cells if shelf.done(cell)]
    scores = patient_scores(shelf, done)
    if scores.empty:
        return ["no cell is finished; nothing to draw"]
    parts = [fold_aucs(part.drop(columns="value")).assign(value=value) for value, part in scores.groupby("value")]
    table = pd.concat(parts, ignore_index=True)
    folder = shelf.folder / SWEEPS / method
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{parameter}.csv", table.to_csv(index=False))
    name = "figure3" if method == PAPERS_OWN else f"figure3-{method}"
    files = sweep_figure(read_sweeps(shelf.folder, method), shelf.folder, name=name)
    summary = table.groupby(["value", "attack_id"])["auc"].agg(["mean", "std", "count"]).unstack("attack_id")["mean"]
    return [
        summary.mul(100).round(1).to_string(),
        f"written to {shelf.folder}: {SWEEPS}/{method}/{parameter}.csv, {', '.join(file.name for file in files)}; "
        "`table` with the same --out holds the paper's claims against it",
    ]


def read_sweeps(folder: Path, method: str) -> dict[str, pd.DataFrame]:
    """Sweeps of a method that earlier calls left in a grid's folder, by parameter."""
    return {path.stem: pd.read_csv(path) for path in sorted((folder / SWEEPS / method).glob("*.csv"))}


def _saliency(shelf: Shelf, done: Sequence[Cell]) -> tuple[list[Path], list[str]]:
    """Figure 2 from the first fold in which rows E and F are finished and kept their networks, or why there is none."""
    by_name = {(cell.variant.name, cell.fold): cell for cell in done}
    pairs = [
        (by_name["dual", fold], cell)
        for (name, fold), cell in sorted(by_name.items(), key=lambda entry: entry[0][1])
        if name == "dual_arfl" and ("dual", fold) in by_name
    ]
    for pair in pairs:
        without, with_arfl = (shelf.directory(cell) for cell in pair)
        if all((run / "checkpoints" / "best.pt").is_file() for run in (without, with_arfl)):
            # The folder may have moved since the run.
            places = {key: pair[1].settings[key] for key in ("manifest", "dataset_dir") if key in pair[1].settings}
            return saliency_figure(without, with_arfl, shelf.folder, places=places), []
    return [], ["Figure 2 was not drawn: the networks of rows E and F (checkpoints/best.pt) are gone"] if pairs else []
