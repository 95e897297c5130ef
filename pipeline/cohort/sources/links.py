"""A folder of hard links under pseudonymous names, for archives whose paths hold ids, names or dates."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.cohort.errors import CohortError


def check_links(root: Path, links: Path) -> None:
    """Raise when the folder of links and the archive lie in each other: the next run would read both.

    Raises:
        CohortError: they do.
    """
    home, place = root.resolve(), links.resolve()
    if place.is_relative_to(home) or home.is_relative_to(place):
        raise CohortError("--links must be a folder outside --root; it becomes the data root of the manifest")


def link_files(pairs: Iterable[tuple[Path, Path]]) -> tuple[int, int]:
    """Link files under new names, or copy them where the file system allows no link (another disk).

    Args:
        pairs: (file, new path). A new path that is the same file already is left alone, another one is replaced.

    Returns:
        How many are links, how many are copies.
    """
    linked = copied = 0
    for file, new in pairs:
        new.parent.mkdir(parents=True, exist_ok=True)
        if new.exists() and new.samefile(file):
            linked += 1
            continue
        temporary = new.with_name(f".{new.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            try:
                os.link(file.resolve(), temporary)  # resolved: a link to a link would keep the telling name
                linked += 1
            except OSError:
                shutil.copyfile(file, temporary)
                copied += 1
            os.replace(temporary, new)
        finally:
            temporary.unlink(missing_ok=True)
    return linked, copied
