"""The phantom cohort in place of a manifest: found by its settings, built where it is not there yet."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cohort.errors import CohortError


def phantom_manifest(phantom: Mapping[str, Any], *, default_dir: str | Path | None = None) -> Path:
    """Find the phantom cohort of these settings, and build it where it is not there yet.

    Args:
        phantom: arguments of ``pipeline.phantom.write_cohort`` and ``dir``, the folder that holds the cohorts.
        default_dir: taken when ``dir`` is not given.

    Returns:
        Path of the cohort's manifest.csv, in a folder named by the settings.

    Raises:
        CohortError: an unknown setting, or no folder given.
    """
    from pipeline.phantom import write_cohort  # costly to import, and needed without a manifest only

    parameters = inspect.signature(write_cohort).parameters
    settings = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    unknown = [name for name in phantom if name != "dir" and name not in settings]
    if unknown:
        raise CohortError(f"phantom has unknown settings {', '.join(unknown)}; allowed: dir, {', '.join(settings)}")
    parent = phantom.get("dir", default_dir)
    if parent is None:
        raise CohortError("no manifest and no folder for phantoms: set manifest, or phantom['dir'], or dataset_dir")
    settings.update({name: value for name, value in phantom.items() if name != "dir"})
    named = {name: value for name, value in settings.items() if name != "workers"}
    written = json.dumps(named, sort_keys=True, default=str)
    name = f"phantoms-{named['patients']}-seed{named['seed']}-{hashlib.sha256(written.encode()).hexdigest()[:8]}"
    folder = Path(parent) / name
    if not (folder / "manifest.csv").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_cohort(folder, **settings)
    return folder / "manifest.csv"
