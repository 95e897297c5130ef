"""Two processes against one, with torchrun on the CPU (gloo)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from .conftest import BUNDLE, SMALL


def run(root: Path, name: str, *, ranks: int, overlays=("multi_gpu_train.json",), leave_out=(), **changes) -> Path:
    """Run directory of the main job on `ranks` processes."""
    files = [str(BUNDLE / file) for file in ("train.json", *overlays)]
    settings = {key: value for key, value in SMALL.items() if key not in ("device", *leave_out)} | {
        "dataset_dir": str(root / "phantoms"), "store_dir": str(root / "store"), "output_dir": str(root / "runs"),
        "run_name": name, "device": "$torch.device('cpu')",
    }  # fmt: skip
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "monai.bundle", "run", "--config_file", str(files)]
    command += [text for key, value in (settings | changes).items() for text in (f"--{key}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=BUNDLE.parents[1], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "runs" / name


def test_two_ranks_score_the_same_patients_once_with_the_same_scores(trained, root):
    shutil.copytree(trained, root / "runs" / "scored")
    run(root, "scored", ranks=2, overlays=("evaluate.json", "multi_gpu_evaluate.json"), leave_out=("image_size",))
    one, two = (pd.read_csv(root / "runs" / name / "scores.csv") for name in ("trained", "scored-evaluation"))
    assert not two.duplicated(["image_id", "attack_id"]).any()
    keys = ["attack_id", "image_id", "patient_id", "patient_label", "partition"]
    pd.testing.assert_frame_equal(one[keys], two[keys])
    assert (one["logit"] - two["logit"]).abs().max() <= 1e-6
    metrics = [
        json.loads((root / "runs" / name / "report.json").read_text()) for name in ("trained", "scored-evaluation")
    ]
    assert metrics[0]["robustness"] == metrics[1]["robustness"] and metrics[0]["patients"] == metrics[1]["patients"]


def test_two_ranks_train_with_the_batches_of_one(trained, root):
    method = "dual_arfl"  # it has all that the others have
    # Without a random start the attack is the same on one rank and on two, but for signs of gradients near 0: a small
    # budget keeps what they change small. Under SGD the weights' change is linear in the gradients. 14 training
    # patients have 56 images, 7 batches of 8.
    changes = {
        "max_epochs": 2, "batch_size": 8, "test_budgets": "[]", "attack#random_start": False,
        "budget": 1e-4,
        "network_def#dropout": 0.0, "train#optimizer#_target_": "torch.optim.SGD", "learning_rate": 1e-3,
    }  # fmt: skip
    names = [f"{method}-one-rank", f"{method}-two-ranks", f"{method}-start"]
    overlays = (f"methods/{method}.json",)
    run(root, names[0], ranks=1, overlays=overlays, **changes)
    run(root, names[1], ranks=2, overlays=(*overlays, "multi_gpu_train.json"), **changes)
    still = changes | {"max_epochs": 1, "learning_rate": 1e-12}
    run(root, names[2], ranks=1, overlays=overlays, **still)
    one, two, start = (torch.load(root / "runs" / name / "checkpoints/latest.pt", weights_only=True) for name in names)
    assert one["iteration"] == two["iteration"] == 14
    change, other = (
        torch.cat([(state["network"][name] - weight).flatten() for name, weight in start["network"].items()])
        for state in (one, two)
    )
    assert (change - other).norm() <= 1e-3 * change.norm()
    losses = [pd.read_csv(root / "runs" / name / "history.csv")["classification_loss"] for name in names[:2]]
    assert (losses[0] - losses[1]).abs().max() < 1e-3
