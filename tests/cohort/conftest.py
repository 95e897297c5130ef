"""Small pictures, manifests and chains for the tests of the cohort room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.transforms import Compose
from PIL import Image

from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
)


def write_picture(path: Path, seed: int, *, height: int = 96, width: int = 80) -> None:
    """Write a grey PNG of a half-ellipse with texture, an hour old, as a file that no longer changes."""
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) / (0.45 * height)) ** 2 + (columns / (0.75 * width)) ** 2 < 1
    texture = np.random.default_rng(seed).normal(140, 20, (height, width))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(inside, texture, 2).clip(0, 255).astype(np.uint8)).save(path)
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)


@pytest.fixture(scope="session")
def chain() -> Compose:
    """The whole preparation at 32 pixels."""
    key = "image"
    steps = [ReadMammogramd(key), ApplyWindowd(key), SegmentBreastd(key), CropToBreastd(key), OrientChestWalld(key)]
    return Compose([*steps, ResizeImaged(key, image_size=32)])


@pytest.fixture
def exams(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """A function that writes one CC picture per breast and the manifest of so many patients, every second malignant.

    The left breast of a malignant patient is labelled 1 and the right one unknown; benign ones are 0 on both sides.
    """

    def write(patients: int, root: Path = tmp_path) -> pd.DataFrame:
        rows = []
        for number in range(patients):
            malignant = number % 2
            for side in "LR":
                image = f"p{number:03d}/{side}.png"
                write_picture(root / image, seed=2 * number + (side == "R"))
                label = "" if malignant and side == "R" else malignant
                rows.append((image, f"p{number:03d}", side, "CC", label, malignant))
        columns = ["image", "patient_id", "laterality", "view", "label", "patient_label"]
        manifest = pd.DataFrame(rows, columns=columns)
        manifest.to_csv(root / "manifest.csv", index=False)
        return manifest

    return write
