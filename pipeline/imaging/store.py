"""The content-addressed store of prepared images: 16-bit NIfTI with a JSON sidecar, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor

from pipeline.imaging.preparation import Preparation

LEVELS = 65535
"""Grey levels of a stored image; a value moves by at most 1 / (2 * LEVELS)."""

SIDECAR_KEYS = ("preparation", "provenance", "laterality", "view", "spacing_mm")
"""What a sidecar may hold: facts about the picture, no ids."""


class ImageStore:
    """Prepared images by content: the key is made of the file's bytes and the chain's digest.

    A picture is complete once its ``.nii`` exists: the sidecar is put in place first, both under a temporary name.

    Args:
        root: folder of the store, made when the first picture is put.
    """

    def __init__(self, root: str | PathLike[str]) -> None:
        self.root = Path(root)

    def key(self, path: str | PathLike[str], digest: str) -> str:
        """Key of a file prepared by a chain: SHA-256 of the file's bytes and the digest of :func:`chain_digest`."""
        with Path(path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(f"{content}:{digest}".encode()).hexdigest()

    def path(self, key: str) -> Path:
        """Where the picture of a key lies or would lie."""
        return self.root / key[:2] / f"{key}.nii"

    def get(self, key: str) -> Path | None:
        """Path of the prepared picture, None if it is not in the store."""
        path = self.path(key)
        return path if path.is_file() else None

    def put(self, key: str, image: Tensor, sidecar: Mapping[str, Any]) -> Path:
        """Keep a prepared picture.

        Args:
            key: from :meth:`key`.
            image: float32 (1, H, W) in [0, 1].
            sidecar: any of ``preparation``, ``provenance``, ``laterality``, ``view``, ``spacing_mm``; other entries,
                such as ids, are not written.

        Returns:
            Path of the picture.

        Raises:
            ValueError: for another shape, values outside [0, 1] or NaN.
        """
        values = image.detach().cpu().numpy()
        if values.ndim != 3 or values.shape[0] != 1:
            raise ValueError(f"prepared image has shape {values.shape}: (1, H, W) needed")
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"prepared image spans {values.min()} to {values.max()}: [0, 1] needed")
        record = {name: sidecar[name] for name in SIDECAR_KEYS if name in sidecar}
        preparation = record.get("preparation")
        spacing = record.get("spacing_mm")
        if isinstance(preparation, Preparation):
            record["preparation"] = preparation.to_dict()
            if spacing is not None:
                record["prepared_spacing_mm"] = list(preparation.spacing(tuple(spacing)))
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path.with_suffix(".json"), json.dumps(record, indent=1).encode())
        _replace(path, _nifti(values[0], record.get("prepared_spacing_mm")))
        return path

    def sidecar(self, path: str | PathLike[str]) -> dict[str, Any]:
        """Sidecar of a stored picture; ``preparation`` is a :class:`Preparation` again."""
        record = json.loads(Path(path).with_suffix(".json").read_text())
        if "preparation" in record:
            record["preparation"] = Preparation.from_dict(record["preparation"])
        return record

    def load(self, path: str | PathLike[str]) -> Tensor:
        """Prepared picture, float32 (1, H, W) in [0, 1]."""
        return load_prepared(path)


def load_prepared(path: str | PathLike[str]) -> Tensor:
    """Load a prepared picture as a plain tensor, float32 (1, H, W) in [0, 1]."""
    picture: Any = nibabel.load(path)
    levels = np.asarray(picture.dataobj.get_unscaled())
    if levels.dtype != np.uint16 or levels.ndim != 2:
        raise ValueError(f"{path} holds {levels.dtype} of shape {levels.shape}: no prepared picture of this store")
    return torch.from_numpy(np.ascontiguousarray(levels.T).astype(np.float32) / np.float32(LEVELS))[None]


def _nifti(values: np.ndarray, spacing_mm: list[float] | None) -> bytes:
    """A picture (H, W) as NIfTI bytes, first axis along the columns as viewers expect."""
    row, column = spacing_mm or (1.0, 1.0)
    levels = np.rint(values.T * LEVELS).astype(np.uint16)
    picture = nibabel.Nifti1Image(levels, np.diag([-column, -row, 1.0, 1.0]))
    picture.header.set_slope_inter(1.0 / LEVELS, 0.0)
    picture.header.set_xyzt_units("mm" if spacing_mm else "unknown")
    return picture.to_bytes()


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same folder, then rename."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
