"""What the preparation stage remembers of files: their digest, and why they were refused, so nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from pipeline.cohort.workers import Outcome, Task, image_key
from pipeline.imaging import ImageStore, RefusalCode

FILE = "known_files.json"
SETTLED_AFTER = 2.0  # seconds; a file changed just now may change again within the clock tick of its file system


class Memory:
    """Digests of files by path, size, time of change and id, and the refusals, kept in one JSON file of the store.

    The file holds digests only: no path and no id can be read from it. A damaged one is begun anew.

    Args:
        store: the image store.
        root: folder of the store, where the file lies.
        chain_name: digest of the preparation chain.
    """

    def __init__(self, store: ImageStore, root: Path, chain_name: str) -> None:
        self._store = store
        self._path = Path(root) / FILE
        self._chain_name = chain_name
        self._files, self._refusals = _load(self._path)
        self._news = False

    def recall(self, task: Task) -> Outcome | None:
        """Give the outcome of an image if it is known and, for a prepared one, still in the store; else None."""
        fingerprint = _fingerprint(task)
        if fingerprint is None or fingerprint not in self._files:
            return None
        file_digest, raw_id = self._files[fingerprint]
        key = image_key(file_digest, self._chain_name, task)
        if key in self._refusals:
            code, reason = self._refusals[key]
            return Outcome(code=code, reason=reason, file_digest=file_digest, raw_id=raw_id)
        path = self._store.get(key)
        return None if path is None else Outcome(prepared=str(path), file_digest=file_digest, raw_id=raw_id)

    def note(self, task: Task, outcome: Outcome) -> None:
        """Remember an outcome. Refusals are the file's own; "unexpected" and "crashed" are tried again next time."""
        fingerprint = _fingerprint(task)
        if fingerprint is None or not outcome.file_digest:
            return
        self._files[fingerprint] = (outcome.file_digest, outcome.raw_id)
        if outcome.code in set(RefusalCode):
            self._refusals[image_key(outcome.file_digest, self._chain_name, task)] = (outcome.code, outcome.reason)
        self._news = True

    def save(self) -> None:
        """Write the file, under a temporary name first; what another run wrote meanwhile is kept."""
        if not self._news:
            return
        files, refusals = _load(self._path)
        text = json.dumps({"files": files | self._files, "refusals": refusals | self._refusals})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=FILE, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, self._path)


def _fingerprint(task: Task) -> str | None:
    """Digest of path, size, time of change and id; None where there is no file or it changed just now."""
    try:
        status = os.stat(task.path)
    except OSError:
        return None
    if time.time() - status.st_mtime < SETTLED_AFTER:
        return None
    text = f"{os.path.realpath(task.path)}|{status.st_size}|{status.st_mtime_ns}|{task.patient_id}"
    return hashlib.sha256(text.encode()).hexdigest()


def _load(path: Path) -> tuple[dict[str, tuple[str, bool]], dict[str, tuple[str, str]]]:
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (digest, raw_id) for name, (digest, raw_id) in memory["files"].items()}
        refusals = {name: (code, reason) for name, (code, reason) in memory["refusals"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}
    return files, refusals
