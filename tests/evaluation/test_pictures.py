"""Pictures lie on the mammogram as it was acquired, and the gallery does not pick its patients by result."""

import numpy as np
import pandas as pd
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from pipeline.evaluation.gallery import Gallery, picture_stem
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


class _Cohort:
    def items(self, _partition, _purpose):
        return [
            {"patient_id": f"p{i}", "patient_label": int(i < 5), "laterality": side, "view": view}
            for i in range(10) for side in "LR" for view in ("CC", "MLO")
        ]  # fmt: skip


class _Metric:
    def __init__(self, seed):
        rows = _Cohort().items("", "")
        logits = np.random.default_rng(seed).normal(size=len(rows))
        self.table = pd.DataFrame(rows).assign(logit=logits, attack_id="clean")


def test_patients_are_chosen_by_a_seeded_hash_and_breasts_by_their_score():
    def chosen(result, seed=0, patients=4):
        gallery = Gallery(None, metric=_Metric(result), cohort=_Cohort(), run_directory=None, attack=None,
                          patients=patients, seed=seed)  # fmt: skip
        return gallery._chosen_items()

    first, second = chosen(1), chosen(2)
    people = [item["patient_id"] for item in first]
    assert people == [item["patient_id"] for item in second], "not by result"
    labels = {item["patient_id"]: item["patient_label"] for item in first}
    assert sorted(labels.values()) == [0, 0, 1, 1] and len(first) == 8
    table = _Metric(1).table.groupby(["patient_id", "laterality"])["logit"].mean()
    for item in first:
        assert item["laterality"] == table[item["patient_id"]].idxmax()
    assert {i["patient_id"] for s in range(8) for i in chosen(1, seed=s)} != set(people)
    assert len({item["patient_id"] for item in chosen(1, patients=3)}) == 3
    assert chosen(1, patients=0) == []


def test_two_images_of_a_view_have_pictures_of_their_own_and_no_id_becomes_a_path():
    items = [{"laterality": "L", "view": "CC", "image_id": name} for name in ("../site/p1/a.dcm", "../site/p1/b.dcm")]
    stems = {picture_stem(item) for item in items}
    assert len(stems) == 2 and all(stem.startswith("L_CC_") and "/" not in stem for stem in stems)
