"""Pictures of the gallery: saliency lies where it was computed and in the colours of the bar."""

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pipeline.report.pictures import HEIGHT, colour_bar, overlay_uri, picture_uri


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(float)


def saved(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_overlay_leaves_places_without_influence_and_colours_the_strongest(tmp_path: Path) -> None:
    picture = saved(tmp_path / "picture.png", np.full((200, 160), 120, np.uint8))
    strength = np.zeros((200, 160), np.uint8)
    strength[100:, :80] = 255
    shown = opened(overlay_uri(picture, saved(tmp_path / "saliency.png", strength)))
    expected = 0.25 * 120 + 0.75 * 255 * np.array(matplotlib.colormaps["inferno"](1.0)[:3])
    np.testing.assert_allclose(shown[20:80].mean(axis=(0, 1)), 120, atol=2)
    np.testing.assert_allclose(shown[120:180, 20:60].mean(axis=(0, 1)), expected, atol=4)
    np.testing.assert_allclose(shown[120:180, 100:140].mean(axis=(0, 1)), 120, atol=2)


def test_saliency_in_colour_is_shown_as_it_was_drawn(tmp_path: Path) -> None:
    drawn = np.zeros((90, 60, 3), np.uint8)
    drawn[:45] = (200, 40, 10)
    picture = saved(tmp_path / "picture.png", np.zeros((90, 60), np.uint8))
    shown = opened(overlay_uri(picture, saved(tmp_path / "saliency.png", drawn)))
    np.testing.assert_allclose(shown[5:40].mean(axis=(0, 1)), (200, 40, 10), atol=4)


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 128), (np.uint16, 128 * 257)])
def test_pictures_of_8_and_16_bit_look_alike_and_are_made_small(tmp_path: Path, kind: type, value: int) -> None:
    shown = opened(picture_uri(saved(tmp_path / "picture.png", np.full((1000, 700), value, kind))))
    assert shown.shape[:2] == (HEIGHT, HEIGHT * 7 // 10)
    np.testing.assert_allclose(shown.mean(), 128, atol=2)


def test_colour_bar_runs_from_the_first_to_the_last_overlay_colour() -> None:
    ends = [matplotlib.colors.to_hex(matplotlib.colormaps["inferno"](share)) for share in (0.0, 1.0)]
    bar = colour_bar()
    assert bar.startswith(f"linear-gradient(to right, {ends[0]}") and bar.endswith(f"{ends[1]})")
