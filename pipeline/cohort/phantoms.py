"""The phantom cohort in place of a manifest: found by its settings, built where it is not there yet."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.cohort.errors import CohortError

NOT_CONTENT = ("workers", "progress")  # arguments of write_cohort that do not change the files


def phantom_manifest(
    phantom: Mapping[str, Any], *, default_dir: str | Path | None = None, progress: bool = True
) -> Path:
    """Find the phantom cohort of these settings, and build it where it is not there yet.

    The folder is named by the settings and a digest of them and of the code that draws phantoms, so that neither
    another setting nor a changed phantom finds the files of before.

    Args:
        phantom: arguments of ``pipeline.phantom.write_cohort`` (patients, seed, height, difficulty, masks, workers)
            and ``dir``, the folder that holds the cohorts.
        default_dir: taken when ``dir`` is not given.
        progress: show a bar while building.

    Returns:
        Path of the cohort's manifest.csv.

    Raises:
        CohortError: an unknown setting, or no folder given.
    """
    from pipeline.phantom import write_cohort  # costly to import, and needed without a manifest only

    parameters = inspect.signature(write_cohort).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    unknown = [name for name in phantom if name != "dir" and name not in defaults]
    if unknown:
        raise CohortError(f"phantom has unknown settings {', '.join(unknown)}; allowed: dir, {', '.join(defaults)}")
    parent = phantom.get("dir") or default_dir
    if parent is None:
        raise CohortError("no manifest and no folder for phantoms: set manifest, or phantom['dir'], or dataset_dir")
    settings = defaults | {"progress": progress} | {name: value for name, value in phantom.items() if name != "dir"}
    folder = Path(parent) / _name(settings, write_cohort)
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        try:
            write_cohort(folder, **settings)
        except (OSError, ValueError):
            if not manifest.is_file():  # else another process built the same cohort meanwhile
                raise
    return manifest


def _name(settings: Mapping[str, Any], write_cohort: Callable[..., Path]) -> str:
    content = {name: value for name, value in settings.items() if name not in NOT_CONTENT}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    code = Path(inspect.getfile(write_cohort)).parent
    for source in [*sorted(code.glob("*.py")), code.parent / "imaging" / "writing.py"]:
        if source.is_file():
            digest.update(source.read_bytes())
    told = "-".join(str(content[name]) for name in ("patients", "seed", "height", "difficulty") if name in content)
    return f"phantoms-{told}-{digest.hexdigest()[:8]}"
