"""Hostile files cost their own row and nothing more: in worker processes, in this process and in an exam."""

from __future__ import annotations

import functools
import os
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.transforms import Compose

from benchmarks.base_files import base_files
from benchmarks.mutants import MUTATIONS, deflate_bomb, mutant
from pipeline.cohort import prepare_images, warden
from pipeline.cohort.ledger import LEDGER, read_ledger
from pipeline.cohort.limits import WORKER_MEMORY, limit_worker
from pipeline.cohort.memory import FILE
from pipeline.cohort.raw_ids import is_raw_id
from pipeline.cohort.workers import Task, prepare_one
from pipeline.evaluation import Exam
from pipeline.imaging import ImageStore, Refusal, RefusalCode, chain_digest, decoding, guard, isolation, read_mammogram
from pipeline.imaging.isolation import run_apart
from pipeline.imaging.parsing import MEBI, Limits
from pipeline.imaging.refusal import PASSING

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bases() -> dict[str, bytes]:
    return base_files()


def cohort(root: Path, contents: list[bytes]) -> pd.DataFrame:
    names = [f"{number:03d}" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        (root / name).write_bytes(content)
    return pd.DataFrame({"image": names, "patient_id": names, "laterality": "L", "view": "MLO"})


def test_every_hostile_file_has_its_row_and_its_code_and_good_ones_are_prepared_all_the_same(
    tmp_path: Path, bases: dict[str, bytes], chain: Compose
) -> None:
    good = [bases["explicit"], bases["deflated"], bases["jpeg_lossless"]]
    hostile = [mutant(number, bases, seed=11)[2] for number in range(len(MUTATIONS))]
    (tmp_path / "in").mkdir()
    manifest = cohort(tmp_path / "in", [*good, *hostile, *good])
    settings = {"dataset_dir": tmp_path / "in", "chain": chain, "progress": False}
    store = ImageStore(tmp_path / "pool")
    prepared, rejects = prepare_images(manifest, store=store, workers=1, ledger=store.root / LEDGER, **settings)
    ledger = read_ledger(store.root / LEDGER)
    assert ledger["image"].tolist() == manifest["image"].tolist()
    assert {"000", "001", "002", "020", "021", "022"} <= set(prepared["image"])
    refused = ledger[ledger["code"] != ""]
    assert set(refused["code"]) <= set(RefusalCode) - PASSING and refused["code"].nunique() >= 6
    assert refused["image"].tolist() == rejects["image"].tolist() and (refused["reason"] != "").all()
    here, rejects_here = prepare_images(manifest, store=ImageStore(tmp_path / "here"), workers=0, **settings)
    pd.testing.assert_frame_equal(rejects, rejects_here)
    for one, other in zip(prepared["prepared"], here["prepared"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()


def hang(_: object) -> None:
    """Never end, in C code that holds the interpreter's lock."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def test_a_decoder_that_hangs_costs_one_image_of_an_exam_and_of_a_cohort(
    tmp_path: Path, bases: dict[str, bytes], chain: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = decoding.decode
    calls = []

    def decode(dataset):  # in this process for native pixels, in a child for compressed ones
        calls.append(1)
        return hang(dataset) if dataset.file_meta.TransferSyntaxUID.is_compressed else plain(dataset)

    monkeypatch.setattr(decoding, "decode", decode)
    monkeypatch.setattr(guard, "run_apart", functools.partial(run_apart, seconds=0.3))
    (tmp_path / "in").mkdir()
    manifest = cohort(tmp_path / "in", [bases["jpeg_lossless"], bases["explicit"]])
    exam = Exam(tmp_path / "in", preprocessing=chain)
    assert [refusal["code"] for refusal in exam.refusals] == ["hung"] and len(exam.items) == 1
    store = ImageStore(tmp_path / "store")
    settings = {"dataset_dir": tmp_path / "in", "chain": chain, "store": store, "workers": 0, "progress": False}
    prepared, rejects = prepare_images(manifest, **settings)
    assert rejects[["image", "code"]].to_numpy().tolist() == [["000", "hung"]] and len(prepared) == 1
    known = store.root / FILE
    assert not known.exists() or "hung" not in known.read_text()  # the next run tries it again
    monkeypatch.undo()
    prepared, rejects = prepare_images(manifest, **settings)
    assert rejects.empty and len(prepared) == 2


class TakeMemory:
    """A step of a chain that takes so many bytes for the first image."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, item: dict) -> dict:
        if item["image"].endswith("000"):
            np.ones(self.size, dtype=np.uint8)
        return item


def test_a_worker_refuses_what_takes_too_much_memory_and_goes_on(
    tmp_path: Path, bases: dict[str, bytes], chain: Compose
) -> None:
    manifest = cohort(tmp_path, [bases["explicit"], bases["implicit"]])
    greedy = Compose([TakeMemory(2**31), *chain.transforms])
    store = ImageStore(tmp_path / "store")
    tasks = [
        Task(index=index, path=str(tmp_path / name), laterality="L", view="MLO", patient_id=name)
        for index, name in enumerate(manifest["image"])
    ]

    def work() -> list[tuple[str, str]]:
        torch.set_num_threads(1)  # as in a worker
        limit_worker(memory=2**30)
        outcomes = [prepare_one(task, greedy, store, "name") for task in tasks]
        return [(outcome.code, outcome.reason) for outcome in outcomes]

    prepare_one(tasks[1], chain, ImageStore(tmp_path / "warm"), chain_digest(chain))
    first, second = run_apart(work, room=10, seconds=60, memory=2**33)
    assert first[0] == "out_of_memory" and "memory" in first[1]
    assert second == ("", "")


def test_looking_for_a_raw_id_in_a_bomb_finds_none_and_in_a_huge_file_finds_it(
    tmp_path: Path, bases: dict[str, bytes]
) -> None:
    (tmp_path / "bomb").write_bytes(deflate_bomb(bases["explicit"], random.Random(0)))
    assert not is_raw_id(tmp_path / "bomb", "x")
    for name in ("explicit", "implicit", "big_endian", "deflated", "style_cedar"):
        (tmp_path / name).write_bytes(bases[name])
        assert is_raw_id(tmp_path / name, "X ") and not is_raw_id(tmp_path / name, "y")
    with (tmp_path / "huge").open("wb") as file:
        file.write(bases["explicit"])
        file.truncate(2**31)  # sparse
    assert is_raw_id(tmp_path / "huge", "x")
    assert not is_raw_id(tmp_path / "absent", "x")


def test_a_named_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path, chain: Compose) -> None:
    os.mkfifo(tmp_path / "000")
    task = Task(index=0, path=str(tmp_path / "000"), laterality="L", view="CC", patient_id="p")
    assert prepare_one(task, chain, ImageStore(tmp_path / "store"), "name").code == "missing_file"
    with pytest.raises(Refusal, match="missing_file"):
        read_mammogram(tmp_path / "000")


def test_the_table_of_codes_names_the_limits_that_hold() -> None:
    text = " ".join((REPOSITORY / "docs" / "refusals.md").read_text(encoding="utf-8").split())
    limits = Limits()
    for told in (
        f"More than {limits.file_bytes // MEBI} MiB in the file or after inflating, {limits.pixels / 1e6:.0f} million "
        f"pixels, or {limits.elements:,} data elements",
        f"Decoding took more than {isolation.MEMORY_LIMIT // 2**30} GiB, or the whole preparation more than "
        f"{WORKER_MEMORY // 2**30} GiB in a worker process",
        f"Decoding took more than {isolation.TIME_LIMIT:g} s, or the whole image more than {warden.TIME_LIMIT:g} s in "
        "a worker process",
    ):
        assert told in text, told


def test_every_code_has_a_row_in_the_table_of_codes() -> None:
    text = (REPOSITORY / "docs" / "refusals.md").read_text(encoding="utf-8")
    listed = set(
        re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in text.splitlines() if line.count("|") > 3))
    )
    assert listed == {*RefusalCode, "unexpected", "patient_lost", "duplicate"}
