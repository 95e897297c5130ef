"""One scene written in every photometric, bit depth, lookup table and transfer syntax is one image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from pydicom import uid
from pydicom.dataset import Dataset

from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    ImageStore,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
    chain_digest,
    load_prepared,
    prepare_item,
    read_mammogram,
)

from .encoding import LOSSLESS, LOSSY, NATIVE, encoded_dataset
from .scenes import breast_scene

SCENE = np.clip(breast_scene(160, 120), 0.02, 0.98)
GREY_LEVEL = 1 / 255
Written = tuple[np.ndarray, dict]


def _range(scene: np.ndarray, bits: int) -> Written:
    return scene * (2**bits - 1), {}


def _linear(scene: np.ndarray, bits: int) -> Written:
    width, centre = round(0.9 * 2**bits), 2 ** (bits - 1)
    return (scene - 0.5) * (width - 1) + centre - 0.5, {"WindowCenter": centre, "WindowWidth": width}


def _exact(scene: np.ndarray, bits: int) -> Written:
    width, centre = round(0.9 * 2**bits), 2 ** (bits - 1)
    tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": "LINEAR_EXACT"}
    return (scene - 0.5) * width + centre, tags


def _sigmoid(scene: np.ndarray, bits: int) -> Written:
    width, centre = 2 ** (bits - 1), 2 ** (bits - 1)
    tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": "SIGMOID"}
    return centre + width / 4 * np.log(scene / (1 - scene)), tags


def _rescaled(scene: np.ndarray, bits: int) -> Written:
    tags = {"RescaleSlope": 0.5, "RescaleIntercept": -30, "VOILUTFunction": "LINEAR_EXACT"}
    return scene * (2**bits - 1), tags | {
        "WindowCenter": (2**bits - 1) / 4 - 30,
        "WindowWidth": (2**bits - 1) / 2,
    }


def _full_width(scene: np.ndarray, bits: int) -> Written:
    tags = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits, "VOILUTFunction": "SIGMOID"}
    return scene * (2**bits - 1), tags | {"WindowCenterWidthExplanation": f"Full width of {bits} bit data"}


def _voi_table(scene: np.ndarray, bits: int) -> Written:
    """Entries (x + x ** 2) / 2, whose slope is at most 1.5."""
    levels = np.arange(2**bits) / (2**bits - 1)
    tags = {"VOILUTSequence": _table((levels + levels**2) / 2)}
    return (np.sqrt(0.25 + 2 * scene) - 0.5) * (2**bits - 1), tags


def _modality_table(scene: np.ndarray, bits: int) -> Written:
    """A curved Modality LUT of 16 bits, and no VOI."""
    levels = np.arange(2**bits) / (2**bits - 1)
    return (np.sqrt(0.25 + 2 * scene) - 0.5) * (2**bits - 1), {"ModalityLUTSequence": _table((levels + levels**2) / 2)}


def _table(curve: np.ndarray) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [curve.size % 65536, 0, 16])
    item.add_new("LUTData", "OW", np.rint(curve * 65535).astype("<u2").tobytes())
    return [item]


FORMS = (_range, _linear, _exact, _sigmoid, _rescaled, _full_width, _voi_table, _modality_table)


def _write(path: Path, *, form: Callable, bits: int, photometric: str, syntax: str, signed: bool = False) -> Path:
    inverse = photometric == "MONOCHROME1"
    levels, tags = form(1 - SCENE if inverse else SCENE, bits)
    stored = np.clip(np.rint(levels), 0, 2**bits - 1).astype(np.int64)
    if signed:  # the same picture, all values lowered by half the range; rescale brings them back
        stored -= 2 ** (bits - 1)
        tags = {"RescaleSlope": 1, "RescaleIntercept": 2 ** (bits - 1)} | tags
    tags |= {"PhotometricInterpretation": photometric, "PresentationLUTShape": "INVERSE" if inverse else "IDENTITY"}
    typed = stored.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    encoded_dataset(typed, syntax, bits=bits, **tags).save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.strip("_"))
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_every_table_and_window_in_every_depth_shows_the_scene(tmp_path: Path, form: Callable, photometric) -> None:
    for bits in (8, 10, 12, 14, 16):
        settings = {"form": form, "bits": bits, "photometric": photometric, "syntax": uid.ExplicitVRLittleEndian}
        shown = read_mammogram(_write(tmp_path / "a.dcm", **settings)).pixels
        assert np.abs(shown - SCENE).max() <= GREY_LEVEL, bits
    assert np.abs(shown - SCENE).max() < 2 / 65535  # 16 bits are kept


@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS + LOSSY, ids=lambda syntax: uid.UID(syntax).name.split(",")[0])
def test_every_transfer_syntax_shows_the_scene(tmp_path: Path, syntax: str) -> None:
    few = {uid.JPEGBaseline8Bit: (8,), uid.JPEGExtended12Bit: (8, 12)}
    few[uid.JPEG2000] = (10, 12, 14, 16)  # of 8 bits, the lossy encoder itself loses two levels
    depths = few.get(uid.UID(syntax), (8, 10, 12, 14, 16))
    for bits in depths:
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            settings = {"form": _range, "bits": bits, "photometric": photometric}
            shown = read_mammogram(_write(tmp_path / "a.dcm", syntax=syntax, **settings)).pixels
            plain = read_mammogram(_write(tmp_path / "b.dcm", syntax=uid.ExplicitVRLittleEndian, **settings)).pixels
            assert np.abs(shown - plain).max() <= (GREY_LEVEL + 1e-6 if syntax in LOSSY else 0), settings
            assert np.abs(plain - SCENE).max() <= GREY_LEVEL


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
def test_signed_values_show_the_scene(tmp_path: Path, syntax: str) -> None:
    for bits in (8, 12, 16):
        for form in (_range, _linear, _sigmoid):
            settings = {"bits": bits, "photometric": "MONOCHROME2", "syntax": syntax, "form": form, "signed": True}
            assert np.abs(read_mammogram(_write(tmp_path / "a.dcm", **settings)).pixels - SCENE).max() <= GREY_LEVEL


def _chain() -> Compose:
    return Compose(
        [
            ReadMammogramd(keys="image"),
            ApplyWindowd(keys="image"),
            SegmentBreastd(keys="image", remove_background=False),
            CropToBreastd(keys="image"),
            OrientChestWalld(keys="image"),
            ResizeImaged(keys="image", image_size=96),
        ]
    )


def test_prepared_images_of_all_variants_are_one_within_a_grey_level(tmp_path: Path) -> None:
    images = []
    for index, form in enumerate(FORMS):
        syntax = (*LOSSLESS, uid.ExplicitVRLittleEndian)[index]
        for bits, photometric in ((8, "MONOCHROME1"), (12, "MONOCHROME2"), (16, "MONOCHROME1")):
            settings = {"form": form, "bits": bits, "photometric": photometric, "syntax": syntax}
            item = prepare_item(_chain(), {"image": str(_write(tmp_path / "a.dcm", **settings))})
            images.append(item["image"])
    assert max(float((image - images[-1]).abs().max()) for image in images) <= GREY_LEVEL


def test_sixteen_bits_reach_the_network(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.dcm", form=_range, bits=16, photometric="MONOCHROME2", syntax=uid.ExplicitVRLittleEndian
    )
    store = ImageStore(tmp_path / "store")
    item = prepare_item(_chain(), {"image": str(path)})
    kept = load_prepared(store.put(store.key(path, chain_digest(_chain())), item["image"], item))
    assert len(torch.unique(item["image"])) > 2000  # 8 bits have 256
    assert (kept - item["image"]).abs().max() <= 0.51 / 65535
