"""The DICOM attack finds the optimum where it is known, keeps the file valid, and answers in whole grey levels."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import torch
from monai.transforms import Compose
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from torch import nn

from pipeline.evaluation.dicom_attack import dicom_attack_report
from pipeline.evaluation.stored_exam import PatientFiles, StoredExam
from pipeline.evaluation.stored_view import ViewFile
from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
    StretchContrastd,
    prepare_item,
    read_mammogram,
)
from pipeline.imaging.derivative import Derivative
from pipeline.imaging.levels import reachable_levels
from pipeline.imaging.writing import ACQUISITION_STYLES, write_mammogram
from tests.imaging.test_derived_files import objections, real_files

SIZE = 32
STYLES = {style.name: style for style in ACQUISITION_STYLES}
PLAIN = ACQUISITION_STYLES[0]


def chain(*, stretch: bool = False) -> Compose:
    steps = [ReadMammogramd("image"), ApplyWindowd("image"), SegmentBreastd("image")]
    steps += [StretchContrastd("image")] if stretch else []
    return Compose([*steps, CropToBreastd("image"), OrientChestWalld("image"), ResizeImaged("image", image_size=SIZE)])


class Linear(nn.Module):
    """z = sum of w x, w of both signs in blocks of 4 x 4 pixels of the inner breast."""

    def __init__(self) -> None:
        super().__init__()
        signs = torch.where(torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0)
        weight = torch.zeros(SIZE, SIZE)
        weight[8:24, 2:14] = torch.kron(signs, torch.ones(4, 4))
        self.weight = nn.Parameter(weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.weight * images).sum(dim=(1, 2, 3))[:, None]


def write_view(path: Path, *, style=PLAIN, side: str = "L", view: str = "CC", seed: int = 0) -> Path:
    rows, columns = np.mgrid[:240, :180]
    breast = ((rows - 120) / 100) ** 2 + (columns / 130) ** 2 < 1
    noise = np.random.default_rng(seed).standard_normal((240, 180))
    scene = np.clip(np.where(breast, 0.5 + 0.1 * np.sin(rows / 9) + 0.02 * noise, 0.02), 0, 1)
    padding = np.zeros(scene.shape, dtype=bool)
    padding[:, 172:] = True
    if side == "R":
        scene, padding = scene[:, ::-1], padding[:, ::-1]
    write_mammogram(
        path, scene.astype(np.float32), style=style, laterality=side, view=view, spacing_mm=(0.3, 0.3),
        patient_id="SECRET", patient_name="Doe^Jane", study_uid="2.25.1", series_uid="2.25.2",
        instance_uid=f"2.25.{ord(side)}{len(view)}", padding_mask=padding,
    )  # fmt: skip
    return path


def patient(folder: Path, label: int, *, style=PLAIN, views=(("L", "CC"),), name: str = "p-1") -> PatientFiles:
    files = []
    for number, (side, view) in enumerate(views):
        path = write_view(folder / f"{name}_{side}_{view}.dcm", style=style, side=side, view=view, seed=number)
        files.append(ViewFile(path, f"{name}-{number}", side, view))
    return PatientFiles(name, label, tuple(files))


def exam(folder: Path, label: int, *, stretch: bool = False, **settings) -> StoredExam:
    keys = {"style", "views", "name"} & set(settings)
    files = patient(folder, label, **{key: settings.pop(key) for key in keys})
    return StoredExam(files, network=Linear(), chain=chain(stretch=stretch), steps=4, **settings)


@pytest.mark.parametrize("style", ACQUISITION_STYLES, ids=lambda style: style.name)
@pytest.mark.parametrize("label", [0, 1])
def test_a_linear_score_is_attacked_to_its_optimum_in_every_style(style, label: int, tmp_path: Path) -> None:
    attacked = exam(tmp_path, label, style=style)
    view = attacked.views[0]
    found = attacked.attack(3).candidates[0]
    toward = (1 - 2 * label) * view.network.weight.detach()[None]
    gradient = Derivative(view.preparation, view.mammogram, reach=3).pull(toward).numpy()
    stored = view.mammogram.stored
    lower, upper = reachable_levels(stored, view.mammogram.presentation, budget=3)
    best = np.where(gradient > 0, upper, np.where(gradient < 0, lower, stored))
    assert np.array_equal(found.stored, best)
    assert (1 - 2 * label) * (found.logit - view.clean.logit) > 0
    padded = view.mammogram.padded
    assert np.array_equal(view.mammogram.presentation.padded(found.stored), padded)
    assert found.stored.max() < 2**style.bits_stored


def test_the_logit_is_that_of_the_written_file_read_anew(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 0, views=(("L", "CC"), ("L", "MLO"), ("R", "CC")), stretch=True)
    result = attacked.attack(5)
    names = attacked.write(result, tmp_path / "out")
    logits = []
    for name, image in zip(names, result.images, strict=True):
        item = prepare_item(
            chain(stretch=True),
            {"image": str(tmp_path / "out" / name), "laterality": image.laterality, "view": image.view},
        )
        logits.append(float(attacked.network(item["image"][None]).detach()))
        assert logits[-1] == pytest.approx(image.logit_after, abs=1e-5)
        dataset = pydicom.dcmread(tmp_path / "out" / name)
        assert dataset.ImageType[0] == "DERIVED" and dataset.DerivationDescription.startswith("adversarial test image")
        assert dataset.PatientID == "p-1" and b"Doe" not in (tmp_path / "out" / name).read_bytes()
    assert result.logit_after == pytest.approx(attacked.pooled(logits), abs=1e-5)
    assert result.logit_after == pytest.approx(max(np.mean(logits[:2]), logits[2]), abs=1e-5)
    attacked.write(result, tmp_path / "kept", keep_identity=True)
    assert pydicom.dcmread(tmp_path / "kept" / names[0]).PatientID == "SECRET"


def test_attacked_real_files_fool_what_reads_them_anew_and_stay_valid(real_data: Path, tmp_path: Path) -> None:
    for number, source in enumerate(real_files(real_data)[:3]):
        before = prepare_item(chain(), {"image": str(source)})
        file = ViewFile(source, f"real-{number}", before["laterality"], before["view"])
        label = number % 2
        attacked = StoredExam(PatientFiles("p-1", label, (file,)), network=Linear(), chain=chain(), steps=2)
        assert attacked.views, attacked.refusals
        result = attacked.attack(2)
        (name,) = attacked.write(result, tmp_path / str(number))
        target = tmp_path / str(number) / name
        assert not objections(target) - objections(source), source.name
        facts = {"laterality": before["laterality"], "view": before["view"]}
        after = prepare_item(chain(), {"image": str(target), **facts})
        logit = float(attacked.network(after["image"][None]).detach())
        assert logit == pytest.approx(result.logit_after, abs=1e-5)
        assert (1 - 2 * label) * (logit - attacked.logit) > 0, source.name
        change = read_mammogram(target, **facts).stored.astype(int) - read_mammogram(source, **facts).stored
        assert 0 < np.abs(change).max() <= 2


def test_pixels_that_the_preparation_does_not_look_at_stay(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 1)
    view = attacked.views[0]
    found = attacked.attack(2).candidates[0]
    changed = found.stored != view.mammogram.stored
    seen = Derivative(view.preparation, view.mammogram, reach=2).seen().numpy()
    assert changed.any() and not changed[~seen].any()


def test_a_fraction_of_a_level_needs_dithering(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 0)
    whole = attacked.attack(1).logit_after - attacked.logit
    assert attacked.attack(0.41).logit_after == attacked.logit  # rounds to nothing, and nothing worse is taken
    dithered = attacked.attack(0.41, dither=True)
    assert dithered.images[0].largest_change == 1
    assert (dithered.logit_after - attacked.logit) / whole == pytest.approx(0.41, abs=0.03)
    again = attacked.attack(0.41, dither=True)
    assert np.array_equal(again.candidates[0].stored, dithered.candidates[0].stored)
    other = exam(tmp_path, 0, seed=1).attack(0.41, dither=True)
    assert not np.array_equal(other.candidates[0].stored, dithered.candidates[0].stored)


def test_more_levels_never_do_less(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 1, views=(("L", "CC"), ("R", "MLO")))
    result, logits = None, [attacked.logit]
    for budget in (1, 2, 5):
        result = attacked.attack(budget, start=result)
        logits.append(result.logit_after)
        assert max(image.largest_change for image in result.images) <= budget
    assert logits == sorted(logits, reverse=True)


@pytest.mark.parametrize(("label", "levels"), [(0, 1), (0, 6), (1, 3), (1, 5)])
def test_levels_to_flip_is_the_smallest_budget_that_crosses_the_threshold(
    label: int, levels: int, tmp_path: Path
) -> None:
    attacked = exam(tmp_path, label)
    before = attacked.attack(levels - 1).logit_after if levels > 1 else attacked.logit
    threshold = (before + attacked.attack(levels).logit_after) / 2
    flip, result = attacked.levels_to_flip(threshold=threshold, limit=20)
    assert (flip.levels, flip.reason) == (levels, "")
    assert result is not None and result.budget == levels
    assert attacked.flipped(result.logit_after, threshold) and not attacked.flipped(attacked.logit, threshold)
    assert all((logit >= threshold) == ((budget < levels) == (label == 1)) for budget, logit in flip.tried)


def test_out_of_reach_and_wrong_before_are_said(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 0)
    flip, result = attacked.levels_to_flip(threshold=1e6, limit=3)
    assert flip.levels is None and "3 grey levels" in flip.reason
    assert [budget for budget, _ in flip.tried] == [1, 3] and result is not None
    flip, result = attacked.levels_to_flip(threshold=-1e6)
    assert (flip.levels, flip.tried, result) == (0, (), None)
    with pytest.raises(ValueError, match="limit is 0"):
        attacked.levels_to_flip(threshold=0.0, limit=0)


def test_a_budget_below_half_a_level_is_lost_by_rounding_and_kept_by_dithering(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 1, style=STYLES["alder"])
    result = attacked.stored_budget(2e-5)
    assert result.full_scale_levels == pytest.approx((2e-5 * (2 ** attacked.views[0].bits - 1),))
    assert result.share_unrounded == pytest.approx(1, abs=0.1)
    assert result.share_rounded == pytest.approx(0, abs=0.1)
    assert result.share_dithered == pytest.approx(1, abs=0.2)
    large = attacked.stored_budget(0.02)  # dozens of levels: rounding does not matter
    assert large.share_rounded == pytest.approx(large.share_unrounded, abs=0.02)


def test_no_change_gives_no_share_but_a_reason(tmp_path: Path) -> None:
    network = Linear()
    with torch.no_grad():
        network.weight.zero_()
    result = StoredExam(patient(tmp_path, 0), network=network, chain=chain()).stored_budget(1e-4)
    assert result.share_rounded is None and "does not change" in result.reason


def test_the_network_comes_back_as_it_was(tmp_path: Path) -> None:
    attacked = exam(tmp_path, 0)
    attacked.network.train()
    attacked.attack(1)
    assert attacked.network.training and attacked.network.weight.requires_grad
    assert attacked.network.weight.grad is None


def test_a_report_names_what_was_refused_and_goes_on(tmp_path: Path) -> None:
    good = patient(tmp_path, 0, views=(("L", "CC"), ("R", "CC")))
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"no such thing")
    broken = ViewFile(tmp_path / "broken.dcm", "p-1-x", "L", "MLO")
    missing = ViewFile(tmp_path / "Doe_Jane.dcm", "p-2-0", "L", "CC")
    first = PatientFiles("p-1", 0, (*good.files, broken))
    second, wrong = PatientFiles("p-2", 1, (missing,)), PatientFiles("p-3", 7, ())
    logit = StoredExam(good, network=Linear(), chain=chain()).logit
    settings = {
        "chain": chain(),
        "threshold": logit + 1e-3,
        "limit": 4,
        "steps": 4,
        "artefacts": tmp_path / "artefacts",
    }
    report = dicom_attack_report(Linear(), [wrong, second, first], **settings, files_to=tmp_path / "files").to_dict()
    text = (tmp_path / "artefacts" / "dicom_attack.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(report))
    assert str(tmp_path) not in text and "Doe" not in text and "SECRET" not in text
    none, lost, done = report["patients"]
    assert none["reason"] and lost["reason"] == "none of the patient's files can be attacked"
    assert [(entry["image_id"], entry["code"]) for entry in lost["refusals"]] == [("p-2-0", "missing_file")]
    assert [entry["image_id"] for entry in done["refusals"]] == ["p-1-x"]
    assert done["levels_to_flip"]["levels"] == 1 and len(done["attacked"]["images"]) == 2
    assert [(tmp_path / "files" / name).is_file() for name in done["files"]] == [True, True]
    assert report["summary"]["patients"] == 3 and report["summary"]["attacked"] == 1
    assert (report["summary"]["flipped"], report["summary"]["refused_files"]) == (1, 2)
    again = dicom_attack_report(Linear(), [first], **(settings | {"artefacts": None})).to_dict()["patients"][0]
    same = ("logit", "stored_budget", "levels_to_flip", "attacked")
    assert [again[key] for key in same] == [done[key] for key in same]


def test_values_beyond_the_stored_bits_are_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_view(tmp_path / "a.dcm", style=STYLES["alder"]))
    stored = dataset.pixel_array
    codestream = imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=dataset.BitsStored)
    dataset.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.BitsStored, dataset.HighBit = 10, 9
    dataset.save_as(tmp_path / "a.dcm")
    file = ViewFile(tmp_path / "a.dcm", "p-0", "L", "CC")
    opened = StoredExam(PatientFiles("p", 0, (file,)), network=Linear(), chain=chain())
    assert not opened.views and len(opened.refusals) == 1


def test_a_png_is_refused_and_says_why(tmp_path: Path) -> None:
    stored = read_mammogram(write_view(tmp_path / "a.dcm")).stored
    Image.fromarray((stored >> 4).astype(np.uint8)).save(tmp_path / "a.png")
    file = ViewFile(tmp_path / "a.png", "p-0", "L", "CC")
    opened = StoredExam(PatientFiles("p", 0, (file,)), network=Linear(), chain=chain())
    assert not opened.views and "DICOM" in opened.refusals[0]["reason"]
