"""Small made-up mammograms for the tests of imaging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def breast_mask(height: int, width: int, *, chest_wall: str = "left", size: float = 0.62) -> np.ndarray:
    """Half an ellipse at the chest wall, bool (H, W)."""
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - height / 2) / (0.38 * height)) ** 2 + (columns / (size * width)) ** 2 < 1
    return mask if chest_wall == "left" else mask[:, ::-1]


def breast_scene(
    height: int, width: int, *, chest_wall: str = "left", background: float = 0.05, noise: float = 0.01, seed: int = 0
) -> np.ndarray:
    """A breast with some texture on a noisy background, float (H, W) in [0, 1]."""
    random = np.random.default_rng(seed)
    texture = np.kron(random.random((height // 10 + 1, width // 10 + 1)), np.ones((10, 10)))[:height, :width]
    mask = breast_mask(height, width, chest_wall=chest_wall)
    scene = np.where(mask, 0.45 + 0.3 * texture, background) + noise * random.standard_normal((height, width))
    return np.clip(scene, 0, 1)


def write_png(path: Path, scene: np.ndarray, *, bits: int = 8) -> Path:
    """Write a scene in [0, 1] as grey PNG of 8 or 16 bits."""
    levels = np.rint(scene * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(levels).save(path)
    return path


def mammogram_dataset(stored: np.ndarray, **tags: object) -> Dataset:
    """A 12-bit For Presentation object, left CC, with changes; a value of None removes the tag."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["scene"])
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "SECRET-4711"
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.ImageLaterality, dataset.ViewPosition = "L", "CC"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write_dicom(path: Path, stored: np.ndarray, **tags: object) -> Path:
    """Write :func:`mammogram_dataset` to a file."""
    mammogram_dataset(stored, **tags).save_as(path, enforce_file_format=True)
    return path


def oblique_scene(
    height: int,
    width: int,
    *,
    chest_wall: str = "left",
    across: float = 0.45,
    down: float = 0.55,
    step: float = 0.25,
    noise: float = 0.01,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An oblique view: breast to the upper border, muscle bounded by a line from ``across`` to ``down``.

    ``across`` is a share of the width at the top, ``down`` of the height at the chest wall, ``step`` the muscle's
    brightness over the breast's. Gives scene, breast and muscle, (H, W).
    """
    rows, columns = np.mgrid[:height, :width]
    lower = ((rows - 0.55 * height) / (0.4 * height)) ** 2 + (columns / (0.7 * width)) ** 2 < 1
    upper = (rows < 0.55 * height) & (columns < (0.5 + 0.2 * np.sin(np.pi * rows / (1.1 * height))) * width)
    breast = lower | upper
    muscle = breast & (columns / (across * width) + rows / (down * height) < 1)
    random = np.random.default_rng(seed)
    texture = np.kron(random.random((height // 10 + 1, width // 10 + 1)), np.ones((10, 10)))[:height, :width]
    scene = np.where(breast, 0.4 + 0.1 * texture, 0.05) + step * muscle + noise * random.standard_normal(breast.shape)
    parts = (np.clip(scene, 0, 1), breast, muscle)
    if chest_wall == "right":
        parts = (parts[0][:, ::-1], parts[1][:, ::-1], parts[2][:, ::-1])
    return parts
