"""Facts about pictures that are alike: copies are found however they were changed, strangers are not."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift, zoom

from pipeline.cohort.auditing.looks import (
    CANDIDATE,
    FLIPS,
    SAME_DETAIL,
    near_pairs,
    read_levels,
    read_looks,
    same_pixels,
)
from pipeline.imaging import ImageStore
from pipeline.imaging.store import load_prepared

SIDE = 96


def breast(seed: int) -> np.ndarray:
    """The same outline for everybody, tissue of one's own, in [0, 1]."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = ((rows - SIDE / 2) / (0.47 * SIDE)) ** 2 + (columns / (0.7 * SIDE)) ** 2 < 1
    rng = np.random.default_rng(seed)
    tissue = sum(gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma) * sigma for sigma in (1, 2, 4, 8))
    return np.where(inside, np.clip(0.45 + 0.12 * tissue, 0.05, 1), 0).astype(np.float32)


CHANGES = {
    "brighter": lambda image: np.where(image > 0, 0.15 + 0.8 * image**0.7, 0),
    "noisy": lambda image: np.where(image > 0, image + np.random.default_rng(9).normal(0, 0.03, image.shape), 0),
    "resampled": lambda image: zoom(zoom(image, 0.8, order=1), SIDE / round(0.8 * SIDE), order=1)[:SIDE, :SIDE],
    "moved": lambda image: shift(image, (2, 0), order=1),
    "cropped": lambda image: np.where(np.arange(SIDE)[:, None] > 5, image, 0),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned": lambda image: image[::-1, ::-1],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return ImageStore(tmp_path_factory.mktemp("store"))


def put(store: ImageStore, image: np.ndarray, name: str) -> str:
    picture = torch.from_numpy(np.ascontiguousarray(np.clip(image, 0, 1), dtype=np.float32))[None]
    return str(store.put(name.ljust(8, "0"), picture, {}))


@pytest.fixture(scope="module")
def strangers(store: ImageStore) -> list[str]:
    return [put(store, breast(seed), f"{seed:03d}s") for seed in range(40)]


def test_levels_are_those_of_the_store(store: ImageStore, strangers: list[str], tmp_path: Path) -> None:
    assert np.array_equal(read_levels(strangers[0]) / np.float32(65535), load_prepared(strangers[0])[0].numpy())
    wide = put(store, breast(1)[:40], "wide")
    assert read_levels(wide).shape == (40, SIDE)
    picture = nibabel.Nifti1Image(np.zeros((4, 4), dtype=np.uint8), np.eye(4))
    nibabel.save(picture, tmp_path / "foreign.nii")
    with pytest.raises(ValueError, match="no prepared picture"):
        read_levels(str(tmp_path / "foreign.nii"))


def test_strangers_of_one_outline_are_candidates_but_not_alike(strangers: list[str]) -> None:
    looks = read_looks(strangers)
    people = np.arange(len(strangers)).astype(str)
    assert near_pairs(looks, people).empty and not list(same_pixels(looks.digests, people))
    assert near_pairs(looks, people, candidate=-1.0).empty  # every one of the 780 pairs, in every flip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_as_what_it_is(change: str, store: ImageStore, strangers: list[str]) -> None:
    copy = put(store, CHANGES[change](breast(7)), f"copy{list(CHANGES).index(change)}")
    looks = read_looks([*strangers, copy])
    found = near_pairs(looks, np.arange(len(strangers) + 1).astype(str))
    assert found[["first", "second"]].to_numpy().tolist() == [[7, len(strangers)]]
    assert found["flip"].item() == (change if change in FLIPS else "")
    assert found["similarity"].item() >= SAME_DETAIL and found["agreement"].item() >= CANDIDATE


def test_flipped_hashes_are_those_of_flipped_pictures(store: ImageStore) -> None:
    full = np.maximum(breast(3), 0.02)  # fills its frame, so that the box is the same either way
    flips = [full[:: -1 if vertical else 1, :: -1 if horizontal else 1] for vertical, horizontal in FLIPS.values()]
    looks = read_looks([put(store, image, f"flip{index}") for index, image in enumerate(flips)])
    for index, signs in enumerate(looks.flips.values()):
        assert (looks.bits[0] * signs == looks.bits[index]).mean() > 0.99


def test_images_of_one_person_or_one_part_are_not_compared(store: ImageStore, strangers: list[str]) -> None:
    looks = read_looks([strangers[0], put(store, CHANGES["brighter"](breast(0)), "again")])
    assert len(near_pairs(looks, np.array(["a", "b"]))) == 1
    assert near_pairs(looks, np.array(["a", "a"])).empty
    assert near_pairs(looks, np.array(["a", "b"]), parts=np.array(["test", "test"])).empty
    assert len(near_pairs(looks, np.array(["a", "b"]), parts=np.array(["test", "training"]))) == 1


def test_equal_digests_pair_people_once_and_empty_ones_never() -> None:
    people = np.array(["a", "a", "b", "c", "d", "e"])
    assert list(same_pixels(["x", "x", "x", "", "", "x"], people)) == [(0, 2), (0, 5)]


def test_different_patients_of_ddsm_are_not_alike(real_data: Path, tmp_path: Path) -> None:
    """One CC view of 32 film patients, white frames, letters and all."""
    from monai.bundle import ConfigParser

    from pipeline import bundle_file
    from pipeline.cohort.preparing import prepare_images
    from pipeline.cohort.sources.ddsm import ddsm_manifest

    parser = ConfigParser()
    parser.read_config(bundle_file("train.json"))
    manifest = ddsm_manifest(real_data / "ddsm-small")
    manifest = manifest[(manifest["view"] == "CC") & (manifest["laterality"] == "L")].iloc[::16].reset_index(drop=True)
    prepared, _ = prepare_images(
        manifest, dataset_dir=real_data / "ddsm-small", chain=parser.get_parsed_content("preprocessing"),
        store=ImageStore(tmp_path), workers=0, progress=False,
    )  # fmt: skip
    assert len(prepared) >= 31
    assert near_pairs(read_looks(prepared["prepared"].tolist()), prepared["patient_id"].to_numpy(dtype=str)).empty
