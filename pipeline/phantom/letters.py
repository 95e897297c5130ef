"""Side and view letters burned into the picture."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_letters"]

_GLYPHS = {
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "C": ("01110", "10001", "10000", "10000", "10000", "10001", "01110"),
    "M": ("10001", "11011", "10101", "10101", "10001", "10001", "10001"),
    "O": ("01110", "10001", "10001", "10001", "10001", "10001", "01110"),
    " ": ("00000",) * 7,
}


def draw_letters(text: str, *, height: int) -> np.ndarray:
    """Text of R, L, C, M, O and blanks in a 5 x 7 dot matrix, about `height` pixels high; bool (rows, columns)."""
    columns = [np.array([[c == "1" for c in line] + [False] for line in _GLYPHS[letter]]) for letter in text]
    scale = max(round(height / 7), 1)
    return np.kron(np.hstack(columns)[:, :-1], np.ones((scale, scale), dtype=bool)).astype(bool)
