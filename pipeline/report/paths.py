"""Paths in a report: folders may name people and places, so that only the last part of a path is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import PureWindowsPath
from typing import Any

PLACES = frozenset(
    ["manifest", "dataset_dir", "dicom_manifest", "dicom_dir", "store_dir", "output_dir", "weights", "initial_weights",
     "surrogate", "bundle_root", "root"]
)  # fmt: skip
"""Entries of a configuration that are paths, relative ones too."""

_FOLDERS = re.compile(r"(?<![\w.:/…])(?:~|[A-Za-z]:)?[/\\]{1,2}(?:[^\s/\\'\",\]\[]+[/\\])+")
_QUOTED = re.compile(r"(?P<quote>['\"])(?P<path>(?:~|[A-Za-z]:)?[/\\][^'\"]*)(?P=quote)")
_ABSOLUTE = re.compile(r"(?:~|[A-Za-z]:)?[/\\]")
_OURS = ("bundles/", "pipeline/")


def short_paths(value: Any, key: str = "") -> Any:
    """The value with every path in its texts cut to its last part.

    Args:
        value: JSON values.
        key: the entry that holds it: those of `PLACES` are paths as a whole, "checkpoint" is one whose run is named,
            "command" is a command line.
    """
    if isinstance(value, dict):
        return {name: short_paths(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [short_paths(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("$", "@", "%")):
        return _in_text(value)
    if key == "checkpoint":
        return last_parts(value, 3)
    if key == "command":
        return _command(value)
    return last_parts(value) if key in PLACES or _ABSOLUTE.match(value) else _in_text(value)


def last_parts(path: str, count: int = 1) -> str:
    """The last parts of a path of any system, behind "…/" where others were cut; the package's own paths stay."""
    parts = PureWindowsPath(path).parts
    if path.startswith(_OURS) or len(parts) <= count:
        return path
    return "/".join(["…", *parts[-count:]])


def _in_text(text: str) -> str:
    quoted = _QUOTED.sub(lambda found: found["quote"] + last_parts(found["path"]) + found["quote"], text)
    return _FOLDERS.sub("…/", quoted)


def _command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        return _in_text(text)
    return shlex.join(_word(word) for word in words)


def _word(word: str) -> str:
    name, sign, value = word.partition("=")
    if sign and name.startswith("-"):
        return f"{name}={_word(value)}"
    if word.startswith(("[", "{", "(", "$")):
        return _in_text(word)
    return last_parts(word)
