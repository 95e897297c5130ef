"""Writing a phantom cohort: DICOM files, manifest and, on request, true masks."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import nibabel
import numpy as np
from tqdm.auto import tqdm

from pipeline.imaging.writing import Padding, write_mammogram
from pipeline.phantom.lesions import Difficulty
from pipeline.phantom.patient import PhantomPatient, draw_patient
from pipeline.phantom.scene import Scene, draw_scene

__all__ = ["MANIFEST_COLUMNS", "PhantomError", "patient_scenes", "write_cohort"]

MANIFEST_COLUMNS = (
    "image", "patient_id", "laterality", "view", "label", "patient_label", "study_id", "age", "density", "vendor",
    "lesion",
)  # fmt: skip
VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
_LOWEST = 64
_UID_SPACE = uuid.UUID("6f0f6a2e-3c6b-5a39-9c1e-7d1d1c2f5b10")


class PhantomError(ValueError):
    """A phantom cohort that cannot be written: what is wrong, what is allowed, what to do."""


def write_cohort(
    out: str | Path,
    *,
    patients: int = 60,
    seed: int = 0,
    height: int = 1000,
    difficulty: Difficulty | str = Difficulty.MEDIUM,
    masks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a cohort of simulated patients, four views each, as For Presentation mammograms.

    Every patient depends on (seed, number) alone, so the same seed gives the same bytes with any number of workers, and
    a larger cohort begins with the smaller one. Half of the patients are malignant (of an odd number, one more or
    less). The folder appears under its name only when it is complete.

    `out` then holds `manifest.csv`, `images/<patient_id>/<side>_<view>.dcm` and with `masks` also
    `masks/<patient_id>/<side>_<view>_breast.nii.gz` (0, 1), `..._pectoral.nii.gz` (0, 1, the muscle inside the breast)
    and `..._lesion.nii.gz` (0 none, 1 benign, 2 malignant); mask[row, column] belongs to stored pixel (row, column).

    Args:
        out: folder to write; must not exist or be empty.
        patients: number of patients, 1 to 9,999.
        seed: 0 or larger.
        height: rows of an image, at least 64.
        difficulty: "easy", "medium" or "hard".
        masks: also write true masks.
        workers: processes; None is one per processor core, fewer where starting them would take longer than it saves.
        progress: show a bar.

    Returns:
        path of the manifest.

    Raises:
        PhantomError: an argument out of range, or `out` is there and not empty.
    """
    out = Path(out)
    difficulty = _check(out, patients=patients, seed=seed, height=height, difficulty=difficulty, workers=workers)
    workers = min(workers or _worthwhile_workers(patients, height), patients)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write = partial(_write_patient, temporary, seed=seed, height=height, difficulty=difficulty, masks=masks)
        results = joblib.Parallel(n_jobs=workers, return_as="generator")(
            joblib.delayed(write)(number) for number in range(patients)
        )
        bar = tqdm(results, total=patients, desc="phantoms", unit="patient", disable=not progress)
        rows = [row for patient_rows in bar for row in patient_rows]
        with open(temporary / "manifest.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, MANIFEST_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        temporary.chmod(0o755)
        if out.is_dir():
            out.rmdir()  # empty, as checked; fails if somebody filled it meanwhile
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return out / "manifest.csv"


def _worthwhile_workers(patients: int, height: int) -> int:
    """One process per core, but each with some 10 seconds of work: it has to import everything first."""
    seconds = patients * (0.1 + 0.6 * (height / 1000) ** 2)  # measured on one core
    return max(1, min(os.cpu_count() or 1, int(seconds / 10)))


def _check(
    out: Path, *, patients: int, seed: int, height: int, difficulty: Difficulty | str, workers: int | None
) -> Difficulty:
    """Refuse what cannot be written, before anything is; gives the difficulty as an enum."""
    if not 1 <= patients <= 9999:
        raise PhantomError(f"patients is {patients}, allowed are 1 to 9,999; give another number")
    if seed < 0:
        raise PhantomError(f"seed is {seed}, allowed are 0 and larger; give another seed")
    if height < _LOWEST:
        raise PhantomError(f"height is {height} rows, allowed are {_LOWEST} and more; give a larger height")
    if workers is not None and workers < 1:
        raise PhantomError(f"workers is {workers}, allowed are 1 and more, or None for one per core")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PhantomError(f"{out} is there and not an empty folder; remove it or give another folder")
    try:
        return Difficulty(difficulty)
    except ValueError:
        raise PhantomError(f"difficulty is {difficulty!r}, allowed are {', '.join(Difficulty)}") from None


def patient_scenes(patient: PhantomPatient, *, seed: int, height: int) -> list[tuple[str, str, Scene]]:
    """Draw the four views of a patient: (laterality, view, scene) in the order R CC, L CC, R MLO, L MLO."""
    streams = np.random.SeedSequence([seed, patient.number]).spawn(len(VIEWS))
    return [
        (
            side,
            view,
            draw_scene(
                patient.breasts[side], patient.findings[side], laterality=side, view=view,
                generator=np.random.default_rng(stream), height=height, noise=patient.noise,
            ),
        )
        for (side, view), stream in zip(VIEWS, streams, strict=True)
    ]  # fmt: skip


def _uid(*parts: object) -> str:
    """A UID of the 2.25 root (PS3.5 B.2) that depends on the parts alone."""
    return f"2.25.{uuid.uuid5(_UID_SPACE, '/'.join(map(str, parts))).int}"


def _write_patient(
    root: Path, number: int, *, seed: int, height: int, difficulty: Difficulty, masks: bool
) -> list[dict[str, Any]]:
    """Write one patient's files below `root`; gives the rows of the manifest."""
    patient = draw_patient(seed, number, difficulty=difficulty)
    name = f"phantom-{number + 1:04d}"
    (root / "images" / name).mkdir(parents=True)
    identity = (seed, number, height, difficulty)
    rows = []
    for instance, (side, view, scene) in enumerate(patient_scenes(patient, seed=seed, height=height), start=1):
        image = Path("images") / name / f"{side}_{view}.dcm"
        write_mammogram(
            root / image, scene.pixels, style=patient.style, laterality=side, view=view, spacing_mm=scene.spacing_mm,
            patient_id=f"PH{number + 1:04d}X", patient_name=f"Phantom^{number + 1:04d}", age=patient.age,
            thickness_mm=patient.breasts[side].thickness_mm, study_uid=_uid("study", *identity),
            series_uid=_uid("series", *identity), instance_uid=_uid("instance", *identity, instance),
            instance_number=instance,
            padding_mask=_padding(scene, patient.style.padding),
        )  # fmt: skip
        if masks:
            _write_masks(root / "masks" / name, f"{side}_{view}", scene, flipped=patient.style.flipped)
        finding = patient.findings[side]
        values = (
            image.as_posix(), name, side, view, int(finding.malignant), int(patient.malignant), f"{name}-1",
            patient.age, patient.density, patient.style.name, str(finding.kind),
        )  # fmt: skip
        rows.append(dict(zip(MANIFEST_COLUMNS, values, strict=True)))
    return rows


def _padding(scene: Scene, padding: Padding) -> np.ndarray | None:
    """What a style pads: nothing, the frame, or all air around the breast as well (so do GE's processed images)."""
    if padding is Padding.NONE:
        return None
    return scene.padding | scene.air if padding is Padding.RANGE else scene.padding


def _write_masks(folder: Path, name: str, scene: Scene, *, flipped: bool) -> None:
    """Write the breast, pectoral and lesion masks in the order of the stored pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for what, mask in (("breast", scene.breast), ("pectoral", scene.pectoral), ("lesion", scene.lesion)):
        array = np.ascontiguousarray(mask[:, ::-1] if flipped else mask, dtype=np.uint8)
        affine = np.diag([*scene.spacing_mm, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{name}_{what}.nii.gz")
