"""From what a configuration names, a manifest or phantoms, to the listed images and the root below which they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cohort.errors import CohortError
from pipeline.cohort.manifest import read_manifest
from pipeline.cohort.phantoms import phantom_manifest


def listed_images(
    manifest: str | Path | None,
    *,
    dataset_dir: str | Path | None,
    phantom: Mapping[str, Any] | None,
    allow_raw_ids: bool,
    progress: bool,
) -> tuple[pd.DataFrame, Path]:
    """Read the manifest, or that of the phantoms where there is none, which are built if need be.

    Args:
        manifest: a manifest file; None for phantoms.
        dataset_dir: data root of the manifest, by default its folder; for phantoms, the folder to build them in.
        phantom: settings of the phantoms.
        allow_raw_ids: accept ids that equal a DICOM PatientID.
        progress: show a bar while phantoms are built.

    Returns:
        The table of `read_manifest` and the data root.

    Raises:
        CohortError: no such folder; ManifestError lists every bad row.
    """
    if manifest is None:
        manifest = phantom_manifest(phantom or {}, default_dir=dataset_dir, progress=progress)
        dataset_dir = manifest.parent
    root = Path(dataset_dir) if dataset_dir is not None else Path(manifest).parent
    if not root.is_dir():
        raise CohortError(f"the data root {root} is not a folder; set dataset_dir to where the manifest's paths begin")
    return read_manifest(manifest, dataset_dir=root, allow_raw_ids=allow_raw_ids), root


def refuse_none(prepared: pd.DataFrame, rejects: pd.DataFrame, root: Path) -> None:
    """Raise CohortError where not one image could be prepared: then the data root is wrong, not the images."""
    if prepared.empty:
        first = rejects.iloc[0]
        raise CohortError(
            f"none of the {len(rejects)} images could be prepared; the first, {first['image']}: {first['code']}, "
            f"{first['reason']}. Is {root} the folder that the manifest's paths begin in? (dataset_dir)"
        )
