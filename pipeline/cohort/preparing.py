"""The preparation stage: every image of a manifest goes into the store, refusals become rejects."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from monai.transforms import Compose
from tqdm import tqdm

from pipeline.cohort.memory import Memory
from pipeline.cohort.raw_ids import raise_for_raw
from pipeline.cohort.workers import Outcome, Task, settle
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
    progress: bool = True,
    allow_raw_ids: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prepare every image of a manifest that is not in the store yet.

    A prepared image is found again by the bytes of its file (SHA-256), the chain, and the side and view of the
    manifest; path, size and time of change spare even reading the file. So a second run decodes nothing, neither the
    prepared nor the refused. A bad image becomes a reject and the run goes on, also when the image ends the process
    that reads it.

    Args:
        manifest: as read by ``read_manifest``.
        dataset_dir: the data root.
        chain: transforms from the path of a file to a float32 (1, H, W) image; the item has image, laterality, view.
        store: where prepared images are kept.
        workers: processes; 0 prepares in this one, None takes one per core, or this one for few images (the start of
            the others, which load torch, costs more than it gains).
        progress: show a bar with images per second.
        allow_raw_ids: accept ids that equal the DICOM PatientID of their file.

    Returns:
        ``prepared``, the rows of the manifest that have an image, with the column ``prepared`` (path in the store); and
        ``rejects`` with image, patient_id, code (a ``RefusalCode``, "unexpected" for any other error, "crashed" where
        the process ended) and reason.

    Raises:
        RawIdsError: ids equal the PatientID of their files, in so many patients.
        WorkersError: worker processes end before they do anything.
    """
    root = Path(dataset_dir)
    columns = zip(*(manifest[name] for name in ("image", "laterality", "view", "patient_id")), strict=True)
    tasks = [
        Task(index=index, path=str(root / image), laterality=side, view=view, patient_id=patient_id)
        for index, (image, side, view, patient_id) in enumerate(columns)
    ]
    memory = Memory(store, store.root, chain_digest(chain))
    outcomes = {task.index: outcome for task in tasks if (outcome := memory.recall(task)) is not None}
    todo = [task for task in tasks if task.index not in outcomes]
    bar = tqdm(total=len(tasks), initial=len(outcomes), desc="preparing", unit="image", disable=not progress)
    try:
        for task, outcome in settle(todo, chain, store, _worker_count(workers, len(todo))):
            outcomes[task.index] = outcome
            memory.note(task, outcome)
            bar.update()
    finally:
        bar.close()
        memory.save()
    if not allow_raw_ids:
        raise_for_raw({task.patient_id for task in tasks if outcomes[task.index].raw_id})
    return _tables(manifest, [outcomes[index] for index in range(len(tasks))])


def _tables(manifest: pd.DataFrame, outcomes: list[Outcome]) -> tuple[pd.DataFrame, pd.DataFrame]:
    told = manifest.assign(
        prepared=[outcome.prepared for outcome in outcomes],
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
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = cores if images > FEW else 0
    return min(workers, images)
