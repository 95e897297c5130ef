"""Plain values: what may stand in report.json (no NaN, no NumPy types, no paths)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def plain(value: Any) -> Any:
    """Turn a value into JSON values; NaN, NA and infinities become None.

    Raises:
        TypeError: a value that has no JSON form.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in report.json; allowed are text, numbers, lists and tables")


def section(
    status: str = "given", *, reason: str | None = None, n: dict[str, int] | None = None, **content: Any
) -> dict[str, Any]:
    """The envelope of every section of report.json.

    Args:
        status: "given", "missing" (a file is not there) or "not_estimable" (the data do not allow it).
        reason: Why it is not given; required unless status is "given".
        n: What the section rests on, such as {"patients": 60, "images": 240}.
        **content: The section's own entries.
    """
    if (status == "given") == (reason is not None):
        raise ValueError("a section that is not given needs a reason, and one that is given has none")
    return {"status": status, "reason": reason, "n": n or {}, **content}
