"""One small run of the main job for all tests of the bundle."""

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parents[2] / "bundles" / "arfl"
SMALL = {
    "phantom": {"patients": 20, "seed": 0, "height": 96, "workers": 1},
    "image_size": 32,
    "network_def#width": 0.0625,
    "max_epochs": 2,
    "start_epoch": 1,
    "steps": 1,
    "test_budgets": [0.001, 0.01],
    "test#gallery#patients": 1,
    "effort": "none",
    "device": torch.device("cpu"),
}


def workflow(root: Path, *overlays: str, workflow_type: str = "train", main: str = "train.json", small=None, **changes):
    """The bundle with small settings, everything it writes below `root`."""
    places = {"dataset_dir": str(root / "phantoms"), "store_dir": str(root / "store"), "output_dir": str(root / "runs")}
    settings = ((SMALL if small is None else small) | places if main == "train.json" else {}) | changes
    files = [str(BUNDLE / name) for name in (main, *overlays)]
    return ConfigWorkflow(config_file=files, workflow_type=workflow_type, logging_file=False, **settings)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("bundle")


@pytest.fixture(scope="session")
def trained(root):
    """Run directory of method F, trained, scored and reported."""
    job = workflow(root, run_name="trained")
    job.initialize()
    job.run()
    return root / "runs" / "trained"
