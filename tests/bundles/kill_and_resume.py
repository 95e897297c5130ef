"""Proof by brute force that a killed and resumed run ends as one that was not.

`python tests/bundles/kill_and_resume.py --kills 20` trains the main job to its end, then again, killed (SIGKILL) at
random moments from its start on and resumed each time. Weights, optimiser, history and scores must be the same bits;
times are left out.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {
    "phantom": {"patients": 20, "seed": 0, "height": 96, "workers": 1}, "image_size": 32,
    "network_def#width": 0.0625, "start_epoch": 1, "steps": 2, "test_budgets": [0.001], "test#gallery#patients": 1,
    "effort": "none",
    "device": "$torch.device('cpu')",
}  # fmt: skip


def start(folder: Path, name: str, epochs: int, *, resume: bool) -> subprocess.Popen[bytes]:
    """The main job in a process of its own."""
    places = {"dataset_dir": folder / "phantoms", "store_dir": folder / "store", "output_dir": folder / "runs"}
    settings = SMALL | places | {"run_name": name, "max_epochs": epochs, "resume": resume}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "bundles/arfl/train.json"]
    command += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)


def kill_and_resume(folder: Path, *, kills: int, epochs: int, seed: int = 0) -> dict[str, float]:
    """Run the proof in `folder`.

    Args:
        kills: how often the run is killed before it may end.
        epochs: length of the run; it must be long enough not to end before the last kill.
        seed: of the moments.

    Returns:
        How often it was killed, and after how many finished epochs (as a list of numbers in `after`).

    Raises:
        AssertionError: a run failed, ended too early, or the two ended differently.
    """
    assert start(folder, "warm", 1, resume=False).wait() == 0, "a run of one epoch failed"  # makes the phantoms
    began = time.monotonic()
    whole = start(folder, "whole", epochs, resume=False)
    first = folder / "runs" / "whole" / "checkpoints" / "latest.pt"
    while not first.is_file() and whole.poll() is None:
        time.sleep(0.05)
    until_first = time.monotonic() - began
    assert whole.wait() == 0, "the uninterrupted run failed"
    # From the very start to some epochs beyond the first checkpoint.
    few = 4 * (time.monotonic() - began - until_first) / epochs
    moments = random.Random(seed)
    latest = folder / "runs" / "killed" / "checkpoints" / "latest.pt"
    after: list[int] = []
    for number in range(kills):
        process = start(folder, "killed", epochs, resume=True)
        span = until_first + few
        if number == kills - 1 and not latest.is_file():
            # One kill at least falls behind a finished epoch, also where starting took longer than it did before.
            while not latest.is_file() and process.poll() is None:
                time.sleep(0.05)
            span = few
        try:
            process.wait(moments.uniform(0, span))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:
            raise AssertionError(f"the run ended (status {process.returncode}) before kill {len(after) + 1} of {kills}")
        after.append(torch.load(latest, weights_only=True)["epoch"] if latest.is_file() else 0)
    assert start(folder, "killed", epochs, resume=True).wait() == 0, "the resumed run failed"
    # Each attempt begins where the one before ended, the last one too; a run that began anew would end the same.
    assert after == sorted(after) and after[-1] > 0, f"finished epochs at the kills: {after}"
    said = (folder / "killed.log").read_text(encoding="utf-8", errors="replace")
    assert f"resumed after epoch {after[-1]} " in said, said[-2000:]
    states = [
        torch.load(folder / "runs" / name / "checkpoints/latest.pt", weights_only=True) for name in ("whole", "killed")
    ]
    assert states[0]["epoch"] == states[1]["epoch"] == epochs
    for part in ("network", "optimizer"):
        pairs = zip(_tensors(states[0][part]), _tensors(states[1][part]), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs), f"{part} differs"
    tables = [pd.read_csv(folder / "runs" / name / "history.csv") for name in ("whole", "killed")]
    timed = [column for column in tables[0] if column.startswith("seconds_")]
    pd.testing.assert_frame_equal(*(table.drop(columns=timed) for table in tables))
    scores = [(folder / "runs" / name / "scores.csv").read_bytes() for name in ("whole", "killed")]
    assert scores[0] == scores[1], "scores.csv differs"
    return {"kills": len(after), "after": after}


def _tensors(content: object) -> list[torch.Tensor]:
    """All numbers of a nested state, in order."""
    if isinstance(content, dict):
        return [tensor for key in sorted(content, key=str) for tensor in _tensors(content[key])]
    if isinstance(content, list | tuple):
        return [tensor for entry in content for tensor in _tensors(entry)]
    return [torch.as_tensor(content)] if isinstance(content, torch.Tensor | int | float | bool) else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        print(kill_and_resume(Path(root), **vars(arguments)))
