"""Facts about the preparation stage: nothing is done twice, one bad image is one reject, nothing ends the run."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from monai.transforms import Compose

from pipeline.cohort import RawIdsError, prepare_images, read_manifest, warden, workers
from pipeline.cohort.ledger import COLUMNS, read_ledger
from pipeline.cohort.memory import FILE
from pipeline.cohort.warden import WorkersError
from pipeline.cohort.workers import Task, image_key
from pipeline.imaging import ImageStore
from pipeline.phantom import write_cohort

Exams = Callable[..., pd.DataFrame]

FAULTS = '''
"""Transforms that fail on demand, in a module that worker processes can import."""
import os
import time

class Hang:
    def __call__(self, item):
        while item["view"] == "LM":
            time.sleep(1)
        return item

class EndProcess:
    def __init__(self, view):
        self.view = view
    def __call__(self, item):
        if item["view"] == self.view:
            os._exit(3)
        return item

class Raise:
    def __call__(self, item):
        if item["view"] == "ML":
            raise KeyError("Doe^Jane 1234")
        return item

class CannotTravel:
    def __call__(self, item):
        return item
    def __reduce__(self):
        return (os._exit, (3,))
'''


@pytest.fixture
def faults(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path_factory.mktemp("faults")
    (folder / "injected_faults.py").write_text(FAULTS)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("injected_faults")


def read(root: Path) -> pd.DataFrame:
    return read_manifest(root / "manifest.csv", dataset_dir=root, allow_raw_ids=True)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(workers, "prepare_item", refuse)


def test_prepared_images_are_loadable_and_rows_keep_their_order(tmp_path: Path, exams: Exams, chain: Compose) -> None:
    exams(3)
    store = ImageStore(tmp_path / "store")
    prepared, rejects = prepare_images(
        read(tmp_path), dataset_dir=tmp_path, chain=chain, store=store, workers=0, progress=False
    )
    assert prepared["image"].tolist() == read(tmp_path)["image"].tolist() and rejects.empty
    assert prepared["prepared"].nunique() == 6
    for path in prepared["prepared"]:
        image = store.load(path)
        assert image.shape == (1, 32, 32) and image.min() >= 0 and image.max() <= 1 and image.std() > 0


def test_a_second_run_decodes_neither_prepared_nor_refused_images(
    tmp_path: Path, exams: Exams, chain: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams(3)
    (tmp_path / "p001/L.png").write_bytes(b"not a picture")
    store = ImageStore(tmp_path / "store")
    settings = {"dataset_dir": tmp_path, "chain": chain, "store": store, "workers": 0, "progress": False}
    first = prepare_images(read(tmp_path), **settings)
    with monkeypatch.context() as patch:
        # the damaged file was written just now, so its digest is not trusted yet: it alone is read again
        seen: list[str] = []
        original = workers.prepare_item
        patch.setattr(workers, "prepare_item", lambda made, item: seen.append(item["image"]) or original(made, item))
        second = prepare_images(read(tmp_path), **settings)
        assert seen == [str(tmp_path / "p001/L.png")]
    age(tmp_path / "p001/L.png")
    third = prepare_images(read(tmp_path), **settings)
    forbid_decoding(monkeypatch)
    fourth = prepare_images(read(tmp_path), **settings)
    for again in (second, third, fourth):
        pd.testing.assert_frame_equal(first[0], again[0])
        pd.testing.assert_frame_equal(first[1], again[1])
    assert first[1]["code"].tolist() == ["unreadable"]


def test_a_moved_cohort_is_found_by_its_bytes(
    tmp_path: Path, exams: Exams, chain: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams(2)
    store = ImageStore(tmp_path / "store")
    first, _ = prepare_images(read(tmp_path), dataset_dir=tmp_path, chain=chain, store=store, workers=0, progress=False)
    (tmp_path / "elsewhere").mkdir()
    for folder in ("p000", "p001"):
        (tmp_path / folder).rename(tmp_path / "elsewhere" / folder)
    forbid_decoding(monkeypatch)
    second, rejects = prepare_images(
        read(tmp_path), dataset_dir=tmp_path / "elsewhere", chain=chain, store=store, workers=0, progress=False
    )
    pd.testing.assert_frame_equal(first, second)
    assert rejects.empty


def test_a_changed_file_is_prepared_anew(tmp_path: Path, exams: Exams, chain: Compose) -> None:
    exams(2)
    settings = {"dataset_dir": tmp_path, "chain": chain, "store": ImageStore(tmp_path / "store"), "workers": 0}
    first, _ = prepare_images(read(tmp_path), **settings, progress=False)
    (tmp_path / "p000/L.png").write_bytes((tmp_path / "p001/L.png").read_bytes())
    second, _ = prepare_images(read(tmp_path), **settings, progress=False)
    assert (first["prepared"] != second["prepared"]).tolist() == [True, False, False, False]
    assert second["prepared"][0] == second["prepared"][2]


@pytest.mark.parametrize("how", ["rewritten", "swapped"])
def test_a_change_that_keeps_size_and_time_of_the_content_is_noticed(
    tmp_path: Path, exams: Exams, chain: Compose, how: str
) -> None:
    exams(2)
    one, other = tmp_path / "p000/L.png", tmp_path / "p001/L.png"
    longest = max(path.stat().st_size for path in (one, other))
    for path in (one, other):  # what stands behind the last chunk of a PNG is not read
        path.write_bytes(path.read_bytes().ljust(longest, b" "))
        os.utime(path, (0, 0))
    settings = {"dataset_dir": tmp_path, "chain": chain, "store": ImageStore(tmp_path / "store"), "workers": 0}
    before, _ = prepare_images(read(tmp_path), **settings, progress=False)
    if how == "swapped":
        one.rename(tmp_path / "third")
        other.rename(one)
        (tmp_path / "third").rename(other)
    else:
        one.write_bytes(other.read_bytes())
        os.utime(one, (0, 0))
    after, _ = prepare_images(read(tmp_path), **settings, progress=False)
    was, now = (table.set_index("image")["prepared"] for table in (before, after))
    assert now["p000/L.png"] != was["p000/L.png"] and now["p000/R.png"] == was["p000/R.png"]
    assert now["p000/L.png"] == was["p001/L.png"]


def test_bad_images_become_rejects_and_the_run_goes_on(tmp_path: Path, exams: Exams, chain: Compose) -> None:
    exams(3)
    (tmp_path / "p000/L.png").unlink()
    (tmp_path / "p000/R.png").write_bytes((tmp_path / "p000/R.png").read_bytes()[:200])
    (tmp_path / "p001/L.png").write_text("hello")
    prepared, rejects = prepare_images(
        read(tmp_path), dataset_dir=tmp_path, chain=chain, store=ImageStore(tmp_path / "s"), workers=0, progress=False
    )
    assert rejects[["image", "patient_id", "code"]].to_numpy().tolist() == [
        ["p000/L.png", "p000", "missing_file"],
        ["p000/R.png", "p000", "unreadable"],
        ["p001/L.png", "p001", "unreadable"],
    ]
    assert (rejects["reason"] != "").all() and len(prepared) == 3


def test_the_same_bytes_under_two_sides_are_two_images(tmp_path: Path, exams: Exams, chain: Compose) -> None:
    exams(1)
    (tmp_path / "p000/R.png").write_bytes((tmp_path / "p000/L.png").read_bytes())
    store = ImageStore(tmp_path / "store")
    prepared, _ = prepare_images(
        read(tmp_path), dataset_dir=tmp_path, chain=chain, store=store, workers=0, progress=False
    )
    assert [store.sidecar(path)["laterality"] for path in prepared["prepared"]] == ["L", "R"]


def test_an_unexpected_error_is_told_by_its_type_without_its_text(
    tmp_path: Path, exams: Exams, chain: Compose, faults
) -> None:
    exams(2)
    manifest = read(tmp_path)
    manifest.loc[1, "view"] = "ML"
    broken = Compose([faults.Raise(), *chain.transforms])
    prepared, rejects = prepare_images(
        manifest, dataset_dir=tmp_path, chain=broken, store=ImageStore(tmp_path / "s"), workers=0, progress=False
    )
    assert len(prepared) == 3 and rejects["code"].tolist() == ["unexpected"]
    assert "KeyError" in rejects["reason"][0] and "Doe" not in rejects["reason"][0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Dask scheduler with one worker, reached by TCP."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
    ) as made:
        yield made.scheduler_address


@pytest.mark.parametrize("engine", ["processes", "scheduler"])
def test_a_crash_and_a_hang_cost_one_image_each_and_every_engine_gives_the_same_bytes(
    engine: str, tmp_path: Path, exams: Exams, chain: Compose, faults, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    exams(8)
    manifest = read(tmp_path)
    manifest.loc[[5, 9], "view"] = ["ML", "LM"]
    deadly = Compose([faults.EndProcess("ML"), faults.Hang(), *chain.transforms])
    monkeypatch.setattr(warden, "TIME_LIMIT", 4.0)
    settings = {"dataset_dir": tmp_path, "chain": deadly, "progress": False}
    where = {"workers": 1} if engine == "processes" else {"scheduler": cluster}
    prepared, rejects = prepare_images(manifest, store=ImageStore(tmp_path / "there"), **where, **settings)
    assert rejects[["image", "code"]].to_numpy().tolist() == [
        [manifest["image"][5], "crashed"],
        [manifest["image"][9], "hung"],
    ]
    healthy = manifest.drop(index=[5, 9])
    alone, none = prepare_images(healthy, store=ImageStore(tmp_path / "here"), workers=0, **settings)
    assert none.empty and prepared["image"].tolist() == alone["image"].tolist()
    for one, other in zip(prepared["prepared"], alone["prepared"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
        assert Path(one).with_suffix(".json").read_bytes() == Path(other).with_suffix(".json").read_bytes()


def test_a_killed_run_leaves_its_whole_batches_and_the_next_one_does_the_rest(
    tmp_path: Path, exams: Exams, chain: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams(4)
    (tmp_path / "p000/R.png").write_text("no picture")
    age(tmp_path / "p000/R.png")
    settings = {"dataset_dir": tmp_path, "chain": chain, "store": ImageStore(tmp_path / "store"), "progress": False}
    settings |= {"ledger": tmp_path / "store/ledger.csv", "workers": 0}
    original, seen = workers.prepare_item, []

    def killed_at_the_fifth(made, item):
        seen.append(item["image"])
        if len(seen) == 5:
            raise KeyboardInterrupt
        return original(made, item)

    monkeypatch.setattr(workers, "prepare_item", killed_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        prepare_images(read(tmp_path), **settings)
    left = read_ledger(tmp_path / "store/ledger.csv")
    assert left["image"].tolist() == read(tmp_path)["image"].tolist()[:4]
    with (tmp_path / "store/ledger.csv").open("a") as stream:
        stream.write("p002/L.png,p0")  # killed in the middle of a write
    assert len(read_ledger(tmp_path / "store/ledger.csv")) == 4
    prepared, rejects = prepare_images(read(tmp_path), **settings)
    assert len(seen) == 5 + 4, "what the killed run had prepared or refused is not read again"
    ledger = read_ledger(tmp_path / "store/ledger.csv")
    assert tuple(ledger.columns) == COLUMNS and ledger["image"].tolist() == read(tmp_path)["image"].tolist()
    assert ledger["code"].tolist() == ["", "unreadable", *[""] * 6] and (ledger["seconds"] > 0).all()
    assert ledger["seconds"][:4].tolist() == left["seconds"].tolist()
    done = ledger[ledger["code"] == ""]
    assert [Path(path).stem for path in prepared["prepared"]] == done["prepared"].tolist()
    assert rejects["image"].tolist() == ["p000/R.png"]
    assert not list((tmp_path / "store").glob(".ledger*"))


def test_workers_that_cannot_start_are_an_error_and_not_a_cohort_of_rejects(
    tmp_path: Path, exams: Exams, chain: Compose, faults
) -> None:
    exams(1)
    stuck = Compose([faults.CannotTravel(), *chain.transforms])
    with pytest.raises(WorkersError, match="workers=0"):
        prepare_images(
            read(tmp_path), dataset_dir=tmp_path, chain=stuck, store=ImageStore(tmp_path / "s"), workers=1,
            progress=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantom patients; the manifest's id of the second is its PatientID in one file."""
    root = write_cohort(
        tmp_path_factory.mktemp("raw") / "cohort", patients=2, height=160, workers=1, progress=False
    ).parent
    manifest = (root / "manifest.csv").read_text().replace("phantom-0002", "DOE1234")
    (root / "manifest.csv").write_text(manifest)
    (root / "images/phantom-0002").rename(root / "images/DOE1234")
    last = sorted((root / "images/DOE1234").glob("*.dcm"))[-1]
    dataset = pydicom.dcmread(last)
    dataset.PatientID = "doe1234 "
    dataset.save_as(last)
    for path in root.rglob("*.dcm"):
        age(path)
    return root


def age(path: Path) -> None:
    import os

    os.utime(path, (path.stat().st_mtime - 3600,) * 2)


def test_ids_equal_to_a_patient_id_are_refused_with_a_count_and_unnamed(
    tmp_path: Path, phantoms: Path, chain: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"dataset_dir": phantoms, "chain": chain, "store": ImageStore(tmp_path), "workers": 0, "progress": False}
    for attempt in range(2):
        if attempt:  # the verdict is remembered
            forbid_decoding(monkeypatch)
        with pytest.raises(RawIdsError, match="for 1 patient;.*--allow-raw-ids") as caught:
            prepare_images(read(phantoms), **settings)
        assert "doe" not in str(caught.value).lower()
    prepared, rejects = prepare_images(read(phantoms), **settings, allow_raw_ids=True)
    assert len(prepared) == 8 and rejects.empty


def test_reading_a_manifest_already_refuses_an_id_that_the_first_file_holds(tmp_path: Path, phantoms: Path) -> None:
    lines = (phantoms / "manifest.csv").read_text().splitlines()
    ids = [line for line in lines if line.startswith("images/DOE1234")]
    named = [pydicom.dcmread(phantoms / line.split(",")[0], stop_before_pixels=True).PatientID for line in ids]
    raw = ids[[name.strip() == "doe1234" for name in named].index(True)]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join([lines[0], raw]))
    with pytest.raises(RawIdsError):
        read_manifest(path, dataset_dir=phantoms)
    assert len(read_manifest(path, dataset_dir=phantoms, allow_raw_ids=True)) == 1


def test_what_is_remembered_holds_neither_ids_nor_paths(tmp_path: Path, phantoms: Path, chain: Compose) -> None:
    store = ImageStore(tmp_path / "store")
    prepare_images(
        read(phantoms), dataset_dir=phantoms, chain=chain, store=store, workers=0, progress=False, allow_raw_ids=True
    )
    text = (store.root / FILE).read_text().lower()
    assert len(text) > 500
    assert not any(word in text for word in ("doe", "phantom", "ph0001x", "images", str(tmp_path).lower()))


def test_a_damaged_memory_is_begun_anew(tmp_path: Path, exams: Exams, chain: Compose) -> None:
    exams(1)
    store = ImageStore(tmp_path / "store")
    settings = {"dataset_dir": tmp_path, "chain": chain, "store": store, "workers": 0, "progress": False}
    first, _ = prepare_images(read(tmp_path), **settings)
    whole = (store.root / FILE).read_text()
    (store.root / FILE).write_text('["file", "a"]\n7\n{"a": 1}\n["file", "fffe')
    second, _ = prepare_images(read(tmp_path), **settings)
    pd.testing.assert_frame_equal(first, second)
    assert sorted((store.root / FILE).read_text().splitlines()[4:]) == sorted(whole.splitlines())


def test_the_key_is_that_of_the_store_for_chain_side_and_view(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "file").write_bytes(b"bytes")
    task = Task(index=0, path="file", laterality="L", view="CC", patient_id="1")
    key = image_key(hashlib.sha256(b"bytes").hexdigest(), "chain", task)
    assert key == ImageStore(tmp_path).key(tmp_path / "file", "chain|L|CC")


def test_real_film_mammograms_are_prepared(real_data: Path, tmp_path: Path, chain: Compose) -> None:
    from pipeline.cohort.sources.ddsm import ddsm_manifest

    root = real_data / "ddsm-small"
    ddsm_manifest(root).iloc[::125].to_csv(tmp_path / "manifest.csv", index=False)
    manifest = read_manifest(tmp_path / "manifest.csv", dataset_dir=root)
    store = ImageStore(tmp_path / "store")
    prepared, rejects = prepare_images(manifest, dataset_dir=root, chain=chain, store=store, workers=0, progress=False)
    assert len(prepared) == 16 and rejects.empty
    assert np.mean([store.load(path).mean() for path in prepared["prepared"]]) > 0.05
