"""The preparation stage: every image of a manifest goes into the store, refusals become rejects."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
from monai.transforms import Compose
from tqdm import tqdm

from pipeline.cohort.engine import cores, settle
from pipeline.cohort.ledger import LEDGER, Ledger
from pipeline.cohort.listed import listed_images, refuse_none
from pipeline.cohort.memory import Memory
from pipeline.cohort.raw_ids import raise_for_raw
from pipeline.cohort.workers import Outcome, Task
from pipeline.imaging import ImageStore, chain_digest

REJECT_COLUMNS = ("image", "patient_id", "code", "reason")
FEW = 64  # images; about 6 s of work, as long as loading torch and MONAI takes


def prepare_images(
    manifest: pd.DataFrame,
    *,
    dataset_dir: str | Path,
    chain: Compose,
    store: ImageStore,
    workers: int | None = None,
    scheduler: str | None = None,
    ledger: str | Path | None = None,
    progress: bool = True,
    allow_raw_ids: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prepare every image of a manifest that is not in the store yet.

    A prepared image is found again by the bytes of its file (SHA-256), the chain, and the side and view of the
    manifest; path, size and time of change spare even reading the file. So a second run decodes nothing, neither the
    prepared nor the refused, and one that was killed goes on after its last whole batch. A bad image becomes a reject
    and the run goes on, also when the image ends the process that reads it, or never ends.

    Args:
        manifest: as read by ``read_manifest``.
        dataset_dir: the data root.
        chain: transforms from the path of a file to a float32 (1, H, W) image; the item has image, laterality, view.
        store: where prepared images are kept.
        workers: processes; 0 prepares in this one (where a crash or a hang of an image is one of the run), None takes
            one per core, or this one for few images (the start of the others, which load torch, costs more than it
            gains).
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers see the images and the store under the
            same paths; then ``workers`` does not count.
        ledger: file that receives one row per image while the run goes on, see :class:`~pipeline.cohort.ledger.Ledger`.
        progress: show a bar with images per second.
        allow_raw_ids: accept ids that equal the DICOM PatientID of their file.

    Returns:
        ``prepared``, the rows of the manifest that have an image, with the columns ``prepared`` (path in the store),
        ``sop_digest`` and ``stored_digest`` (see :class:`~pipeline.cohort.marks.Marks`); and
        ``rejects`` with image, patient_id, code (a ``RefusalCode``, or "unexpected" for any other error) and reason.

    Raises:
        RawIdsError: ids equal the PatientID of their files, in so many patients.
        WorkersError: worker processes end before they do anything, or no usable scheduler.
        KeyboardInterrupt: Ctrl-C, which says at once how far the run came; what is done is kept.
    """
    root = Path(os.path.abspath(dataset_dir))
    columns = zip(*(manifest[name] for name in ("image", "laterality", "view", "patient_id")), strict=True)
    tasks = [
        Task(index=index, path=str(root / image), laterality=side, view=view, patient_id=patient_id)
        for index, (image, side, view, patient_id) in enumerate(columns)
    ]
    names = manifest["image"].tolist()

    def rows(of: list[Task]) -> list[tuple[str, str, Outcome]]:
        return [(names[task.index], task.patient_id, outcomes[task.index]) for task in of]

    memory = Memory(store, chain_digest(chain))
    outcomes = {task.index: outcome for task in tasks if (outcome := memory.recall(task)) is not None}
    todo = [task for task in tasks if task.index not in outcomes]
    book = None if ledger is None else Ledger(Path(ledger))
    if book is not None:
        book.begin(rows([task for task in tasks if task.index in outcomes]))
    bar = tqdm(total=len(tasks), initial=len(outcomes), desc="preparing", unit="image", disable=not progress)
    processes = _worker_count(workers, len(todo))
    try:
        with _telling_of_stop(
            lambda: f"stopped after {len(outcomes)} of {len(tasks)} images; the same command goes on"
        ):
            for batch in settle(todo, chain, store, workers=processes, scheduler=scheduler) if todo else ():
                for task, outcome in batch:
                    outcomes[task.index] = outcome
                    memory.note(task, outcome)
                memory.save()
                if book is not None:
                    book.append(rows([task for task, _ in batch]))
                bar.update(len(batch))
    finally:
        bar.close()
    if book is not None:
        book.finish(rows(tasks))
    if not allow_raw_ids:
        raise_for_raw({task.patient_id for task in tasks if outcomes[task.index].raw_id})
    return _tables(manifest, [outcomes[index] for index in range(len(tasks))], store)


def prepare_manifest(
    manifest: str | Path | None,
    *,
    out: str | Path,
    preprocessing: Compose,
    dataset_dir: str | Path | None = None,
    phantom: Mapping[str, Any] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    allow_raw_ids: bool = False,
    progress: bool = True,
) -> str:
    """Prepare a manifest into a folder: the command ``prepare`` and the bundle's ``preprocess.json``.

    Args:
        manifest: a manifest file; None for phantoms.
        out: folder of the image store; it receives ``ledger.csv`` too, with one row per image of this manifest.
        preprocessing: the preparation chain.
        dataset_dir: data root of the manifest, by default its folder; for phantoms, the folder to build them in.
        phantom: settings of the phantom cohort, used when ``manifest`` is None.
        workers: processes, by default one per core; 0 prepares in this process.
        scheduler: address of a Dask scheduler.
        allow_raw_ids: accept ids that equal a DICOM PatientID.
        progress: show bars.

    Returns:
        What was done, in a few lines for a person.

    Raises:
        CohortError: the manifest or the data root cannot be used, or not one image.
    """
    listed, root = listed_images(
        manifest, dataset_dir=dataset_dir, phantom=phantom, allow_raw_ids=allow_raw_ids, progress=progress
    )
    store = ImageStore(out)
    ledger = store.root / LEDGER
    prepared, rejected = prepare_images(
        listed,
        dataset_dir=root,
        chain=preprocessing,
        store=store,
        workers=cores() if workers is None else workers,
        scheduler=scheduler,
        ledger=ledger,
        progress=progress,
        allow_raw_ids=allow_raw_ids,
    )
    refuse_none(prepared, rejected, root)
    told = [f"refused as {code}: {count}" for code, count in sorted(Counter(rejected["code"]).items())]
    told.append(f"prepared: {len(prepared)} of {len(listed)} images in {store.root}; every image is in {ledger}")
    return "\n".join(told)


@contextmanager
def _telling_of_stop(words: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C write a line before anything is ended, which takes a moment; a second Ctrl-C does not wait for it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # somebody else's affair
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, f"\n{words()}\n".encode())  # print may be interrupted in the middle of a line of the bar
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _tables(manifest: pd.DataFrame, outcomes: list[Outcome], store: ImageStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    told = manifest.assign(
        prepared=[str(store.path(outcome.prepared)) if outcome.prepared else "" for outcome in outcomes],
        sop_digest=[outcome.sop_uid for outcome in outcomes],
        stored_digest=[outcome.stored for outcome in outcomes],
        code=[outcome.code for outcome in outcomes],
        reason=[outcome.reason for outcome in outcomes],
    )
    good = told["prepared"] != ""
    prepared = told[good].drop(columns=["code", "reason"]).reset_index(drop=True)
    return prepared, told.loc[~good, list(REJECT_COLUMNS)].reset_index(drop=True)


def _worker_count(workers: int | None, images: int) -> int:
    if workers is not None and workers < 0:
        raise ValueError(f"workers is {workers}; it must be 0 (this process), a number of processes, or None")
    if workers is None:
        workers = cores() if images > FEW else 0
    return min(workers, images)
