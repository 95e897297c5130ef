"""The smallest grid that trains, scores and reports for real."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {
    "phantom": {"patients": 20, "seed": 0, "height": 96, "workers": 1},
    "image_size": 32,
    "steps": 1,
    "test_budgets": [0.001],
    "test#gallery#patients": 1,
    "effort": "none",
    "device": "$torch.device('cpu')",
}


@pytest.fixture(scope="session")
def places(tmp_path_factory) -> dict[str, str]:
    """Phantoms and prepared images, shared by all cells of the tests."""
    root = tmp_path_factory.mktemp("grid-data")
    return {"dataset_dir": str(root / "phantoms"), "store_dir": str(root / "store")}


@pytest.fixture(scope="session")
def command(places):
    """Command line of `table` or `sweep` on the small grid."""

    def line(name: str, *arguments: str, out: Path) -> list[str]:
        settings = SMALL | places
        chosen = [text for key, value in settings.items() for text in ("--set", f"{key}={_text(value)}")]
        return [
            sys.executable, "-m", "pipeline", name, *arguments, "--preset", "smoke", "--attacks", "0.001",
            "--out", str(out), *chosen,
        ]  # fmt: skip

    return line


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
