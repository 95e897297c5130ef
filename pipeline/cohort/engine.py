"""Many images through Dask, in this process or on a cluster: batches of images, one worker process per thread."""

from __future__ import annotations

import logging
import math
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai.transforms import Compose

from pipeline.cohort.warden import Warden, WorkersError
from pipeline.cohort.workers import CRASHED, Outcome, Setup, Task, prepare_one
from pipeline.imaging import ImageStore, chain_digest

BATCH = 8  # images per Dask task: a second of work or two, so that a kill costs little and the queue costs nothing
IN_FLIGHT = 2  # batches handed out per worker
LOOPBACK = "127.0.0.1:0"  # any free port
NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
NEEDED = __name__
"""Module that the environment of a scheduler and its workers must hold."""

Settled = list[tuple[Task, Outcome]]


def settle(
    tasks: list[Task], chain: Compose, store: ImageStore, *, workers: int, scheduler: str | None = None
) -> Iterator[Settled]:
    """Prepare many images, in any order of completion.

    Dask hands batches to threads, here or elsewhere; each thread has a process of its own for the images, see
    :class:`~pipeline.cohort.warden.Warden`. So a crash or a hang costs one image, on every machine alike.

    Args:
        tasks: the images.
        chain: the preparation chain.
        store: the image store; with a scheduler, its workers see it and the images under the same paths.
        workers: processes on this machine; 0 prepares in this process, without protection from crashes and hangs.
        scheduler: address of a Dask scheduler; then ``workers`` does not count.

    Yields:
        Batches of tasks with their outcomes, each task once.

    Raises:
        WorkersError: processes end before they do anything, no scheduler answers, or its environment or that of one of
            its workers lacks this package.
    """
    if scheduler is None and workers == 0:
        name = chain_digest(chain)
        for task in tasks:
            yield [(task, prepare_one(task, chain, store, name))]
        return
    import dask
    from distributed import Client, LocalCluster

    setup, run = Setup.of(chain, store), uuid.uuid4().hex
    if scheduler is not None:
        try:
            client = Client(scheduler, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkersError(
                f"no Dask scheduler answers at {scheduler!r}; give its address, tcp://host:8786"
            ) from error
        with _quiet(), client:
            _need_package(client)
            yield from _through(client, tasks, setup, run, BATCH)
        return
    size = max(1, min(BATCH, math.ceil(len(tasks) / (workers * IN_FLIGHT))))
    with (
        _quiet(),
        dask.config.set(NO_PAGES),
        LocalCluster(  # its own, inside this process; Dask's web servers cannot be left out, so they show no page
            n_workers=1, threads_per_worker=workers, processes=False, memory_limit=0,
            dashboard_address=LOOPBACK, worker_dashboard_address=LOOPBACK, scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield from _through(client, tasks, setup, run, size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask tells of every connection that opens and closes, and complains of those that an interrupted run cuts."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _need_package(client: Any) -> None:
    """Refuse a cluster that cannot know what it is sent; asked with built-in functions only, which any Python has."""
    probe = f"import {NEEDED}"
    lacking = [
        f"worker {address}"
        for address, error in client.run(exec, probe, on_error="return").items()
        if isinstance(error, ImportError)
    ]
    try:
        client.run_on_scheduler(exec, probe)
    except ImportError:
        lacking.insert(0, "scheduler")
    if lacking:
        raise _no_package(", ".join(lacking))


def _no_package(where: str) -> WorkersError:
    return WorkersError(
        f"the package is not installed in the environment of the {where}: no module {NEEDED}. Run 'pip install -e "
        "FOLDER' there, with the folder of the pyproject.toml, and start 'dask scheduler' and 'dask worker' again"
    )


def _through(client: Any, tasks: list[Task], setup: Setup, run: str, size: int) -> Iterator[Settled]:
    """Keep ``IN_FLIGHT`` batches per worker under way; workers may come and go."""
    from distributed import as_completed

    waiting = iter([tasks[start : start + size] for start in range(0, len(tasks), size)])
    running: dict[Any, list[Task]] = {}
    with _ending_workers(client, run):
        done = as_completed(loop=client.loop)

        def feed() -> None:
            while len(running) < IN_FLIGHT * max(1, sum(client.nthreads().values())):
                batch = next(waiting, None)
                if batch is None:
                    return
                future = client.submit(_run_batch, batch, setup, run, pure=False)
                running[future] = batch
                done.add(future)

        feed()
        for future in done:
            batch = running.pop(future)
            outcomes = _result(future, len(batch))
            future.release()
            feed()
            yield list(zip(batch, outcomes, strict=True))


def _result(future: Any, images: int) -> list[Outcome]:
    from distributed import KilledWorker

    try:
        return future.result()
    except ModuleNotFoundError as error:  # of a worker that came later; what an image raises is an outcome
        raise _no_package("cluster's workers") from error
    except KilledWorker:  # Dask has tried it on other workers before it gives up
        lost = Outcome(code=CRASHED, reason="several workers of the cluster ended while they held the image's batch")
        return [lost] * images


_wardens: dict[tuple[str, int], Warden] = {}
_ended: set[str] = set()  # runs whose batches are not begun any more
_lock = threading.Lock()


def _run_batch(batch: list[Task], setup: Setup, run: str) -> list[Outcome]:
    """Runs in a thread of a Dask worker."""
    with _lock:
        if run in _ended:
            raise WorkersError("the run was ended")
        warden = _wardens.setdefault((run, threading.get_ident()), Warden(setup))
    return [warden.run(task) for task in batch]


def _close(run: str) -> None:
    with _lock:
        _ended.add(run)
        ours = [_wardens.pop(key) for key in list(_wardens) if key[0] == run]
    for warden in ours:
        warden.close()


@contextmanager
def _ending_workers(client: Any, run: str) -> Iterator[None]:
    """End the run's worker processes with the run, also when it is interrupted in the middle of an image."""
    try:
        yield
    finally:
        client.run(_close, run)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
