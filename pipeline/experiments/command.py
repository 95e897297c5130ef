"""The commands `table` and `sweep`: an experiment from a manifest to the paper's tables and figures."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import bundle_file
from pipeline.experiments.published import PAPER_ROWS, PUBLISHED
from pipeline.experiments.variants import GridError, Variant, variant

# The paper's rows, and rows A and F on the network with normalisation layers that row G needs.
METHODS = ",".join([*PAPER_ROWS, "standard_norm", "dual_arfl_norm"])
SWEPT = {
    "standard_ratio": ("standard_ratio", "0.25,0.5,0.75"),
    "weight": ("arfl_weight", "0.1,1,10,100"),
    "budget": ("budget", "0.005,0.01,0.05,0.1"),
}

Manifest = Annotated[str, typer.Argument(metavar="MANIFEST", help="Manifest (CSV), or 'phantoms'.")]
DatasetDir = Annotated[Path | None, typer.Option("--dataset_dir", help="Data root of the manifest.")]
Out = Annotated[Path, typer.Option(help="Folder of the experiment: cells, logs, tables, figures.")]
Folds = Annotated[str, typer.Option(help="Number of folds that are run, or their list, e.g. 5 or 0,2.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="paper (default), phantoms (default for phantoms), ddsm200, ddsm500, smoke, demo, or a configuration file "
        "laid over the methods."
    ),
]
Weights = Annotated[str | None, typer.Option(help="imagenet, the path of a state dict, or none.")]
Attacks = Annotated[str, typer.Option(help="Test budgets of PGD, comma-separated.")]
StartEpochs = Annotated[
    int,
    typer.Option(
        "--start_epochs", help="Epochs of standard training per fold from which every method starts; 0 for none.", min=0
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of every run.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE for every run, e.g. network_def#width=0.5.")]
Jobs = Annotated[int, typer.Option(help="Cells at the same time on this machine.", min=1)]
Ranks = Annotated[int, typer.Option(help="Processes of one cell (torchrun), e.g. the number of GPUs.", min=1)]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler, e.g. tcp://node1:8786.")]
Resamples = Annotated[int, typer.Option(help="Bootstrap resamples of patients.", min=100)]


def table(
    manifest: Manifest,
    dataset_dir: DatasetDir = None,
    out: Out = Path("runs/table"),
    methods: Annotated[
        str, typer.Option(help="Comma-separated; terms after a plus, e.g. trades+arfl,dual+awp.")
    ] = METHODS,
    folds: Folds = "5",
    preset: Preset = None,
    weights: Weights = None,
    attacks: Attacks = "0.0001,0.001,0.01",
    start_epochs: StartEpochs = 0,
    seed: Seed = 0,
    settings: Set = None,
    jobs: Jobs = 1,
    ranks: Ranks = 1,
    scheduler: Scheduler = None,
    published: Annotated[str | None, typer.Option(help="cmmd or upmc: the paper's figures beside ours.")] = None,
    resamples: Resamples = 2000,
) -> None:
    """Train and test every method on every fold, and write the paper's table with intervals and tests."""
    from pipeline.experiments.outcome import write_outcome

    if published is not None and published not in PUBLISHED:
        raise GridError(f"--published {published!r} is unknown; allowed are {', '.join(PUBLISHED)}")
    chosen = [variant(name) for name in dict.fromkeys(name.strip() for name in methods.split(","))]
    shared = _shared(manifest, dataset_dir, preset, weights, attacks, seed, settings, ranks)
    cells = [shared.cell(each, fold, start_epochs) for fold in _folds(folds) for each in chosen]
    shelf, failures = _run(shared, cells, out, jobs, scheduler)
    for line in write_outcome(shelf, cells, published=published, resamples=resamples, seed=seed):
        typer.echo(line)
    if failures:
        raise typer.Exit(code=1)


def sweep(
    parameter: Annotated[str, typer.Argument(help=f"One of {', '.join(SWEPT)}.")],
    manifest: Manifest,
    dataset_dir: DatasetDir = None,
    out: Out = Path("runs/sweep"),
    values: Annotated[str | None, typer.Option(help="Comma-separated; default: the paper's range.")] = None,
    method: Annotated[str, typer.Option(help="The method that is varied; the paper varies row F.")] = "dual_arfl",
    folds: Folds = "5",
    preset: Preset = None,
    weights: Weights = None,
    attacks: Attacks = "0.0001,0.001,0.01",
    start_epochs: StartEpochs = 0,
    seed: Seed = 0,
    settings: Set = None,
    jobs: Jobs = 1,
    ranks: Ranks = 1,
    scheduler: Scheduler = None,
) -> None:
    """Vary one factor around a method and draw its panel of the paper's Figure 3; sweeps of one --out share it."""
    from pipeline.experiments.outcome import write_sweep

    if parameter not in SWEPT:
        raise GridError(f"parameter {parameter!r} is unknown; allowed are {', '.join(SWEPT)}")
    key, default = SWEPT[parameter]
    chosen = variant(method)
    if not chosen.carries(key):
        raise GridError(f"sweep {parameter}: {method} does not depend on {key}; vary it in another method")
    shared = _shared(manifest, dataset_dir, preset, weights, attacks, seed, settings, ranks)
    cells = [
        shared.cell(chosen, fold, start_epochs, key=key, value=value)
        for fold in _folds(folds)
        for value in _numbers(values or default, "values")
    ]
    shelf, failures = _run(shared, cells, out, jobs, scheduler)
    for line in write_sweep(shelf, cells, parameter, method=method):
        typer.echo(line)
    if failures:
        raise typer.Exit(code=1)


class _Shared:
    """What all cells of a call have in common."""

    def __init__(self, settings: dict[str, Any], presets: tuple[Path, ...], digest: str, ranks: int) -> None:
        self.settings = settings
        self.presets = presets
        self.digest = digest
        self.ranks = ranks

    def cell(
        self, chosen: Variant, fold: int, start_epochs: int, *, key: str | None = None, value: float | None = None
    ) -> Any:
        from pipeline.experiments.cells import Cell

        settings = self.settings | {"fold": fold}
        start = None
        if start_epochs:
            first = settings | {"max_epochs": start_epochs, "val_interval": start_epochs, "test_budgets": []}
            # Networks with domains start from the plain network too: their normalisations are put in afterwards.
            start = Cell(variant("standard"), fold, first, self.presets, self.digest, ranks=self.ranks)
            settings = {k: v for k, v in settings.items() if k != "initial_weights"}  # the start begins there
        if key is not None:
            settings = settings | {key: value}
        return Cell(chosen, fold, settings, self.presets, self.digest, start, value, self.ranks)


def _shared(
    manifest: str,
    dataset_dir: Path | None,
    preset: str | None,
    weights: str | None,
    attacks: str,
    seed: int,
    settings: Sequence[str] | None,
    ranks: int,
) -> _Shared:
    values: dict[str, Any] = {"seed": seed, "test_budgets": _numbers(attacks, "attacks")}
    digest = ""
    if manifest != "phantoms":
        path = Path(manifest)
        if not path.is_file():
            raise GridError(f"no manifest {manifest!r}; give a CSV file, or 'phantoms' for simulated patients")
        if dataset_dir is None or not dataset_dir.is_dir():
            found = "missing" if dataset_dir is None else f"{str(dataset_dir)!r}, no folder"
            raise GridError(f"--dataset_dir is {found}; give the data root of {manifest}")
        if weights is None:
            raise GridError("--weights: nothing chosen; allowed are imagenet, the path of a state dict, or none")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        values |= {"manifest": str(path.resolve()), "dataset_dir": str(dataset_dir.resolve())}
    elif dataset_dir is not None:
        values["dataset_dir"] = str(dataset_dir.resolve())  # where the phantoms are built
    if weights not in (None, "imagenet", "none") and not Path(str(weights)).is_file():
        raise GridError(f"--weights: no file {weights!r}; allowed are imagenet, the path of a state dict, or none")
    if weights is not None:
        values["weights"] = weights if weights in ("imagenet", "none") else str(Path(weights).resolve())
    for entry in settings or []:
        key, separator, text = entry.partition("=")
        if not separator:
            raise GridError(f"--set {entry!r} is no KEY=VALUE, e.g. --set learning_rate=0.001")
        values[key] = _literal(text)
    return _Shared(values, _preset_files(preset or ("phantoms" if manifest == "phantoms" else "paper")), digest, ranks)


def _preset_files(preset: str) -> tuple[Path, ...]:
    folder = bundle_file("train.json").parent
    known = {path.stem: path for path in (folder / "presets").glob("*.json")} | {"paper": folder / "paper.json"}
    if preset in known:
        return (known[preset],)
    if Path(preset).is_file():
        return (Path(preset).resolve(),)
    if preset == "demo":
        return ()
    raise GridError(f"preset {preset!r} is unknown; allowed are {', '.join(sorted(known))}, demo, or a JSON file")


def _run(shared: _Shared, cells: list[Any], out: Path, jobs: int, scheduler: str | None) -> tuple[Any, list[str]]:
    from pipeline.experiments.grid import check, disk_line, open_shelf, prepare, run_grid, with_starts

    shelf = open_shelf(out, shared.digest)
    ordered = with_starts(cells)
    sizes = check(ordered)
    left = sum(not shelf.done(cell) for cell in ordered)
    typer.echo(f"cells: {len(ordered)} ({left} to run) in {shelf.cells}")
    typer.echo(disk_line(sizes, shelf, ordered, jobs=jobs))
    prepare(shelf, ordered[0])
    failures = run_grid(shelf, ordered, jobs=jobs, scheduler=scheduler)
    for line in failures:
        typer.echo(f"failed: {line}", err=True)
    return shelf, failures


def _folds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise GridError(f"--folds {text!r}: give a number of folds, 1 to 5, or a list such as 0,2") from error
    found = list(range(found[0])) if "," not in text else list(dict.fromkeys(found))
    if not found or any(not 0 <= fold < 5 for fold in found):
        raise GridError(f"--folds {text!r}: folds are 0 to 4; give a number of folds, 1 to 5, or a list such as 0,2")
    return found


def _numbers(text: str, name: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise GridError(f"--{name} {text!r}: give numbers separated by commas") from error
    if min(found) < 0:
        raise GridError(f"--{name} {text!r}: allowed are numbers from 0 on")
    return list(dict.fromkeys(found))


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
