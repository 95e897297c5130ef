"""Side, view, spacing and orientation of a mammogram from its DICOM tags, each with where it came from."""

from __future__ import annotations

from enum import StrEnum

from pydicom.dataset import Dataset

from pipeline.imaging.habits import text_of, wordings
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

VIEW_MODIFIERS = {
    # SNOMED CT value and SNOMED RT value of PS3.16 CID 4015.
    "441752004": "anterior compression",
    "P2-00161": "anterior compression",
    "399011000": "axillary tail",
    "R-102D1": "axillary tail",
    "442580003": "axillary tissue",
    "R-40AB2": "axillary tissue",
    "399161006": "cleavage",
    "R-102D2": "cleavage",
    "399209000": "implant displaced",
    "R-102D5": "implant displaced",
    "442593008": "infra-mammary fold",
    "R-40ABE": "infra-mammary fold",
    "399163009": "magnification",
    "R-102D6": "magnification",
    "442581004": "nipple in profile",
    "R-40AB3": "nipple in profile",
    "414493004": "rolled inferior",
    "R-102CA": "rolled inferior",
    "399197002": "rolled lateral",
    "R-102D3": "rolled lateral",
    "399226006": "rolled medial",
    "R-102D4": "rolled medial",
    "415670009": "rolled superior",
    "R-102C9": "rolled superior",
    "399055006": "spot compression",
    "R-102D7": "spot compression",
    "399110001": "tangential",
    "R-102C2": "tangential",
}
"""Code value of the view modifier -> its meaning; a file's own text is never shown."""


class Conflicts(StrEnum):
    """What happens where tags, or tag and manifest, contradict each other about the side or the view."""

    REFUSE = "refuse"
    FLAG = "flag"  # the first source counts, and the provenance names the others


def _agreed(found: list[tuple[str, str]], what: str, code: RefusalCode, conflicts: str) -> tuple[str, str] | None:
    """First of the values found and its source; a refusal or a remark if two sources disagree."""
    if not found:
        return None
    value, source = found[0]
    others = [other for text, other in found if text != value]
    if others and conflicts == Conflicts.REFUSE:
        sources = ", ".join(f"{source} says {value}" for value, source in found)
        raise Refusal(
            code,
            f"sources disagree about the {what}: {sources}; mend the file or the manifest, or read with "
            "conflicts='flag' to believe the first",
        )
    return value, "; ".join([source, *(f"{other} disagrees" for other in others)])


def _hints(found: tuple[str, str], hints: list[tuple[str, str]]) -> str:
    """Source of a fact, with the habits of vendors that contradict it: they are never refused."""
    value, source = found
    return "; ".join([source, *(f"{name} disagrees" for hint, name in hints if hint != value)])


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


def read_view(
    dataset: Dataset, given: str | None = None, *, conflicts: Conflicts | str = Conflicts.REFUSE
) -> tuple[View, str]:
    """View and its source.

    In this order: View Code Sequence, View Position (also ``RCC``, ``MLOID`` and the like), Patient Orientation of
    CBIS-DDSM, the value given; in their absence private tags of GE and Siemens, Acquisition Device Processing
    Description of Fujifilm, Patient ID of CBIS-DDSM, see :func:`~pipeline.imaging.habits.wordings`.

    Args:
        dataset: header.
        given: view from a manifest.
        conflicts: ``refuse`` or ``flag``; what only a vendor's habit contradicts is always flagged.

    Raises:
        Refusal: ``unknown_view`` or ``view_conflict``.
    """
    said = [wording for wording in wordings(dataset) if wording.view]
    found: list[tuple[str, str]] = []
    for item in dataset.get("ViewCodeSequence") or []:
        code = VIEW_CODES.get(text_of(item, "CodeValue"))
        if code is not None:
            found.append((code, "ViewCodeSequence"))
    found += [(str(wording.view), wording.source) for wording in said if wording.standard]
    hints = [(str(wording.view), wording.source) for wording in said if not wording.standard]
    if given:
        found.append((checked_view(given), "manifest"))
    agreed = _agreed(found or hints, "view", RefusalCode.VIEW_CONFLICT, conflicts)
    if agreed is None:
        raise Refusal(
            RefusalCode.UNKNOWN_VIEW,
            "no view in ViewCodeSequence, ViewPosition, AcquisitionDeviceProcessingDescription or PatientOrientation; "
            f"give it in the manifest's column 'view' ({', '.join(View)})",
        )
    return View(agreed[0]), _hints(agreed, hints if found else [])


def view_modifiers(dataset: Dataset) -> list[str]:
    """Meanings of the view modifiers, each once; "other" for unknown codes.

    From View Modifier Code Sequence (PS3.3 C.8.11.7) and from what stands in words, such as View Position ``MLOID``.
    """
    coded = [
        VIEW_MODIFIERS.get(text_of(modifier, "CodeValue"), "other")
        for item in dataset.get("ViewCodeSequence") or []
        for modifier in item.get("ViewModifierCodeSequence") or []
    ]
    return list(dict.fromkeys(coded + [name for wording in wordings(dataset) for name in wording.modifiers]))


def read_laterality(
    dataset: Dataset, view: View, given: str | None = None, *, conflicts: Conflicts | str = Conflicts.REFUSE
) -> tuple[Laterality, str]:
    """Side and its source.

    In this order: Image Laterality, Laterality, a side in View Position, the value given; in their absence Patient
    Orientation of an oblique view, then private tags of GE and Siemens, Acquisition Device Processing Description of
    Fujifilm, Patient ID of CBIS-DDSM. In MLO and LMO the image's vertical axis runs from above and outside to below and
    inside, so "foot" goes with "towards the other breast": FR (or HL, upside down) is a left breast, FL (or HR) a right
    one. A CC view says nothing of the kind, and nothing is guessed from it.

    Args:
        dataset: header.
        view: view, see :func:`read_view`.
        given: side from a manifest.
        conflicts: ``refuse`` or ``flag``; what only Patient Orientation or a vendor's habit contradicts is always
            flagged.

    Raises:
        Refusal: ``unknown_side`` or ``side_conflict`` (also for Image Laterality B).
    """
    said = [wording for wording in wordings(dataset) if wording.side]
    found: list[tuple[str, str]] = []
    for keyword in ("ImageLaterality", "Laterality"):
        value = text_of(dataset, keyword)
        if value == "B" and keyword == "ImageLaterality":
            raise Refusal(RefusalCode.SIDE_CONFLICT, "ImageLaterality is B (both breasts); one breast per image needed")
        if value in Laterality.__members__:
            found.append((value, keyword))
    found += [(str(wording.side), wording.source) for wording in said if wording.standard]
    if given:
        found.append((checked_laterality(given), "manifest"))
    oblique = oblique_side(dataset, view)
    hints = [(str(oblique), "PatientOrientation")] if oblique else []
    hints += [(str(wording.side), wording.source) for wording in said if not wording.standard]
    agreed = _agreed(found or hints, "side", RefusalCode.SIDE_CONFLICT, conflicts)
    if agreed is None:
        raise Refusal(
            RefusalCode.UNKNOWN_SIDE,
            "no side in ImageLaterality, Laterality or PatientOrientation; "
            "give it in the manifest's column 'laterality' (L or R)",
        )
    return Laterality(agreed[0]), _hints(agreed, hints if found else [])


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
    if pixel and text_of(dataset, "PixelSpacingCalibrationType"):
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
