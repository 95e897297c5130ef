"""What is planted in the text tags of DICOM files comes out nowhere: no file, name, table, message, warning or log."""

from __future__ import annotations

import json
import logging
import os
import random
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.transforms import Compose
from PIL import Image, PngImagePlugin

from benchmarks.mutants import MUTATIONS, deflate_bomb, many_elements, png_chunks
from pipeline.cohort import audit, prepare_images
from pipeline.cohort.auditing.printing import printed
from pipeline.cohort.ledger import LEDGER
from pipeline.evaluation import Exam, ExamWriter
from pipeline.evaluation.exam import ExamError
from pipeline.imaging import ImageStore, Refusal, read_mammogram

from .planting import PLANTED, found_below, found_in, planted_dataset, spoiled, written


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A textured half-ellipse on a dark ground, (96, 80) in [0, 1]."""
    rows, columns = np.mgrid[:96, :80]
    inside = ((rows - 48) / 40) ** 2 + (columns / 56) ** 2 < 1
    noise = np.random.default_rng(3).random((96, 80))
    return np.where(inside, 0.45 + 0.3 * noise, 0.02 * noise)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray) -> Path:
    """A folder of planted files: good, spoiled in one tag each, damaged at random; named by number."""
    folder = tmp_path_factory.mktemp("films")
    good = written(planted_dataset(scene))
    contents = [written(planted_dataset(scene * 0.9, every=True)), good]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contents += [content for _, content in spoiled(scene)]
        cheap = [mutation for mutation in MUTATIONS if mutation not in (deflate_bomb, many_elements, png_chunks)]
        for number, mutation in enumerate(cheap * 3):
            contents.append(mutation(good, random.Random(number)))
    for number, content in enumerate(contents):
        (folder / f"{number:03d}.dcm").write_bytes(content)
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", PLANTED["LO"])
    Image.fromarray((scene * 255).astype(np.uint8)).save(folder / "900.png", pnginfo=text)
    (folder / "901.png").write_bytes((folder / "900.png").read_bytes()[:400])
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return folder


def manifest_of(files: Path) -> pd.DataFrame:
    names = sorted(path.name for path in files.iterdir())
    return pd.DataFrame({"image": names, "patient_id": [name[:3] for name in names], "laterality": "L", "view": "MLO"})


def test_the_files_hold_what_is_searched_for(files: Path) -> None:
    assert len(found_below(files)) > 80
    assert all(len(tokens) == 6 for name, tokens in found_below(files).items() if name in ("000.dcm", "001.dcm"))


@pytest.mark.parametrize("workers", [0, 1])
def test_preparing_writes_and_prints_nothing_planted(
    workers: int, tmp_path: Path, files: Path, chain: Compose, caplog, capfd
) -> None:
    store = ImageStore(tmp_path / "store")
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared, rejects = prepare_images(
            manifest_of(files), dataset_dir=files, chain=chain, store=store, workers=workers,
            ledger=store.root / LEDGER,
        )  # fmt: skip
    assert len(prepared) + len(rejects) == len(manifest_of(files))
    assert {"000.dcm", "900.png"} <= set(prepared["image"])
    assert rejects["code"].nunique() >= 8 and not set(rejects["code"]) & {"unexpected", "crashed", "hung"}
    assert len(list(store.root.rglob("*.json"))) >= 2 and (store.root / LEDGER).stat().st_size > 1000
    assert not found_below(tmp_path)
    assert not found_in(prepared.to_csv(), rejects.to_csv(), *map(str, caught), *caplog.messages, *capfd.readouterr())


def test_an_audit_writes_and_prints_nothing_planted(tmp_path: Path, chain: Compose, caplog, capfd) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :80]
    inside = ((rows - 48) / 40) ** 2 + (columns / 56) ** 2 < 1
    root = tmp_path / "films"
    root.mkdir()
    for number in range(24):
        noise = np.kron(rng.random((24, 20)), np.ones((4, 4)))
        dataset = planted_dataset(np.where(inside, 0.45 + 0.3 * noise, 0.02 * noise))
        dataset.Manufacturer = "SIEMENS, planted" if number < 6 else "Planted^Zoe" if number % 2 else "Zoe 4711815"
        dataset.ManufacturerModelName = f"Room of Dr Planted {number % 3}"
        dataset.SoftwareVersions = PLANTED["LO"] if number % 2 else "v2"
        dataset.SOPInstanceUID = f"1.2.{number}"
        (root / f"{number:03d}.dcm").write_bytes(written(dataset))
    names = [f"{number:03d}" for number in range(24)]
    listed = pd.DataFrame({"image": [f"{name}.dcm" for name in names], "patient_id": names})
    listed = listed.assign(laterality="L", view="MLO", label=np.arange(24) % 2, patient_label=np.arange(24) % 2)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = audit(
            listed, dataset_dir=root, preprocessing=chain, store_dir=tmp_path / "out/store", workers=0, progress=False
        )
    result.save(tmp_path / "out/audit.json")
    told = {one.name: one.categories for one in result.shortcuts}
    assert result.counts["prepared"] == 24
    assert {name: set(told[name] or ()) for name in ("manufacturer", "model", "software")} == {
        "manufacturer": {"Siemens", "other 1", "other 2"},
        "model": {"other 1", "other 2", "other 3"},
        "software": {"other 1", "other 2"},
    }
    assert not found_below(tmp_path / "out")
    assert not found_in(*printed(result), *map(str, caught), *caplog.messages, *capfd.readouterr())


def test_an_exam_writes_and_prints_nothing_planted(tmp_path: Path, files: Path, chain: Compose, caplog, capfd) -> None:
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exam = Exam(files, preprocessing=chain, mixed_ids=True)
        writer = ExamWriter(None, exam=exam, output_dir=tmp_path / "out", pictures=False)  # type: ignore[arg-type]
        with pytest.raises(ExamError) as ended:  # no network has run
            writer.write()
    written_down = json.loads((tmp_path / "out/exam.json").read_text())
    assert len(written_down["refusals"]) > 40 and len(exam.items) >= 2
    assert "unexpected" not in {refusal["code"] for refusal in written_down["refusals"]}
    assert not found_below(tmp_path / "out")
    assert not found_in(str(ended.value), *map(str, caught), *caplog.messages, *capfd.readouterr())


def test_a_refusal_with_its_whole_traceback_quotes_nothing_of_the_file(files: Path) -> None:
    refused = 0
    for path in sorted(files.iterdir()):
        try:
            mammogram = read_mammogram(path, laterality="L", view="MLO")
            assert not found_in(str(mammogram.provenance))
        except Refusal as refusal:
            refused += 1
            assert not found_in(str(refusal), "".join(traceback.format_exception(refusal)))
    assert refused > 40
