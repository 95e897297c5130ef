"""Why an image was not used: one exception with a closed set of codes."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

UNEXPECTED = "unexpected"


class RefusalCode(StrEnum):
    """Reason codes, as they appear in ``rejects.csv``; ``docs/refusals.md`` says what each means and what to do."""

    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    BAD_HEADER = "bad_header"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    PIXEL_SIZE = "pixel_size"
    UNSUPPORTED_SYNTAX = "unsupported_syntax"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    NO_PIXELS = "no_pixels"
    NOT_MAMMOGRAM = "not_mammogram"
    SPECIAL_IMAGE = "special_image"
    NOT_FOR_PRESENTATION = "not_for_presentation"
    BAD_DISPLAY = "bad_display"
    NO_BREAST = "no_breast"
    UNKNOWN_SIDE = "unknown_side"
    UNKNOWN_VIEW = "unknown_view"
    SIDE_CONFLICT = "side_conflict"
    VIEW_CONFLICT = "view_conflict"
    OUT_OF_MEMORY = "out_of_memory"
    HUNG = "hung"
    CRASHED = "crashed"


PASSING = frozenset({RefusalCode.OUT_OF_MEMORY, RefusalCode.HUNG, RefusalCode.CRASHED})
"""Codes that may be the machine's doing, not the file's: such an image is tried again in the next run."""


class Refusal(Exception):
    """An image that cannot be used; the run goes on without it.

    Args:
        code: one of :class:`RefusalCode`, as member or string.
        reason: what was found, what is allowed and what to do next; free of personal data.
        where: path or pseudonymous id of the image, empty when not known yet.
    """

    def __init__(self, code: RefusalCode | str, reason: str, where: str = "") -> None:
        self.code = RefusalCode(code)
        self.reason = reason
        self.where = str(where)
        super().__init__(self.code, reason, self.where)

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}" + (f" [{self.where}]" if self.where else "")

    def at(self, where: object) -> Refusal:
        """Return the same refusal with ``where`` filled in, unless it already has a place."""
        return self if self.where else Refusal(self.code, self.reason, str(where))


def known(value: object, terms: Iterable[str]) -> str:
    """A coded value of a file for a message: quoted if it is one of the terms, else only said to be another.

    A tag that should hold a code may hold a name, an id or a date, which must not come into a log or a table.
    """
    text = str(value).strip()
    return repr(text) if text in set(terms) else "empty" if not text else "another value"


def refusal_of(error: BaseException | None) -> Refusal | None:
    """Find the refusal inside a chain of wrapped errors (MONAI's ``Compose`` raises ``RuntimeError`` from it)."""
    seen = 0
    while error is not None and seen < 32:
        if isinstance(error, Refusal):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def explain(error: Exception) -> tuple[str, str]:
    """Code and reason of an error met on an image: a refusal's own, else "unexpected" and where it happened.

    The text of an unexpected error is left out: it may hold pixel or header values.
    """
    refusal = refusal_of(error)
    if refusal is not None:
        return str(refusal.code), refusal.reason
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # the second is torch's
        return str(RefusalCode.OUT_OF_MEMORY), "preparing the image takes more memory than this process may use"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, {frames[-1].name}" if frames else ""
    return UNEXPECTED, type(error).__name__ + place
