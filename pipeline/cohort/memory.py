"""What the preparation stage remembers of files: their digests, and why they were refused, so nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cohort.workers import Outcome, Task, image_key
from pipeline.imaging import ImageStore, RefusalCode
from pipeline.imaging.refusal import PASSING

FILE = "known_files.jsonl"
TRIED_AGAIN = {RefusalCode.CRASHED, RefusalCode.HUNG, RefusalCode.OUT_OF_MEMORY}
LASTING = set(RefusalCode) - TRIED_AGAIN
"""Codes that tell of the file itself."""
SETTLED_AFTER = 2.0  # seconds; a file changed just now may change again within the clock tick of its file system


@dataclass(frozen=True)
class _Known:
    """What is known of a file; ``sop_uid`` and ``stored`` of one that was prepared (``pipeline.cohort.marks``)."""

    digest: str
    raw_id: bool
    sop_uid: str = ""
    stored: str = ""


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
        known = self._files[fingerprint]
        key = image_key(known.digest, self._chain_name, task)
        if key in self._refusals:
            code, reason = self._refusals[key]
            return Outcome(code=code, reason=reason, file_digest=known.digest, raw_id=known.raw_id)
        if self._store.get(key) is None or not known.stored:
            return None
        return Outcome(
            prepared=key,
            file_digest=known.digest,
            raw_id=known.raw_id,
            sop_uid=known.sop_uid,
            stored=known.stored,
        )

    def note(self, task: Task, outcome: Outcome) -> None:
        """Remember an outcome; a reject that may be the machine's doing (``TRIED_AGAIN``) is not."""
        fingerprint = _fingerprint(task)
        if fingerprint is None or not outcome.file_digest:
            return
        known = _Known(outcome.file_digest, outcome.raw_id, outcome.sop_uid, outcome.stored)
        before = self._files.get(fingerprint)
        if before is not None and before.digest == known.digest and not known.stored:  # refused for another side
            known = replace(known, sop_uid=before.sop_uid, stored=before.stored)
        if before != known:
            self._files[fingerprint] = known
            self._news.append(
                json.dumps(["file", fingerprint, known.digest, known.raw_id, known.sop_uid, known.stored])
            )
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
    """Digest of path, size, times of change and id; None where there is no file or it changed just now.

    ``cp -p``, ``rsync -a`` and a swap of names keep or set the time of the content (mtime), and never that of the inode
    (ctime). Where a network drive gives other ctimes to other machines, a file is read once more by each.
    """
    try:
        status = os.stat(task.path)
    except OSError:
        return None
    if time.time() - status.st_mtime < SETTLED_AFTER:
        return None
    times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
    text = f"{os.path.realpath(task.path)}|{status.st_size}|{times}|{task.patient_id}"
    return hashlib.sha256(text.encode()).hexdigest()


def _load(path: Path) -> tuple[dict[str, _Known], dict[str, tuple[str, str]], bool]:
    """Files, refusals, and whether the file ends in the middle of a line."""
    files: dict[str, _Known] = {}
    refusals: dict[str, tuple[str, str]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return files, refusals, False
    for line in text.splitlines():
        try:
            kind, name, *rest = json.loads(line)
            if kind == "file":
                digest, raw_id, *marks = rest  # lines of earlier versions have no marks
                sop_uid, stored = marks or ("", "")
                files[name] = _Known(str(digest), bool(raw_id), str(sop_uid), str(stored))
            elif kind == "refusal":
                code, reason = rest
                refusals[name] = (str(code), str(reason))
        except (ValueError, TypeError):
            continue
    return files, refusals, bool(text) and not text.endswith("\n")
