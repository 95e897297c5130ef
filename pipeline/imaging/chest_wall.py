"""The edge of a picture at which the breast touches the chest wall, by its pixels."""

from __future__ import annotations

import numpy as np


def chest_wall_of(columns: np.ndarray) -> str:
    """Edge ("left" or "right") at which the breast is broader, from the number of its pixels in each column (W,)."""
    first, last = int(np.argmax(columns > 0)), columns.size - int(np.argmax(columns[::-1] > 0))
    strip = max((last - first) // 8, 1)
    return "left" if columns[first : first + strip].sum() >= columns[last - strip : last].sum() else "right"
