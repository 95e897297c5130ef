"""The commands: `python -m pipeline COMMAND --help`."""

from __future__ import annotations

import sys

import typer

from pipeline.cohort.auditing.command import audit
from pipeline.cohort.command import prepare
from pipeline.cohort.manifest_command import manifest
from pipeline.evaluation.command import predict
from pipeline.experiments.command import sweep, table
from pipeline.phantom.command import phantom
from pipeline.report.command import report

app = typer.Typer(
    help="Breast-cancer classifiers under adversarial attack. Training: python -m monai.bundle run --config_file "
    "bundles/arfl/train.json. Research use only, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(phantom)
app.add_typer(manifest, name="manifest")
app.command()(prepare)
app.command()(audit)
app.command()(predict)
app.command()(table)
app.command()(sweep)
app.command()(report)


def main() -> None:
    """Run a command; an error class of this package speaks for itself, anything else keeps its traceback."""
    from pipeline.runs.errors import is_own, own_error

    try:
        app()
    except Exception as error:
        own = own_error(error)
        if own is None or not is_own(own):
            raise
        print(f"{type(own).__name__}: {own}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
