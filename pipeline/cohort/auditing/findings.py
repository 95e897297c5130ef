"""One finding of an audit: what it is, how grave, and whom it concerns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SHOWN = 5  # patients or images named in a message; the JSON holds all of them


class Severity(StrEnum):
    """A leak makes test figures wrong and ends the command with 1; a warning wants a look; a note is for the reader."""

    LEAK = "leak"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        code: stable name, such as ``patient_in_two_partitions``.
        severity: leak, warning or note.
        message: what was found, where, and what to do next.
        patients: pseudonyms concerned.
        images: images concerned, as the manifest writes them.
    """

    code: str
    severity: Severity
    message: str
    patients: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "message": self.message,
            "patients": list(self.patients),
            "images": list(self.images),
        }


def some(names: list[str] | tuple[str, ...]) -> str:
    """The first names in words, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
