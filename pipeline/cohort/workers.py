"""One image to prepare, what became of it, and the loop of a process that prepares images one after the other."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

import torch
from monai.transforms import Compose
from pydicom.dataset import Dataset
from threadpoolctl import threadpool_limits

from pipeline.cohort.limits import limit_worker
from pipeline.cohort.marks import marks_of, read_marks
from pipeline.cohort.raw_ids import is_raw_id
from pipeline.imaging import ImageStore, Refusal, RefusalCode, chain_digest, explain, prepare_item
from pipeline.imaging.isolation import MEMORY_LIMIT, allow_memory, watched_process
from pipeline.imaging.parsing import showing

READY = "ready"
CRASHED = RefusalCode.CRASHED.value
ENVIRONMENT = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
} | {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**29)}  # fmt: skip
"""Environment of a worker process. Cores are shared out by processes, not by threads. The C library (glibc; others pass
the names over) keeps up to 512 MiB from image to image: new pages for every picture took a quarter of the time."""


@dataclass(frozen=True)
class Task:
    """One image to prepare: where it stands in the manifest, its file, and what the manifest says about it."""

    index: int
    path: str
    laterality: str
    view: str
    patient_id: str


@dataclass(frozen=True)
class Outcome:
    """What became of one image: a key in the store, or a code and a reason.

    Args:
        prepared: key of the picture in the store, "" for a reject.
        code: "" for a prepared image, else a ``RefusalCode`` or "unexpected".
        reason: why it was rejected.
        file_digest: SHA-256 of the file, "" where it could not be read.
        raw_id: the manifest's patient_id is the PatientID of the file.
        sop_uid, stored: of a prepared image, see :class:`~pipeline.cohort.marks.Marks`.
        seconds: time that the image took; 0 for one that was known.
    """

    prepared: str = ""
    code: str = ""
    reason: str = ""
    file_digest: str = ""
    raw_id: bool = False
    sop_uid: str = ""
    stored: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to know; plain text, so that only a worker process ever unpacks the chain.

    Args:
        content: the chain and the store, packed.
        chain_name: digest of the chain, which a worker with other code would not have.
    """

    content: str
    chain_name: str

    @classmethod
    def of(cls, chain: Compose, store: ImageStore) -> Setup:
        """Pack a chain and a store; the store's folder becomes absolute."""
        content = pickle.dumps((chain, ImageStore(store.root.absolute())))
        return cls(content=base64.b64encode(content).decode(), chain_name=chain_digest(chain))

    def unpacked(self) -> tuple[Compose, ImageStore]:
        """The chain and the store."""
        return pickle.loads(base64.b64decode(self.content))


def image_key(file_digest: str, chain: str, task: Task) -> str:
    """Key of a prepared image: ``ImageStore.key`` with the digest "chain|laterality|view", from a known file digest.

    The side and view of the manifest are in it: they decide about a file without a header (PNG) and conflict with one
    that has another, and the same bytes may stand in a manifest twice.
    """
    return hashlib.sha256(f"{file_digest}:{chain}|{task.laterality}|{task.view}".encode()).hexdigest()


def prepare_one(task: Task, chain: Compose, store: ImageStore, chain_name: str) -> Outcome:
    """Prepare one image into the store, unless it is there; any error of the image becomes the outcome."""
    started = time.perf_counter()
    outcome = _prepared(task, chain, store, chain_name)
    return replace(outcome, seconds=round(time.perf_counter() - started, 4))


def _prepared(task: Task, chain: Compose, store: ImageStore, chain_name: str) -> Outcome:
    file_digest, raw_id = "", False
    try:
        file_digest = _digest(Path(task.path))
        raw_id = is_raw_id(Path(task.path), task.patient_id)
        key = image_key(file_digest, chain_name, task)
        seen: list[Dataset] = []
        if store.get(key) is None:
            with showing(seen.append):
                item = prepare_item(chain, {"image": task.path, "laterality": task.laterality, "view": task.view})
            store.put(key, item["image"], {str(name): value for name, value in item.items()})
        marks = marks_of(seen[-1]) if seen else read_marks(Path(task.path))
    except Exception as error:  # whatever one image does, the run goes on; the code and the place are kept
        code, reason = explain(error)
        return Outcome(code=code, reason=reason, file_digest=file_digest, raw_id=raw_id)
    return Outcome(prepared=key, file_digest=file_digest, raw_id=raw_id, sop_uid=marks.sop_uid, stored=marks.stored)


def serve() -> None:
    """Be a worker process: a :class:`Setup` and then tasks come in by lines of JSON, outcomes go out by such lines.

    The images are prepared in a fork of this process, which reports its number first. Where it ends in the middle of an
    image, ``CRASHED`` goes out and another fork takes over, which costs nothing, since torch and MONAI are loaded. All
    ends with the input, so that no process outlives the one that started it. What libraries print goes nowhere: it may
    quote a header.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    torch.set_num_threads(1)
    threadpool_limits(1)
    setup = Setup(**json.loads(sys.stdin.readline()))
    chain, store = setup.unpacked()
    if chain_digest(chain) != setup.chain_name:
        answers.write(json.dumps("this worker has other code than the process that asks; install the same version"))
        return
    answers.write(json.dumps(READY) + "\n")
    os.dup2(silence, 2)
    while True:
        runner = os.fork() if hasattr(os, "fork") else 0
        if runner == 0:
            _work(chain, store, setup.chain_name, answers)
            os._exit(0)
        if os.waitpid(runner, 0)[1] == 0:
            return
        answers.write(json.dumps(CRASHED) + "\n")


def _work(chain: Compose, store: ImageStore, chain_name: str, answers: TextIO) -> None:
    """Prepare the images whose tasks come in, one after the other, to the end of the input.

    This process may take so much more memory than it has now, and is watched by the one that asks, so that decoding
    needs no child of its own.
    """
    allow_memory(MEMORY_LIMIT)
    watched_process()
    limit_worker()
    answers.write(json.dumps(os.getpid()) + "\n")
    for line in sys.stdin:
        outcome = prepare_one(Task(**json.loads(line)), chain, store, chain_name)
        answers.write(json.dumps(asdict(outcome)) + "\n")


def _digest(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe that would never end
            raise Refusal(RefusalCode.MISSING_FILE, "no file of that name below the data root")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refusal(RefusalCode.MISSING_FILE, "no file of that name below the data root") from error
    except OSError as error:
        reason = f"the file cannot be opened: {error.strerror or type(error).__name__}"
        raise Refusal(RefusalCode.UNREADABLE, reason) from error
