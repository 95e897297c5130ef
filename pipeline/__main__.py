"""The commands: `python -m pipeline COMMAND --help`."""

from __future__ import annotations

import typer

from pipeline.cohort.command import manifest, prepare
from pipeline.evaluation.command import predict
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
app.command()(predict)
app.command()(report)


if __name__ == "__main__":
    import pipeline.runs  # noqa: F401  (prints our own innermost error last)

    app()
