"""Side, view, spacing and orientation of a mammogram from its DICOM tags, each with where it came from."""

from __future__ import annotations

from pydicom.dataset import Dataset

from pipeline.imaging.mammogram import Laterality, View
from pipeline.imaging.refusal import Refusal, RefusalCode

VIEW_CODES: dict[str, View] = {
    # View Code Sequence: SNOMED CT value and SNOMED RT value of PS3.16 CID 4014.
    "399162004": View.CC,
    "R-10242": View.CC,
    "399368009": View.MLO,
    "R-10226": View.MLO,
    "399260004": View.ML,
    "R-10224": View.ML,
    "399352003": View.LM,
    "R-10228": View.LM,
    "399099002": View.LMO,
    "R-10230": View.LMO,
    "399196006": View.FB,
    "R-10244": View.FB,
    "399188001": View.SIO,
    "R-102D0": View.SIO,
    "441555000": View.ISO,
    "R-40AAA": View.ISO,
    "399192008": View.XCCL,
    "R-1024A": View.XCCL,
    "399101009": View.XCCM,
    "R-1024B": View.XCCM,
}
"""Code value of the view -> view."""


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().upper()


def _agreed(found: list[tuple[str, str]], what: str, code: RefusalCode) -> tuple[str, str] | None:
    """First of the values found, or a refusal if two sources disagree."""
    if not found:
        return None
    if len({value for value, _ in found}) > 1:
        sources = ", ".join(f"{source} says {value}" for value, source in found)
        raise Refusal(code, f"sources disagree about the {what}: {sources}; mend the file or the manifest")
    return found[0]


def patient_orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1: where a row and a column point to.

    Both are letters of A P L R H F (anterior, posterior, left, right, head, foot). Returns None where the tag is
    missing, empty, or holds something else (CBIS-DDSM puts the view there).
    """
    value = dataset.get("PatientOrientation")
    if value is None or isinstance(value, str) or len(value) != 2:
        return None
    row, column = (str(part).strip().upper() for part in value)
    if not row or not column or set(row + column) - set("APLRHF"):
        return None
    return row, column


def chest_wall_side(dataset: Dataset) -> str | None:
    """Edge of the stored picture that Patient Orientation puts the chest wall at: ``left``, ``right``, None unknown."""
    orientation = patient_orientation(dataset)
    return None if orientation is None else {"A": "left", "P": "right"}.get(orientation[0][0])


def read_view(dataset: Dataset, given: str | None = None) -> tuple[View, str]:
    """View and its source: View Code Sequence, View Position, CBIS-DDSM's Patient Orientation, or the value given.

    Raises:
        Refusal: ``unknown_view`` or ``view_conflict``.
    """
    found: list[tuple[str, str]] = []
    for item in dataset.get("ViewCodeSequence") or []:
        code = VIEW_CODES.get(_text(item, "CodeValue"))
        if code is not None:
            found.append((code, "ViewCodeSequence"))
    position = _text(dataset, "ViewPosition")
    if position in View.__members__:
        found.append((View(position), "ViewPosition"))
    orientation = _text(dataset, "PatientOrientation")
    if orientation in View.__members__:
        found.append((View(orientation), "PatientOrientation (holds the view, as in CBIS-DDSM)"))
    if given:
        found.append((checked_view(given), "manifest"))
    agreed = _agreed(found, "view", RefusalCode.VIEW_CONFLICT)
    if agreed is None:
        raise Refusal(
            RefusalCode.UNKNOWN_VIEW,
            "no view in ViewCodeSequence, ViewPosition or PatientOrientation; "
            f"give it in the manifest's column 'view' ({', '.join(View)})",
        )
    return View(agreed[0]), agreed[1]


def read_laterality(dataset: Dataset, view: View, given: str | None = None) -> tuple[Laterality, str]:
    """Side and its source: Image Laterality, Laterality, Patient Orientation of an oblique view, or the value given.

    In MLO and LMO the image's vertical axis runs from above and outside to below and inside, so "foot" goes with
    "towards the other breast": FR (or HL, upside down) is a left breast, FL (or HR) a right one. A CC view says nothing
    of the kind, and nothing is guessed from it.

    Raises:
        Refusal: ``unknown_side`` or ``side_conflict`` (also for Image Laterality B).
    """
    found: list[tuple[str, str]] = []
    for keyword in ("ImageLaterality", "Laterality"):
        value = _text(dataset, keyword)
        if value == "B" and keyword == "ImageLaterality":
            raise Refusal(RefusalCode.SIDE_CONFLICT, "ImageLaterality is B (both breasts); one breast per image needed")
        if value in Laterality.__members__:
            found.append((value, keyword))
    if given:
        found.append((checked_laterality(given), "manifest"))
    agreed = _agreed(found, "side", RefusalCode.SIDE_CONFLICT)
    if agreed is None:
        oblique = oblique_side(dataset, view)
        if oblique is not None:
            return oblique, "PatientOrientation"
        raise Refusal(
            RefusalCode.UNKNOWN_SIDE,
            "no side in ImageLaterality, Laterality or PatientOrientation; "
            "give it in the manifest's column 'laterality' (L or R)",
        )
    return Laterality(agreed[0]), agreed[1]


def oblique_side(dataset: Dataset, view: View) -> Laterality | None:
    """Side that Patient Orientation implies for MLO and LMO, None for other views or a plain orientation."""
    orientation = patient_orientation(dataset)
    if orientation is None or view not in (View.MLO, View.LMO):
        return None
    letters = frozenset(orientation[1])
    sides = {frozenset("FR"): "L", frozenset("HL"): "L", frozenset("FL"): "R", frozenset("HR"): "R"}
    return Laterality(sides[letters]) if letters in sides else None


def checked_laterality(value: str) -> Laterality:
    """L or R from a manifest, any case."""
    side = value.strip().upper()
    if side not in Laterality.__members__:
        raise Refusal(RefusalCode.UNKNOWN_SIDE, f"laterality {value!r} is not allowed: use L or R")
    return Laterality(side)


def checked_view(value: str) -> View:
    """View from a manifest, any case."""
    view = value.strip().upper()
    if view not in View.__members__:
        raise Refusal(RefusalCode.UNKNOWN_VIEW, f"view {value!r} is not allowed: use one of {', '.join(View)}")
    return View(view)


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    value = dataset.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        return None
    row, column = float(value[0]), float(value[1])
    return (row, column) if row > 0 and column > 0 else None


def read_spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Distance of pixel centres in mm (row, column) and its source, PS3.3 10.7.1 and C.8.11.

    A Pixel Spacing with a calibration type is already calibrated to the breast. Otherwise Imager Pixel Spacing is at
    the detector and is divided by the Estimated Radiographic Magnification Factor. Then plain Pixel Spacing, then
    Nominal Scanned Pixel Spacing of digitised film.
    """
    pixel = _pair(dataset, "PixelSpacing")
    imager = _pair(dataset, "ImagerPixelSpacing")
    if pixel and _text(dataset, "PixelSpacingCalibrationType"):
        return pixel, "PixelSpacing (calibrated)"
    if imager:
        factor = dataset.get("EstimatedRadiographicMagnificationFactor")
        if factor is not None and float(factor) > 0 and float(factor) != 1.0:
            scale = float(factor)
            return (
                (imager[0] / scale, imager[1] / scale),
                f"ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor {scale:g}",
            )
        return imager, "ImagerPixelSpacing"
    if pixel:
        return pixel, "PixelSpacing"
    scanned = _pair(dataset, "NominalScannedPixelSpacing")
    if scanned:
        return scanned, "NominalScannedPixelSpacing"
    return None, "not stated"
