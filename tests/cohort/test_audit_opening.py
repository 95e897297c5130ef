"""Facts about opening a cohort that leaks: refused with names, allowed on request, and recorded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from monai.transforms import Compose
from PIL import Image

from pipeline import bundle_file
from pipeline.cohort import LeakError, audit, open_cohort, patient_folds, read_manifest, workers
from pipeline.cohort.memory import FILE
from pipeline.imaging import ResizeImaged
from tests.imaging.scenes import breast_scene, mammogram_dataset

Exams = Callable[..., pd.DataFrame]


@pytest.fixture
def leaking(tmp_path: Path, exams: Exams) -> tuple[pd.DataFrame, str, str]:
    """A manifest in which one picture of a training patient stands under a test patient of fold 0 as well."""
    manifest = exams(18)
    folds = patient_folds(read_manifest(tmp_path / "manifest.csv"), folds=3)
    partition = folds[folds["fold"] == 0].set_index("patient_id")["partition"]
    trained, tested = partition.index[partition == "training"][0], partition.index[partition == "test"][0]
    shutil.copy2(tmp_path / f"{trained}/L.png", tmp_path / f"{tested}/L.png")
    return manifest, trained, tested


def opened(folder: Path, chain: Compose, **settings: object):
    settings = {"store_dir": folder / "store", "workers": 0, "progress": False, "folds": 3} | settings
    return open_cohort(folder / "manifest.csv", preprocessing=chain, **settings)  # type: ignore[arg-type]


def test_a_leak_is_refused_with_pseudonyms_and_a_way_out(
    tmp_path: Path, chain: Compose, leaking: tuple[pd.DataFrame, str, str]
) -> None:
    _, trained, tested = leaking
    with pytest.raises(LeakError) as error:
        opened(tmp_path, chain)
    for words in (trained, tested, "training", "test", "group_id", "--cohort#allow_leaks True", "audit MANIFEST"):
        assert words in str(error.value)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_reworked_copy_is_refused_where_the_pictures_show_enough(
    tmp_path: Path, chain: Compose, leaking: tuple[pd.DataFrame, str, str], mirrored: bool
) -> None:
    _, trained, tested = leaking
    levels = np.asarray(Image.open(tmp_path / f"{trained}/L.png"), dtype=float)
    brighter = np.minimum(1.1 * levels + 3, 255).astype(np.uint8)
    Image.fromarray(brighter[:, ::-1] if mirrored else brighter).save(tmp_path / f"{tested}/L.png")
    detailed = Compose([*chain.transforms[:-1], ResizeImaged("image", image_size=96)])
    with pytest.raises(LeakError, match="nearly the same") as error:
        opened(tmp_path, detailed)
    assert trained in str(error.value) and tested in str(error.value)


def test_an_allowed_leak_is_recorded(tmp_path: Path, chain: Compose, leaking: tuple[pd.DataFrame, str, str]) -> None:
    _, trained, tested = leaking
    cohort = opened(tmp_path, chain, allow_leaks=True)
    assert cohort.leaks["allowed"] is True and len(cohort.leaks["found"]) == 1
    assert trained in cohort.leaks["found"][0] and tested in cohort.leaks["found"][0]


@pytest.fixture
def films(tmp_path: Path) -> Callable[..., None]:
    """A function that writes a DICOM file of each of six patients, two per partition; ``change`` alters the last."""

    def write(change: Callable[[pydicom.Dataset, pydicom.Dataset], None]) -> None:
        rows, datasets = [], []
        for number in range(6):
            scene = breast_scene(160, 120, seed=number)
            dataset = mammogram_dataset(np.rint(scene * 4095).astype("<u2"), SOPInstanceUID=f"1.2.{number}")
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            datasets.append(dataset)
            partition = ("training", "validation", "test")[number // 2]
            rows.append((f"{number}.dcm", f"p{number}", "L", "CC", number % 2, number % 2, partition))
        change(datasets[0], datasets[-1])
        for number, dataset in enumerate(datasets):
            dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            os.utime(tmp_path / f"{number}.dcm", (0, 0))
        columns = ["image", "patient_id", "laterality", "view", "label", "patient_label", "partition"]
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "manifest.csv", index=False)

    return write


def same_uid(first: pydicom.Dataset, last: pydicom.Dataset) -> None:
    last.SOPInstanceUID = last.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID


def same_pixels_other_window(first: pydicom.Dataset, last: pydicom.Dataset) -> None:
    last.PixelData, last.WindowCenter, last.WindowWidth = first.PixelData, 1500, 1800


@pytest.mark.parametrize(
    ("change", "code"),
    [(same_uid, "same_sop_uid_in_two_partitions"), (same_pixels_other_window, "same_pixels_in_two_partitions")],
)
def test_what_the_audit_calls_a_leak_by_uid_or_stored_pixels_is_not_trained_on(
    tmp_path: Path, chain: Compose, films: Callable[..., None], change: Callable[..., None], code: str
) -> None:
    films(change)
    told = audit(
        tmp_path / "manifest.csv", preprocessing=chain, store_dir=tmp_path / "store", workers=0, progress=False
    )
    assert [leak.code for leak in told.leaks] == [code]
    with pytest.raises(LeakError) as error:
        opened(tmp_path, chain)
    assert "p0 and p5" in str(error.value)


def test_a_cohort_that_is_prepared_is_checked_without_reading_its_files(
    tmp_path: Path, chain: Compose, films: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    films(same_uid)
    opened(tmp_path, chain, allow_leaks=True)
    for name in ("read_marks", "is_raw_id", "prepare_item", "_digest"):
        monkeypatch.setattr(workers, name, lambda *_: pytest.fail("a file was read again"))
    with pytest.raises(LeakError, match="SOP Instance UID"):
        opened(tmp_path, chain)


def test_a_memory_of_an_earlier_version_is_completed_once(
    tmp_path: Path, chain: Compose, films: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    films(same_uid)
    opened(tmp_path, chain, allow_leaks=True)
    memory = tmp_path / "store" / FILE
    lines = [json.loads(line) for line in memory.read_text().splitlines()]
    memory.write_text("".join(json.dumps(line[:4]) + "\n" for line in lines))
    monkeypatch.setattr(workers, "prepare_item", lambda *_: pytest.fail("an image was decoded again"))
    with pytest.raises(LeakError, match="SOP Instance UID"):
        opened(tmp_path, chain)
    assert all(len(json.loads(line)) == 6 for line in memory.read_text().splitlines()[6:])


def test_a_shared_group_and_an_external_test_are_no_leak(
    tmp_path: Path, chain: Compose, leaking: tuple[pd.DataFrame, str, str]
) -> None:
    manifest, trained, tested = leaking
    assert opened(tmp_path, chain, fold=None).leaks == {"allowed": False, "found": []}
    names = manifest["patient_id"]
    manifest.assign(group_id=names.where(~names.isin([trained, tested]), "same")).to_csv(
        tmp_path / "manifest.csv", index=False
    )
    assert opened(tmp_path, chain).leaks == {"allowed": False, "found": []}


def test_pictures_of_one_outline_are_no_leak(tmp_path: Path, chain: Compose, exams: Exams) -> None:
    exams(18)
    assert opened(tmp_path, chain).leaks == {"allowed": False, "found": []}


def test_the_bundle_refuses_leaks_and_every_run_records_them() -> None:
    train = json.loads(bundle_file("train.json").read_text())
    assert train["cohort"]["allow_leaks"] is False
    for name in ("train.json", "evaluate.json", "multi_gpu_train.json", "multi_gpu_evaluate.json"):
        run = json.loads(bundle_file(name).read_text())["run"]
        record = [step for step in run if "record_provenance" in step]
        assert record and all("leaks=@cohort.leaks" in step for step in record), name
