"""Pictures of the gallery: images and saliency overlays as data URIs, and the colour bar that belongs to them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

HEIGHT = 420
"""Pixels of a picture's longer side on the page: enough for a glance, small enough for a mail."""

_COLOURS = matplotlib.colormaps["inferno"]
_STRONGEST = 0.75


def picture_uri(path: Path) -> str:
    """An 8 or 16 bit picture as a data URI, made smaller where it is larger than the page shows."""
    return _uri(Image.fromarray(_grey(path)))


def overlay_uri(picture: Path, saliency: Path) -> str:
    """Saliency over its picture as a data URI.

    A grey saliency file holds values from 0 to 1 over its full range; it is coloured here, more opaque where it is
    stronger. A saliency file in colour is shown as its maker drew it, which must be in the same colours.
    """
    with Image.open(saliency) as opened:
        coloured = opened.mode in ("RGB", "RGBA", "P", "CMYK")
        if coloured:
            return shown_uri(saliency)
    ground = _grey(picture)
    height, width = ground.shape
    values = Image.fromarray(_grey(saliency)).resize((width, height), Image.Resampling.BILINEAR)
    strength = np.asarray(values, dtype=np.float32) / 255.0
    opacity = (_STRONGEST * np.sqrt(strength))[..., None]
    mixed = (1 - opacity) * (ground[..., None] / 255.0) + opacity * _COLOURS(strength)[..., :3]
    return _uri(Image.fromarray(np.uint8(np.round(255 * mixed))))


def shown_uri(path: Path) -> str:
    """A picture in colour as a data URI, as its maker drew it, made smaller where it is larger than the page shows."""
    with Image.open(path) as opened:
        shown = opened.convert("RGB")
    shown.thumbnail((HEIGHT, HEIGHT))
    return _uri(shown)


def colour_bar() -> str:
    """CSS gradient of the saliency colours, from none to the strongest."""
    return _gradient(_COLOURS)


def change_bar() -> str:
    """CSS gradient of the colours of a change, from darker to brighter; evaluation draws in these colours."""
    return _gradient(matplotlib.colormaps["PuOr_r"])


def _gradient(colours: matplotlib.colors.Colormap) -> str:
    stops = [matplotlib.colors.to_hex(colours(share)) for share in np.linspace(0, 1, 9)]
    return f"linear-gradient(to right, {', '.join(stops)})"


def _grey(path: Path) -> np.ndarray:
    """A picture as uint8 (H, W), its longer side at most HEIGHT pixels."""
    with Image.open(path) as opened:
        if opened.mode.startswith("I"):
            grey = Image.fromarray(np.uint8(np.clip(np.asarray(opened, dtype=np.float64) / 257.0, 0, 255)))
        else:
            grey = opened.convert("L")
    grey.thumbnail((HEIGHT, HEIGHT), Image.Resampling.LANCZOS)
    return np.asarray(grey)


def _uri(image: Image.Image) -> str:
    target = io.BytesIO()
    image.save(target, format="JPEG", quality=90, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode("ascii")
