"""The last line of a failed run is our own innermost error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.networks import WeightsError, vgg16
from pipeline.runs import CheckpointError
from pipeline.runs.errors import install_error_printer, own_error

ROOT = Path(__file__).parents[2]


def last_line(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0 and "Traceback" in done.stderr
    return done.stderr.rstrip("\n").splitlines()[-1]


def test_our_own_error_is_the_last_line_although_monai_wraps_it() -> None:
    code = """
import pipeline.runs
from monai.bundle import ConfigParser
parser = ConfigParser({"network": {"_target_": "pipeline.networks.vgg16", "weights": None}})
parser.get_parsed_content("network")
"""
    line = last_line(code)
    assert line.startswith("WeightsError: weights: nothing chosen; allowed are")


def test_an_error_that_is_not_ours_and_an_interruption_are_printed_as_ever(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    install_error_printer()
    install_error_printer()  # twice changes nothing
    sys.excepthook(KeyError, KeyError("theirs"), None)
    assert capsys.readouterr().err == "KeyError: 'theirs'\n"
    sys.excepthook(KeyboardInterrupt, chain(WeightsError("before"), KeyboardInterrupt()), None)
    assert capsys.readouterr().err.splitlines()[-1] == "KeyboardInterrupt"
    sys.excepthook(RuntimeError, chain(WeightsError("ours"), RuntimeError("theirs")), None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "WeightsError: ours" and lines[-3] == "RuntimeError: theirs"


def chain(*errors: BaseException) -> BaseException:
    """The last error, each raised from the one before."""
    for cause, effect in zip(errors, errors[1:], strict=False):
        effect.__cause__ = cause
    return errors[-1]


def test_the_innermost_of_our_errors_is_taken() -> None:
    inner = WeightsError("inner")
    assert own_error(chain(OSError(), inner, RuntimeError(), CheckpointError("outer"), RuntimeError())) is inner


def test_a_plain_error_raised_in_our_code_counts_too() -> None:
    with pytest.raises(ValueError) as raised:
        vgg16(weights="none", width=0)
    assert own_error(chain(raised.value, RuntimeError("wrapped"))) is raised.value


def test_our_class_goes_before_the_plain_error_that_it_explains() -> None:
    with pytest.raises(ValueError) as raised:
        vgg16(weights="none", width=0)
    explained = CheckpointError("what to do")
    assert own_error(chain(raised.value, explained, RuntimeError())) is explained


def test_errors_of_others_and_suppressed_ones_are_not_ours() -> None:
    assert own_error(chain(OSError(), RuntimeError())) is None
    hidden = RuntimeError()
    hidden.__context__, hidden.__suppress_context__ = WeightsError("hidden"), True
    assert own_error(hidden) is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", "nowhere", "--checkpoint", "none.pt"], "CheckpointError: no checkpoint 'none.pt'"),
        (["manifest", "ddsm", "--root", "nowhere", "--out", "x.csv"], "CohortError: nowhere/labels.csv does not exist"),
    ],
)
def test_a_command_that_fails_says_why_and_shows_no_traceback(tmp_path, command: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"\n{message}" in f"\n{done.stderr}"
