"""Section with pictures: the worst errors and the patients that an attack turns over, each with its saliency."""

from __future__ import annotations

from typing import Any

from PIL import Image, UnidentifiedImageError

from pipeline.report.errors import ReportError
from pipeline.report.plain import plain, section
from pipeline.report.run_files import RunFiles
from pipeline.statistics import probability

_IMAGE = ("rule", "patient_id", "laterality", "view", "patient_label", "image", "change", "change_limit", "scenes")
_SCENE = ("attack_id", "budget", "logit", "picture", "saliency")
_NAME = "artefacts/gallery.json"


def gallery(files: RunFiles, labels: dict[str, str]) -> dict[str, Any]:
    """Content of artefacts/gallery.json, checked: rules with their patients, and images clean and attacked.

    Args:
        files: The run.
        labels: Readable names of the attacks.

    Raises:
        ReportError: an entry without a needed key, or a picture outside the run directory.
    """
    empty: dict[str, Any] = {"rules": [], "images": []}
    if files.gallery is None:
        return section("missing", reason=files.missing[_NAME], **empty)
    rules, images = files.gallery.get("rules", []), files.gallery.get("images", [])
    if not images:
        return section("missing", reason=f"{_NAME} lists no pictures", rules=_rules(rules), images=[])
    drawn = [_image(files, entry, number, labels) for number, entry in enumerate(images)]
    n = {"images": len(drawn), "patients": len({image["patient_id"] for image in drawn})}
    return section(n=n, rules=_rules(rules), images=drawn)


def _rules(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"rule": str(entry["rule"]), "patients": len(entry["patients"]), "reason": entry.get("reason")}
        for entry in rules
    ]


def _image(files: RunFiles, entry: dict[str, Any], number: int, labels: dict[str, str]) -> dict[str, Any]:
    _need(files, entry, _IMAGE, f"image {number}")
    scenes = []
    for place, scene in enumerate(entry["scenes"]):
        _need(files, scene, _SCENE, f"image {number}, scene {place}")
        attack_id, logit = str(scene["attack_id"]), plain(scene["logit"])
        scenes.append(
            {
                "attack_id": attack_id,
                "label": labels.get(attack_id, attack_id),
                "budget": float(scene["budget"] or 0.0),
                "logit": logit,
                "probability": None if logit is None else float(probability(logit)),
                "picture": str(scene["picture"]),
                "saliency": str(scene["saliency"]),
                "problem": _problem(files, scene, ("picture", "saliency")),
            }
        )
    return {
        **{name: str(entry[name]) for name in ("rule", "patient_id", "laterality", "view", "change")},
        "patient_label": int(entry["patient_label"]),
        "breast_label": None if entry.get("breast_label") is None else int(entry["breast_label"]),
        "change_limit": float(entry["change_limit"]),
        "change_problem": _problem(files, entry, ("change",)),
        "scenes": scenes,
    }


def _need(files: RunFiles, entry: dict[str, Any], names: tuple[str, ...], what: str) -> None:
    lacking = [name for name in names if name not in entry]
    if lacking:
        raise ReportError(f"{files.directory / _NAME}: {what} lacks {', '.join(lacking)}; write the gallery again")


def _problem(files: RunFiles, entry: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Why pictures cannot be shown, or None."""
    root, shapes = files.directory.resolve(), []
    for name in names:
        path = (root / str(entry[name])).resolve()
        if not path.is_relative_to(root):
            raise ReportError(
                f"{files.directory / _NAME}: {name} {entry[name]} lies outside the run directory; store it inside"
            )
        if not path.is_file():
            return f"{name} {entry[name]} is not in the run directory"
        try:
            with Image.open(path) as image:
                shapes.append(image.size)
        except UnidentifiedImageError:
            return f"{name} {entry[name]} is not a picture"
    (width, height), (wide, high) = shapes[0], shapes[-1]
    if abs(width * high - height * wide) > 0.02 * height * wide:
        return f"{names[-1]} is {wide} x {high} pixels and does not fit the picture of {width} x {height}"
    return None
