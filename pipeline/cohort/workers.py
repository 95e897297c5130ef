"""Preparing images in other processes: one task at a time, pools with one thread per worker, crashes held apart."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from threadpoolctl import threadpool_limits

from pipeline.cohort.errors import CohortError
from pipeline.cohort.raw_ids import is_raw_id
from pipeline.imaging import ImageStore, Refusal, RefusalCode, chain_digest, explain, prepare_item

CRASHED = "crashed"
BATCH = 8  # images per task: about a second of work, so a crash costs little and the queue costs nothing
IN_FLIGHT = 2  # batches handed out per worker


class WorkersError(CohortError):
    """Worker processes end before they do anything."""


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
    """What became of one image: a prepared path, or a code and a reason.

    Args:
        prepared: path in the store, "" for a reject.
        code: "" for a prepared image, else a ``RefusalCode``, "unexpected" or "crashed".
        reason: why it was rejected.
        file_digest: SHA-256 of the file, "" where it could not be read.
        raw_id: the manifest's patient_id is the PatientID of the file.
    """

    prepared: str = ""
    code: str = ""
    reason: str = ""
    file_digest: str = ""
    raw_id: bool = False


def image_key(file_digest: str, chain: str, task: Task) -> str:
    """Key of a prepared image: ``ImageStore.key`` with the digest "chain|laterality|view", from a known file digest.

    The side and view of the manifest are in it: they decide about a file without a header (PNG) and conflict with one
    that has another, and the same bytes may stand in a manifest twice.
    """
    return hashlib.sha256(f"{file_digest}:{chain}|{task.laterality}|{task.view}".encode()).hexdigest()


def prepare_one(task: Task, chain: Compose, store: ImageStore, chain_name: str) -> Outcome:
    """Prepare one image into the store, unless it is there; any error of the image becomes the outcome."""
    try:
        file_digest = _digest(Path(task.path))
    except Refusal as refusal:
        return Outcome(code=str(refusal.code), reason=refusal.reason)
    raw_id = is_raw_id(Path(task.path), task.patient_id)
    key = image_key(file_digest, chain_name, task)
    known = store.get(key)
    if known is not None:
        return Outcome(prepared=str(known), file_digest=file_digest, raw_id=raw_id)
    try:
        item = prepare_item(chain, {"image": task.path, "laterality": task.laterality, "view": task.view})
        path = store.put(key, item["image"], {str(name): value for name, value in item.items()})
    except Exception as error:  # whatever one image does, the run goes on; the code and the place are kept
        code, reason = explain(error)
        return Outcome(code=code, reason=reason, file_digest=file_digest, raw_id=raw_id)
    return Outcome(prepared=str(path), file_digest=file_digest, raw_id=raw_id)


def settle(tasks: list[Task], chain: Compose, store: ImageStore, workers: int) -> Iterator[tuple[Task, Outcome]]:
    """Prepare many images, in any order of completion.

    A process that ends takes its batch and the others under way with it: these are prepared again, one image at a
    time in one process, so that only the image that ends it is rejected as "crashed".

    Args:
        tasks: the images.
        chain: the preparation chain.
        store: the image store.
        workers: processes; 0 for this one.

    Yields:
        Each task with its outcome, once.

    Raises:
        WorkersError: processes end before they do anything.
    """
    if workers == 0:
        name = chain_digest(chain)
        for task in tasks:
            yield task, prepare_one(task, chain, store, name)
        return
    size = max(1, min(BATCH, math.ceil(len(tasks) / (workers * IN_FLIGHT))))
    waiting = deque(tasks[start : start + size] for start in range(0, len(tasks), size))
    suspects: list[Task] = []
    while waiting:
        with _open_pool(chain, store, workers) as pool:
            yield from _drain(pool, waiting, suspects, workers * IN_FLIGHT)
    while suspects:
        with _open_pool(chain, store, 1) as pool:
            while suspects:
                task = suspects.pop()
                try:
                    outcome = pool.submit(_run_batch, [task]).result()[0]
                except BrokenProcessPool:
                    yield task, Outcome(code=CRASHED, reason="the process that prepared the image ended")
                    break
                yield task, outcome


def _drain(
    pool: ProcessPoolExecutor, waiting: deque[list[Task]], suspects: list[Task], in_flight: int
) -> Iterator[tuple[Task, Outcome]]:
    """Feed a pool until nothing waits or it breaks; what was under way then becomes suspect."""
    running: dict[Future[list[Outcome]], list[Task]] = {}
    broken = False
    while running or (waiting and not broken):
        while waiting and not broken and len(running) < in_flight:
            try:
                running[pool.submit(_run_batch, waiting[0])] = waiting[0]
                waiting.popleft()
            except BrokenProcessPool:
                broken = True
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            batch = running.pop(future)
            try:
                outcomes = future.result()
            except BrokenProcessPool:
                broken = True
                suspects.extend(batch)
            else:
                yield from zip(batch, outcomes, strict=True)


def _open_pool(chain: Compose, store: ImageStore, workers: int) -> ProcessPoolExecutor:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__])  # torch and MONAI are imported once, not per worker
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(chain, store))
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        pool.shutdown(wait=False)
        raise WorkersError(
            "worker processes end as soon as they start. Either the calling script lacks the guard "
            "`if __name__ == '__main__':`, or there is no memory for them; workers=0 prepares in this process"
        ) from error
    return pool


_worker: dict[str, Any] = {}


def _start(chain: Compose, store: ImageStore) -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    _worker.update(chain=chain, store=store, name=chain_digest(chain))


def _run_batch(batch: list[Task]) -> list[Outcome]:
    return [prepare_one(task, _worker["chain"], _worker["store"], _worker["name"]) for task in batch]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refusal(RefusalCode.MISSING_FILE, "no file of that name below the data root") from error
    except OSError as error:
        reason = f"the file cannot be opened: {error.strerror or type(error).__name__}"
        raise Refusal(RefusalCode.UNREADABLE, reason) from error
