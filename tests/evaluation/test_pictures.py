"""Pictures lie on the mammogram as it was acquired."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from pipeline.evaluation.gallery import picture_stem
from pipeline.evaluation.picture import Canvas
from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
    prepare_item,
    read_mammogram,
)
from pipeline.phantom import write_cohort


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    manifest = write_cohort(tmp_path_factory.mktemp("pictures") / "phantoms", patients=2, height=192, progress=False)
    return manifest.parent, pd.read_csv(manifest)


def chain():
    steps = [ReadMammogramd, ApplyWindowd, SegmentBreastd, CropToBreastd, OrientChestWalld]
    return Compose([*(step(keys="image") for step in steps), ResizeImaged(keys="image", image_size=96)])


def test_a_map_of_the_prepared_image_lands_where_it_was_taken_from(phantoms):
    root, manifest = phantoms
    assert set(manifest["laterality"]) == {"L", "R"}
    for row in manifest.itertuples():
        item = prepare_item(chain(), {"image": str(root / row.image)})
        pixels = read_mammogram(root / row.image).pixels
        canvas = Canvas(pixels, item["preparation"], text="")
        # The prepared image itself is the map: put back, it must be the picture, wherever it shows breast.
        back = canvas.onto(torch.as_tensor(item["image"])[0])
        breast = back > 0.1
        assert breast.mean() > 0.1
        assert np.corrcoef(back[breast], canvas.picture[breast])[0, 1] > 0.95, row.image
        mirrored = canvas.picture[:, ::-1]
        assert np.abs(back - canvas.picture)[breast].mean() < 0.1 < np.abs(back - mirrored)[breast].mean()


def test_the_saved_picture_is_the_acquired_one_with_the_change_added(phantoms, tmp_path):
    root, manifest = phantoms
    path = root / manifest["image"][0]
    item = prepare_item(chain(), {"image": str(path)})
    canvas = Canvas(read_mammogram(path).pixels, item["preparation"], text="")
    canvas.save(tmp_path / "clean.png")
    canvas.save(tmp_path / "changed.png", change=torch.full((96, 96), 0.25))
    clean, changed = (np.asarray(Image.open(tmp_path / name))[..., 0] / 255 for name in ("clean.png", "changed.png"))
    assert np.abs(clean - canvas.picture)[20:].max() <= 0.5 / 255 + 1e-6
    inside = canvas.onto(torch.ones(96, 96)) > 0.999
    assert inside.any() and not inside.all()
    expected = np.clip(canvas.picture + 0.25, 0, 1)
    assert np.abs(changed - expected)[20:][inside[20:]].max() < 1.5 / 255
    outside = canvas.onto(torch.ones(96, 96)) == 0
    assert np.array_equal(changed[20:][outside[20:]], clean[20:][outside[20:]])


def test_the_change_is_pale_where_there_is_none_and_takes_the_end_colours_at_its_limit(phantoms, tmp_path):
    root, manifest = phantoms
    path = root / manifest["image"][0]
    item = prepare_item(chain(), {"image": str(path)})
    canvas = Canvas(read_mammogram(path).pixels, item["preparation"], text="")
    inside = canvas.onto(torch.ones(96, 96)) > 0.999
    inside[:20] = False  # the text
    for share in (-1.0, -0.5, 0.0, 1.0):
        canvas.save_change(tmp_path / "change.png", torch.full((96, 96), 0.01 * share), limit=0.01)
        drawn = np.asarray(Image.open(tmp_path / "change.png"))[inside] / 255
        expected = matplotlib.colormaps["PuOr_r"](0.5 + 0.5 * share)[:3]
        assert np.abs(drawn - expected).max() < 0.02, share
    canvas.save_change(tmp_path / "none.png", torch.zeros(96, 96), limit=0.0)
    assert (np.asarray(Image.open(tmp_path / "none.png"))[inside] > 240).all()


def test_two_images_of_a_view_have_pictures_of_their_own_and_no_id_becomes_a_path():
    items = [{"laterality": "L", "view": "CC", "image_id": name} for name in ("../site/p1/a.dcm", "../site/p1/b.dcm")]
    stems = {picture_stem(item) for item in items}
    assert len(stems) == 2 and all(stem.startswith("L_CC_") and "/" not in stem for stem in stems)


def test_what_is_written_beside_the_breast_is_not_drawn(phantoms):
    root, manifest = phantoms
    for row in manifest.itertuples():
        item = prepare_item(chain(), {"image": str(root / row.image)})
        pixels = read_mammogram(root / row.image).pixels
        prepared = torch.as_tensor(item["image"])[0]
        plain = Canvas(pixels, item["preparation"], text="")
        letters = np.indices(pixels.shape).sum(0) // 8 % 2
        canvas = Canvas(np.where(pixels > 0.1, pixels, letters), item["preparation"], text="")
        near = torch.nn.functional.max_pool2d((prepared > 0).float()[None], 7, 1, 3)[0]
        beside, breast = canvas.onto(near) == 0, canvas.onto((prepared > 0.1).float()) == 1
        assert beside.mean() > 0.1 and canvas.picture[beside].max() == 1
        canvas.keep_breast(prepared)
        assert canvas.picture[beside].max() == 0
        assert breast.mean() > 0.1 and np.array_equal(canvas.picture[breast], plain.picture[breast])
