"""The chain of MONAI transforms as a whole: geometry, orientation, configuration, digest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from pipeline.imaging import (
    CropToBreastd,
    ImageStore,
    LoadPreparedd,
    Refusal,
    ResizeImaged,
    StretchContrastd,
    chain_digest,
    chain_from_description,
    describe_chain,
    prepare_item,
)

from .scenes import breast_mask, breast_scene, write_dicom, write_png

CONFIGURATION = {
    "_target_": "Compose",
    "transforms": [
        {"_target_": "pipeline.imaging.ReadMammogramd", "keys": "image"},
        {"_target_": "pipeline.imaging.ApplyWindowd", "keys": "image", "policy": "auto"},
        {"_target_": "pipeline.imaging.SegmentBreastd", "keys": "image", "remove_background": True},
        {"_target_": "pipeline.imaging.CropToBreastd", "keys": "image", "margin": 0.02},
        {"_target_": "pipeline.imaging.OrientChestWalld", "keys": "image"},
        {"_target_": "pipeline.imaging.ResizeImaged", "keys": "image", "image_size": 96},
    ],
}


def _chain(**changes: dict) -> Compose:
    configuration = json.loads(json.dumps(CONFIGURATION))
    for transform in configuration["transforms"]:
        transform.update(changes.get(transform["_target_"].rsplit(".", 1)[1], {}))
    parser = ConfigParser({"preprocessing": configuration})
    return parser.get_parsed_content("preprocessing")


def _item(path: Path, side: str = "L") -> dict:
    return {"image": str(path), "laterality": side, "view": "CC", "label": 1}


def test_json_configuration_prepares_a_png(tmp_path) -> None:
    item = prepare_item(_chain(), _item(write_png(tmp_path / "a.png", breast_scene(400, 300))))
    image = item["image"]
    assert (image.shape, image.dtype, type(image)) == ((1, 96, 96), torch.float32, torch.Tensor)
    assert not isinstance(image, MetaTensor)
    assert image.min() >= 0 and image.max() <= 1
    assert not {"mammogram", "breast_mask"} & set(item)
    assert (item["laterality"], item["view"], item["label"]) == ("L", "CC", 1)


@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_chest_wall_ends_at_the_left_whatever_the_side_says(tmp_path, chest_wall: str, side: str) -> None:
    path = write_png(tmp_path / "a.png", breast_scene(400, 300, chest_wall=chest_wall))
    item = prepare_item(_chain(), _item(path, side))
    image = item["image"][0]
    assert image[:, :10].sum() > 1.4 * image[:, 40:50].sum()
    usual = {"L": "left", "R": "right"}[side]
    agreement = "agrees" if usual == chest_wall else "disagrees"
    assert item["provenance"]["chest_wall"].startswith(f"{chest_wall} (pixels)")
    assert item["provenance"]["chest_wall"].endswith(f"usual hanging of {side} {agreement}")


def test_aspect_is_kept_and_padding_lies_right_and_below(tmp_path) -> None:
    path = write_png(tmp_path / "a.png", breast_scene(400, 300))
    item = prepare_item(_chain(ResizeImaged={"image_size": [120, 200]}), _item(path))
    scale = item["preparation"].spacing((1.0, 1.0))
    assert scale[0] == pytest.approx(scale[1], rel=0.02)
    pad = item["preparation"].steps[-1]
    assert pad.right > 0 and pad.bottom == 0
    assert (item["image"][..., -pad.right :] == 0).all()
    corner = item["preparation"].to_source([[0.0, 0.0], [119.0, 199.0 - pad.right]])
    rows, columns = np.nonzero(breast_mask(400, 300))
    assert corner[0].tolist() == pytest.approx([rows.min(), columns.min()], abs=14)
    assert corner[1].tolist() == pytest.approx([rows.max(), columns.max()], abs=14)


def test_burned_in_letters_do_not_survive(tmp_path) -> None:
    scene = breast_scene(400, 300)
    scene[60:75, 165:185] = 1.0  # inside the crop box, outside the breast
    path = write_png(tmp_path / "a.png", scene)
    for remove_background, shown in ((True, 0.0), (False, 1.0)):
        item = prepare_item(_chain(SegmentBreastd={"remove_background": remove_background}), _item(path))
        row, column = item["preparation"].to_prepared([[67.0, 175.0]])[0].round().int().tolist()
        assert item["image"][0, row, column].item() == pytest.approx(shown)


def test_a_dicom_file_and_its_inverted_twin_are_prepared_alike(tmp_path) -> None:
    stored = np.rint(breast_scene(400, 300) * 4000).astype(np.uint16)
    plain = write_dicom(tmp_path / "a.dcm", stored)
    twin = write_dicom(tmp_path / "b.dcm", 4095 - stored, PhotometricInterpretation="MONOCHROME1")
    images = [prepare_item(_chain(), {"image": str(path)})["image"] for path in (plain, twin)]
    assert (images[0] - images[1]).abs().max() < 1e-5


def test_stretch_makes_the_percentiles_of_the_breast_black_and_white(tmp_path) -> None:
    path = write_png(tmp_path / "a.png", 0.2 * breast_scene(400, 300))
    transforms = list(_chain().transforms)
    transforms.insert(3, StretchContrastd(keys="image", percentiles=(10, 90)))
    item = prepare_item(Compose(transforms), _item(path))
    step = item["preparation"].steps[2]
    shown = 0.2 * breast_scene(400, 300)[breast_mask(400, 300)]
    assert (step.low, step.high) == pytest.approx(tuple(np.percentile(shown, (10, 90))), abs=0.006)
    assert item["image"].max() > 0.9


def test_refusal_leaves_the_chain_unwrapped_and_with_its_place(tmp_path) -> None:
    path = write_png(tmp_path / "a.png", np.zeros((100, 80)))
    with pytest.raises(Refusal) as caught:
        prepare_item(_chain(), _item(path))
    assert (caught.value.code, caught.value.where) == ("no_breast", str(path))
    with pytest.raises(Refusal, match="missing_file"):
        prepare_item(_chain(), _item(tmp_path / "absent.png"))


def test_digest_follows_settings_and_nothing_else(tmp_path) -> None:
    digest = chain_digest(_chain())
    item = prepare_item(chain := _chain(), _item(write_png(tmp_path / "a.png", breast_scene(200, 150))))
    assert item["image"].shape[-1] == 96
    assert chain_digest(chain) == chain_digest(_chain()) == digest
    changed = [
        _chain(ApplyWindowd={"policy": "none"}),
        _chain(SegmentBreastd={"remove_background": False}),
        _chain(CropToBreastd={"margin": 0.03}),
        _chain(ResizeImaged={"image_size": [96, 95]}),
        Compose(_chain().transforms[:-1]),
    ]
    assert len({digest, *map(chain_digest, changed)}) == 6
    with pytest.raises(ValueError, match="no stable description"):
        chain_digest(Compose([lambda item: item]))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ResizeImaged(keys="image", image_size=0), "image_size"),
        (lambda: CropToBreastd(keys="image", margin=-0.1), "margin"),
        (lambda: CropToBreastd(keys=["image", "other"]), "one image key"),
        (lambda: StretchContrastd(keys="image", percentiles=(99, 1)), "percentiles"),
    ],
)
def test_wrong_settings_are_named(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_store_returns_what_was_put_and_computes_nothing_twice(tmp_path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", np.rint(breast_scene(400, 300) * 4000).astype(np.uint16), ImagerPixelSpacing=[0.1, 0.1]
    )
    chain, store = _chain(), ImageStore(tmp_path / "store")
    key = store.key(path, chain_digest(chain))
    assert store.get(key) is None
    item = prepare_item(chain, {"image": str(path), "patient_id": "p1"})
    kept = store.put(key, item["image"], item)
    assert store.get(key) == kept
    assert store.key(path, chain_digest(_chain(CropToBreastd={"margin": 0.5}))) != key
    loaded = LoadPreparedd(keys="image")({"image": str(kept), "label": 1})["image"]
    assert (loaded.shape, loaded.dtype) == (item["image"].shape, torch.float32)
    assert (loaded - item["image"]).abs().max() <= 0.5001 / 65535
    record = store.sidecar(kept)
    assert record["preparation"] == item["preparation"]
    assert record["prepared_spacing_mm"] == pytest.approx(item["preparation"].spacing((0.1, 0.1)))
    text = kept.with_suffix(".json").read_text()
    assert "p1" not in text and "SECRET" not in text and str(tmp_path) not in text
    assert not list(kept.parent.glob(".writing-*"))


def test_stored_picture_opens_in_other_tools_the_right_way_round(tmp_path) -> None:
    import itk

    image = torch.rand(1, 30, 20)
    path = ImageStore(tmp_path).put("ab" * 32, image, {})
    np.testing.assert_allclose(itk.array_from_image(itk.imread(str(path), itk.F)), image[0].numpy(), atol=1e-5)


def test_store_refuses_what_is_no_prepared_image(tmp_path) -> None:
    store = ImageStore(tmp_path)
    for image in (torch.full((1, 4, 4), 1.1), torch.full((1, 4, 4), float("nan")), torch.zeros(4, 4)):
        with pytest.raises(ValueError, match="prepared image"):
            store.put("ab" * 32, image, {})
    assert store.get("ab" * 32) is None


def test_a_failed_write_leaves_no_picture(tmp_path, monkeypatch) -> None:
    store = ImageStore(tmp_path)
    monkeypatch.setattr("pipeline.imaging.store._nifti", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.put("ab" * 32, torch.zeros(1, 4, 4), {})
    assert store.get("ab" * 32) is None


def test_chain_is_rebuilt_from_its_description_and_foreign_classes_are_not_built() -> None:
    description = json.loads(json.dumps(describe_chain(_chain())))
    assert chain_digest(chain_from_description(description)) == chain_digest(_chain())
    with pytest.raises(ValueError, match="os.system"):
        chain_from_description([{"class": "os.system", "settings": {}}])
