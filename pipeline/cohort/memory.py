"""What the preparation stage remembers of files: their digest, and why they were refused, so nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from pipeline.cohort.workers import Outcome, Task, image_key
from pipeline.imaging import ImageStore, RefusalCode
from pipeline.imaging.refusal import PASSING

FILE = "known_files.jsonl"
TRIED_AGAIN = {RefusalCode.CRASHED, RefusalCode.HUNG, RefusalCode.OUT_OF_MEMORY}
LASTING = set(RefusalCode) - TRIED_AGAIN
"""Codes that tell of the file itself."""
SETTLED_AFTER = 2.0  # seconds; a file changed just now may change again within the clock tick of its file system


class Memory:
    """Digests of files by path, size, time of change and id, and the refusals, kept in one file of the store.

    The file holds digests only: no path and no id can be read from it. A line is added per image, in one write per
    batch, so that runs may share the store; lines that a killed run left broken are passed over.

    Args:
        store: the image store.
        chain_name: digest of the preparation chain.
    """

    def __init__(self, store: ImageStore, chain_name: str) -> None:
        self._store = store
        self._path = store.root / FILE
        self._chain_name = chain_name
        self._files, self._refusals, self._broken = _load(self._path)
        self._news: list[str] = []

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
        if self._store.get(key) is None:
            return None
        return Outcome(prepared=key, file_digest=file_digest, raw_id=raw_id)

    def note(self, task: Task, outcome: Outcome) -> None:
        """Remember an outcome; a reject that may be the machine's doing (``TRIED_AGAIN``) is not."""
        fingerprint = _fingerprint(task)
        if fingerprint is None or not outcome.file_digest:
            return
        if self._files.get(fingerprint) != (outcome.file_digest, outcome.raw_id):
            self._files[fingerprint] = (outcome.file_digest, outcome.raw_id)
            self._news.append(json.dumps(["file", fingerprint, outcome.file_digest, outcome.raw_id]))
        key = image_key(outcome.file_digest, self._chain_name, task)
        if outcome.code in set(RefusalCode) - PASSING and key not in self._refusals:
            self._refusals[key] = (outcome.code, outcome.reason)
            self._news.append(json.dumps(["refusal", key, outcome.code, outcome.reason]))

    def save(self) -> None:
        """Add what is new to the file, in one write."""
        if not self._news:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = ("\n" if self._broken else "") + "\n".join(self._news) + "\n"
        with self._path.open("ab", buffering=0) as stream:
            stream.write(text.encode())
        self._news, self._broken = [], False


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


def _load(path: Path) -> tuple[dict[str, tuple[str, bool]], dict[str, tuple[str, str]], bool]:
    """Files, refusals, and whether the file ends in the middle of a line."""
    files: dict[str, tuple[str, bool]] = {}
    refusals: dict[str, tuple[str, str]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return files, refusals, False
    for line in text.splitlines():
        try:
            kind, name, *rest = json.loads(line)
            if kind == "file":
                digest, raw_id = rest
                files[name] = (str(digest), bool(raw_id))
            elif kind == "refusal":
                code, reason = rest
                refusals[name] = (str(code), str(reason))
        except (ValueError, TypeError):
            continue
    return files, refusals, bool(text) and not text.endswith("\n")
