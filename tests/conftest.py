"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each: spinning for taken cores costs ten times as much
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real images: environment ARFL_REAL_DATA, by default ../shared/data beside the repository."""
    folder = Path(os.environ.get("ARFL_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ARFL_REAL_DATA to its folder (see data_manifests/README.md)")
    return folder
