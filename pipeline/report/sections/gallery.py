"""Section with pictures: a few images clean and attacked, each with its saliency, in original orientation."""

from __future__ import annotations

from typing import Any

from PIL import Image, UnidentifiedImageError

from pipeline.report.plain import plain, section
from pipeline.report.run_files import ReportError, RunFiles
from pipeline.statistics import CLEAN, probability

_NEEDED = ("patient_id", "laterality", "view", "patient_label", "attack_id", "budget", "logit", "picture", "saliency")


def gallery(files: RunFiles, labels: dict[str, str]) -> dict[str, Any]:
    """Entries of artefacts/gallery.json grouped by image, "clean" first, then by budget.

    Args:
        files: The run.
        labels: Readable names of the attacks.

    Raises:
        ReportError: an entry without a needed key, or a picture outside the run directory.
    """
    if files.gallery is None:
        return section("missing", reason=files.missing["artefacts/gallery.json"], images=[])
    if not files.gallery:
        return section("missing", reason="artefacts/gallery.json lists no pictures", images=[])
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, entry in enumerate(files.gallery):
        lacking = [key for key in _NEEDED if key not in entry]
        if lacking:
            where = files.directory / "artefacts/gallery.json"
            raise ReportError(f"{where}: entry {number} lacks {', '.join(lacking)}; write the gallery again")
        key = tuple(str(entry.get(name, "")) for name in ("patient_id", "laterality", "view", "image"))
        group = groups.setdefault(
            key,
            {
                **{name: str(entry[name]) for name in ("patient_id", "laterality", "view")},
                "patient_label": int(entry["patient_label"]),
                "scenes": [],
            },
        )
        group["scenes"].append(_scene(files, entry, labels))
    for group in groups.values():
        group["scenes"].sort(key=lambda scene: (scene["attack_id"] != CLEAN, scene["budget"]))
    images = list(groups.values())
    return section(n={"images": len(images), "patients": len({image["patient_id"] for image in images})}, images=images)


def _scene(files: RunFiles, entry: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    attack_id, logit = str(entry["attack_id"]), plain(entry["logit"])
    return {
        "attack_id": attack_id,
        "label": labels.get(attack_id, attack_id),
        "budget": float(entry["budget"] or 0.0),
        "logit": logit,
        "probability": None if logit is None else float(probability(logit)),
        "picture": str(entry["picture"]),
        "saliency": str(entry["saliency"]),
        "problem": _problem(files, entry),
    }


def _problem(files: RunFiles, entry: dict[str, Any]) -> str | None:
    """Why a scene cannot be shown, or None."""
    root, shapes = files.directory.resolve(), []
    for key in ("picture", "saliency"):
        path = (root / str(entry[key])).resolve()
        if not path.is_relative_to(root):
            where = files.directory / "artefacts/gallery.json"
            raise ReportError(f"{where}: {key} {entry[key]} lies outside the run directory; store it inside")
        if not path.is_file():
            return f"{key} {entry[key]} is not in the run directory"
        try:
            with Image.open(path) as image:
                shapes.append(image.size)
        except UnidentifiedImageError:
            return f"{key} {entry[key]} is not a picture"
    (width, height), (wide, high) = shapes
    if abs(width * high - height * wide) > 0.02 * height * wide:
        return f"saliency is {wide} x {high} pixels and does not fit the picture of {width} x {height}"
    return None
