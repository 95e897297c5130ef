"""One view shows the anatomy it claims, and findings change their place and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from pipeline.phantom.anatomy import BreastShape, Outline, outline_of
from pipeline.phantom.lesions import BENIGN, MALIGNANT, Difficulty, Finding, LesionKind, draw_lesion
from pipeline.phantom.letters import draw_letters
from pipeline.phantom.scene import Scene, add_finding, draw_scene
from pipeline.phantom.tissue import draw_tissue

BREAST = BreastShape(depth_mm=110, height_mm=175, thickness_mm=55, density=0.3)
KINDS = [kind for kind in BENIGN + MALIGNANT if kind is not LesionKind.NONE]


def finding(kind: LesionKind = LesionKind.NONE) -> Finding:
    return Finding(kind=kind, depth=0.5, across=0.2, up=0.2, radius_mm=9.0, contrast=0.28)


def scene(
    kind: LesionKind = LesionKind.NONE, *, laterality: str = "L", view: str = "CC", height: int = 250, seed: int = 0,
    breast: BreastShape = BREAST, noise: float = 0.0,
) -> Scene:  # fmt: skip
    return draw_scene(
        breast, finding(kind), laterality=laterality, view=view, generator=np.random.default_rng(seed), height=height,
        noise=noise,
    )  # fmt: skip


def outline(view: str) -> Outline:
    return outline_of(BREAST, view=view, generator=np.random.default_rng(0), grid=(250, 200), spacing=0.96)


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_the_chest_wall_is_left_for_l_and_right_for_r(view: str) -> None:
    left, right = scene(view=view), scene(view=view, laterality="R")
    assert left.breast[:, 0].any() and not left.breast[:, -1].any()
    assert np.array_equal(left.breast, right.breast[:, ::-1])


def test_muscle_shows_in_mlo_only() -> None:
    assert outline("CC").pectoral.max() == 0
    muscle = outline("MLO").pectoral > 0.5
    assert muscle[0, 0] and not muscle[-1].any()
    assert 0.02 < muscle.mean() < 0.2
    in_muscle = scene(view="MLO").pixels[10:30, 2:20].mean()
    assert (
        in_muscle
        > 1.3 * scene(view="MLO", breast=BreastShape(**{**vars(BREAST), "density": 0.02})).pixels[150:180, 2:20].mean()
    )


def test_the_edge_gets_thinner_towards_a_bright_skin_line() -> None:
    fat = BreastShape(**{**vars(BREAST), "density": 0.0})
    outlined = outline_of(fat, view="CC", generator=np.random.default_rng(0), grid=(500, 400), spacing=0.48)
    pixels, distance = draw_tissue(
        fat, outlined, generator=np.random.default_rng(0), grid=(1000, 800), spacing=0.24
    )  # fmt: skip

    def level(depth: float) -> float:
        return float(pixels[np.abs(distance - depth) < 0.3].mean())

    assert level(0.9) > 1.15 * level(2.6)  # skin
    assert level(3) < level(8) < level(15) < level(25)
    assert level(3) < 0.75 * level(25)
    assert not pixels[distance == 0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_no_finding_changes_the_mean(kind: LesionKind, view: str) -> None:
    pixels = np.full((250, 200), 0.4, dtype=np.float32)
    outlined = outline(view)
    breast = outlined.distance > 0.5
    before, lesion = pixels.copy(), np.zeros(pixels.shape, dtype=np.uint8)
    add_finding(
        pixels, lesion, breast, finding(kind), outlined, view=view, generator=np.random.default_rng(0), spacing=0.96
    )  # fmt: skip
    assert pixels.mean(dtype=np.float64) == pytest.approx(before.mean(dtype=np.float64), rel=1e-5)
    assert np.array_equal(pixels[~breast], before[~breast])
    assert pixels[lesion > 0].mean() - pixels[breast & (lesion == 0)].mean() > 0.05
    assert set(np.unique(lesion)) == {0, 2 if kind in MALIGNANT else 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_shows_in_both_views_at_the_same_depth(kind: LesionKind) -> None:
    depths = []
    for view in ("CC", "MLO"):
        for seed in range(3):
            drawn = scene(kind, view=view, seed=seed)
            assert drawn.lesion.max() == (2 if kind in MALIGNANT else 1)
            assert not (drawn.lesion.astype(bool) & ~drawn.breast).any()
            depths.append(ndimage.center_of_mass(drawn.lesion)[1] * 0.96)
    assert np.ptp(depths) < 18  # mm; breasts are 110 mm deep, the views differ by a few per cent


def patch_of(kind: LesionKind, seed: int) -> np.ndarray:
    return draw_lesion(finding(kind), generator=np.random.default_rng(seed), spacing=0.24).added


def test_spiculated_masses_radiate_and_smooth_ones_do_not() -> None:
    def solidity(kind: LesionKind, seed: int) -> float:
        patch = patch_of(kind, seed)
        return regionprops((patch > 0.3 * patch.max()).astype(int))[0].solidity

    assert max(solidity(LesionKind.SPICULATED_MASS, seed) for seed in range(8)) < 0.8
    assert min(solidity(LesionKind.SMOOTH_MASS, seed) for seed in range(8)) > 0.9


def test_malignant_calcifications_are_many_and_fine() -> None:
    def grains(kind: LesionKind, seed: int) -> int:
        patch = patch_of(kind, seed)
        return ndimage.label(patch > 0.25 * patch.max())[1]

    assert max(grains(LesionKind.COARSE_CALCIFICATIONS, seed) for seed in range(8)) <= 5
    assert min(grains(LesionKind.FINE_CALCIFICATIONS, seed) for seed in range(8)) >= 12


@pytest.mark.parametrize("spacing", [0.24, 1.0, 2.4])
def test_calcifications_keep_their_integral_at_every_resolution(spacing: float) -> None:
    for kind in (LesionKind.FINE_CALCIFICATIONS, LesionKind.COARSE_CALCIFICATIONS):
        small = Finding(kind=kind, depth=0.5, across=0, up=0, radius_mm=9, contrast=0.1)  # too faint to saturate
        patch = draw_lesion(small, generator=np.random.default_rng(0), spacing=spacing)
        assert patch.added.sum() * spacing**2 == pytest.approx(8.5, rel=1e-3)


def test_difficulty_orders_size_and_contrast() -> None:
    easy, medium, hard = Difficulty.EASY, Difficulty.MEDIUM, Difficulty.HARD
    assert easy.contrast > medium.contrast == 1 > hard.contrast
    assert easy.size > medium.size == 1 > hard.size


@pytest.mark.parametrize("laterality", ["L", "R"])
def test_side_and_view_are_burned_in_on_the_free_side(laterality: str) -> None:
    pixels = scene(laterality=laterality, view="MLO", height=500).pixels
    letters = draw_letters(f"{laterality} MLO", height=14)
    assert letters.shape == (14, 2 * (6 * 5 - 1))
    corner = pixels[:50, 200:] if laterality == "L" else pixels[:50, :200]
    bright = corner > 0.9
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert np.array_equal(bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], letters)


def test_noise_has_the_level_asked_for() -> None:
    clean, noisy = scene(), scene(noise=0.02)
    breast = ndimage.binary_erosion(clean.breast, iterations=3)
    assert (noisy.pixels - clean.pixels)[breast].std() == pytest.approx(0.02, rel=0.05)
