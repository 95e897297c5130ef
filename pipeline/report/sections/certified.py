"""Section about certificates: what holds against every attack within an L2 radius, measured by evaluation."""

from __future__ import annotations

import math
from typing import Any

from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles

FILE = "artefacts/certified.json"
PLAIN_CHANGE = 0.01
"""The paper's largest budget: what it is in L2, everywhere in one view, shows how far certificates reach."""

KEYS = ("sigma", "draws", "alpha", "threshold", "radii", "seconds")


def certified_section(files: RunFiles) -> dict[str, Any]:
    """Content of artefacts/certified.json."""
    if files.certified is None:
        empty: dict[str, Any] = dict.fromkeys(KEYS) | {"radii": [], "plain_length": None}
        return section("missing", reason=files.missing[FILE], **empty)
    found = files.certified
    content: dict[str, Any] = found.model_dump(include=set(KEYS))
    content["plain_length"] = None if found.pixels is None else PLAIN_CHANGE * math.sqrt(found.pixels)
    n = {"patients": found.patients, "malignant": found.malignant, "images": found.images}
    first = found.radii[0].auc
    if first.value is None:
        return section("not_estimable", reason=first.reason, n=n, **content)
    return section(n=n, **content)
