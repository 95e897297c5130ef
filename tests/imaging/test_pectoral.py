"""The pectoral muscle is found where it is, and nothing is removed where its edge is not clear."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
    StretchContrastd,
    chain_digest,
    prepare_item,
    segment_breast,
)
from pipeline.imaging.pectoral import SURE, pectoral_muscle
from pipeline.phantom.cohort import patient_scenes
from pipeline.phantom.lesions import Difficulty
from pipeline.phantom.patient import draw_patient

from .scenes import oblique_scene, write_png


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * (found & true).sum() / (found.sum() + true.sum())


def _chain(*, stretch: bool = False, **settings: bool) -> Compose:
    steps = [ReadMammogramd(keys="image"), ApplyWindowd(keys="image"), SegmentBreastd(keys="image", **settings)]
    if stretch:
        steps.append(StretchContrastd(keys="image"))
    steps += [CropToBreastd(keys="image"), OrientChestWalld(keys="image"), ResizeImaged(keys="image", image_size=200)]
    return Compose(steps)


@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize(("across", "down"), [(0.3, 0.4), (0.45, 0.55), (0.2, 0.8), (0.5, 0.3)])
@pytest.mark.parametrize("contrast", [1.0, 0.1])
def test_muscle_is_found_whatever_its_slope_side_and_contrast(chest_wall, across, down, contrast) -> None:
    scene, breast, muscle = oblique_scene(400, 300, chest_wall=chest_wall, across=across, down=down)
    found, confidence = pectoral_muscle(contrast * scene, breast=breast, chest_wall=chest_wall, view="MLO")
    assert _dice(found, muscle) > 0.93
    assert SURE < confidence <= 1


def test_muscle_is_found_on_phantoms() -> None:
    values, sure = [], []
    for number in range(6):
        patient = draw_patient(3, number, difficulty=Difficulty.MEDIUM)
        for side, view, scene in patient_scenes(patient, seed=3, height=400):
            wall = "left" if side == "L" else "right"
            breast = segment_breast(scene.pixels)
            assert _dice(breast, scene.breast & ~scene.padding) >= 0.97
            found, confidence = pectoral_muscle(scene.pixels, breast=breast, chest_wall=wall, view=view)
            if view == "CC":
                assert not scene.pectoral.any() and not found.any() and confidence == 0
            elif confidence >= SURE:
                values.append(_dice(found, scene.pectoral & ~scene.padding))
            sure.append(confidence >= SURE)
    assert np.mean(values) >= 0.9 and len(values) >= 9


def test_breast_without_an_edge_keeps_everything_and_says_so() -> None:
    scene, breast, _ = oblique_scene(400, 300, step=0.0)
    found, confidence = pectoral_muscle(scene, breast=breast, chest_wall="left", view="MLO")
    assert not found.any() and confidence < SURE


def test_confidence_rises_with_the_step_at_the_edge() -> None:
    sure = []
    for step in (0.0, 0.05, 0.1, 0.2):
        scene, breast, _ = oblique_scene(400, 300, step=step)
        sure.append(pectoral_muscle(scene, breast=breast, chest_wall="left", view="MLO")[1])
    assert sure == sorted(sure)


def test_muscle_stays_inside_the_breast_and_at_full_size() -> None:
    scene, breast, _ = oblique_scene(801, 603)
    found, _ = pectoral_muscle(scene, breast=breast, chest_wall="left", view="MLO")
    assert found.shape == scene.shape and not (found & ~breast).any()


def test_wrong_arguments_are_refused_in_words() -> None:
    scene, breast, _ = oblique_scene(100, 80)
    with pytest.raises(ValueError, match="'left' or 'right'"):
        pectoral_muscle(scene, breast=breast, chest_wall="top", view="MLO")
    with pytest.raises(ValueError, match="one size"):
        pectoral_muscle(scene, breast=breast[1:], chest_wall="left", view="MLO")


@pytest.mark.parametrize("remove_background", [True, False])
def test_transform_sets_the_muscle_to_zero_and_leaves_the_rest(tmp_path: Path, remove_background: bool) -> None:
    scene, _, muscle = oblique_scene(400, 300)
    item = {"image": str(write_png(tmp_path / "a.png", scene)), "laterality": "L", "view": "MLO"}
    kept = prepare_item(_chain(remove_background=remove_background), item)
    removed = prepare_item(_chain(remove_background=remove_background, remove_pectoral=True), item)
    assert "pectoral_muscle" not in kept["provenance"]
    assert removed["provenance"]["pectoral_muscle"].startswith("removed, confidence ")
    assert not set(removed) & {"mammogram", "breast_mask", "pectoral_mask"}
    assert kept["image"].shape == removed["image"].shape
    changed = (kept["image"] != removed["image"])[0].numpy()
    assert (removed["image"][0].numpy()[changed] < kept["image"][0].numpy()[changed]).all()
    assert changed.sum() == pytest.approx(muscle.sum() / 400**2 * 200**2, rel=0.35)  # the crop enlarges a little


def test_contrast_is_stretched_over_the_tissue_without_the_muscle(tmp_path: Path) -> None:
    scene, breast, muscle = oblique_scene(400, 300)
    item = {"image": str(write_png(tmp_path / "a.png", scene)), "laterality": "L", "view": "MLO"}
    steps = prepare_item(_chain(stretch=True, remove_pectoral=True), item)["preparation"].steps
    stretch = next(step for step in steps if type(step).__name__ == "Stretch")
    low, high = np.percentile(scene[breast & ~muscle], [1, 99])
    assert stretch.high == pytest.approx(high, abs=0.04)
    assert 0.02 < stretch.low <= low + 0.02  # not the zeros of the muscle


def test_replay_of_a_removed_muscle_is_identical(tmp_path: Path) -> None:
    scene, _, _ = oblique_scene(400, 300, chest_wall="right")
    path = write_png(tmp_path / "a.png", scene)
    chain = _chain(remove_pectoral=True)
    item = prepare_item(chain, {"image": str(path), "laterality": "R", "view": "MLO"})
    stored = torch.from_numpy(np.array(Image.open(path)))
    assert torch.equal(item["preparation"].apply(stored), item["image"])
    # Floating values go through the steps one by one: the same within half a grey level of 65,535.
    torch.testing.assert_close(item["preparation"].apply(stored.float()), item["image"], rtol=0, atol=0.5 / 65535)


def test_unsure_and_other_views_are_kept_and_named(tmp_path: Path) -> None:
    scene, _, _ = oblique_scene(400, 300, step=0.0)
    path = str(write_png(tmp_path / "a.png", scene))
    for view, words in (("MLO", "kept, confidence"), ("CC", "not looked for in CC")):
        item = {"image": path, "laterality": "L", "view": view}
        removed = prepare_item(_chain(remove_pectoral=True), item)
        assert removed["provenance"]["pectoral_muscle"].startswith(words)
        assert (removed["image"] == prepare_item(_chain(), item)["image"]).all()


def test_removal_is_part_of_the_digest() -> None:
    assert chain_digest(_chain()) == chain_digest(_chain(remove_pectoral=False))
    assert chain_digest(_chain()) != chain_digest(_chain(remove_pectoral=True))


def test_films_give_a_muscle_in_the_upper_corner_at_the_chest_wall(real_data: Path) -> None:
    root = real_data / "ddsm-small"
    with (root / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["view"] == "MLO"][::40]
    removed = 0
    for row in rows:
        pixels = np.asarray(Image.open(root / row["image"]), dtype=np.float32) / 255
        wall = "left" if (row["laterality"] == "L") != (row["scanner_group"] == "A") else "right"
        breast = segment_breast(pixels)
        muscle, _ = pectoral_muscle(pixels, breast=breast, chest_wall=wall, view="MLO")
        if muscle.any():
            removed += 1
            inside, outside = np.median(pixels[muscle]), np.median(pixels[breast & ~muscle])
            assert inside > outside and muscle.sum() < 0.5 * breast.sum()
    assert removed > 0.5 * len(rows)
