"""Unusual images, recognised from their tags and kept or refused by an explicit policy."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import StrEnum

from pydicom import uid
from pydicom.dataset import Dataset

from pipeline.imaging.guard import MAGNIFICATION_RANGE
from pipeline.imaging.habits import text_of, texts_of
from pipeline.imaging.refusal import Refusal, RefusalCode


class Special(StrEnum):
    """Kinds of images that are not a plain two-dimensional view of a whole breast."""

    SPOT_COMPRESSION = "spot_compression"
    MAGNIFICATION = "magnification"
    PARTIAL_VIEW = "partial_view"
    IMPLANT_DISPLACED = "implant_displaced"
    IMPLANT = "implant"
    LOCALIZER = "localizer"
    CONTRAST = "contrast"
    SYNTHETIC = "synthetic"
    TOMOSYNTHESIS = "tomosynthesis"
    REGION = "region"
    SPECIMEN = "specimen"
    QUALITY_CONTROL = "quality_control"


KEPT = (Special.IMPLANT, Special.IMPLANT_DISPLACED)
"""Kept unless the caller says otherwise: standard views of screening exams, of a whole breast."""

MEANINGS = {
    Special.SPOT_COMPRESSION: "a spot compression view, of a part of the breast",
    Special.MAGNIFICATION: "a magnification view, of a part of the breast",
    Special.PARTIAL_VIEW: "a view of the breast's surroundings or of a part of it",
    Special.IMPLANT_DISPLACED: "a view with the implant pushed back",
    Special.IMPLANT: "a breast with an implant",
    Special.LOCALIZER: "a scout or a picture of a biopsy",
    Special.CONTRAST: "a contrast-enhanced, high-energy or subtracted image",
    Special.SYNTHETIC: "a two-dimensional image computed from tomosynthesis",
    Special.TOMOSYNTHESIS: "tomosynthesis: a slice, a projection or a stack of them",
    Special.REGION: "a mask or a cut-out of a lesion, of CBIS-DDSM",
    Special.SPECIMEN: "a tissue specimen",
    Special.QUALITY_CONTROL: "a quality control or calibration image",
}

CODES = {
    Special.TOMOSYNTHESIS: RefusalCode.UNSUPPORTED_PIXELS,
    Special.REGION: RefusalCode.NOT_MAMMOGRAM,
    Special.SPECIMEN: RefusalCode.NOT_MAMMOGRAM,
    Special.QUALITY_CONTROL: RefusalCode.NOT_MAMMOGRAM,
}
"""Code of the refusal; ``special_image`` for the others."""

MODIFIERS = {
    "spot compression": Special.SPOT_COMPRESSION,
    "magnification": Special.MAGNIFICATION,
    "implant displaced": Special.IMPLANT_DISPLACED,
    "axillary tail": Special.PARTIAL_VIEW,
    "axillary tissue": Special.PARTIAL_VIEW,
    "cleavage": Special.PARTIAL_VIEW,
    "infra-mammary fold": Special.PARTIAL_VIEW,
    "tangential": Special.PARTIAL_VIEW,
}
"""View modifier -> kind; the others (rolled, nipple in profile, anterior compression) show the whole breast."""

MAGNIFIED = 1.3
"""Estimated Radiographic Magnification Factor of a magnification view: contact views have 1.0 to 1.1, stands 1.5 to 2
(Bushberg et al., The Essential Physics of Medical Imaging, chapter 8)."""

TOMOSYNTHESIS_CLASSES = frozenset(
    {
        uid.BreastTomosynthesisImageStorage,
        uid.BreastProjectionXRayImageStorageForPresentation,
        uid.BreastProjectionXRayImageStorageForProcessing,
    }
)

IMAGE_TYPES = {
    # Image Type, value 3 (PS3.3 C.8.11.7.1.4).
    **dict.fromkeys(
        ("STEREO_SCOUT", "STEREO_MINUS", "STEREO_PLUS", "TOMO_SCOUT", "SCOUT", "LOCALIZER"), Special.LOCALIZER
    ),
    **{
        f"{stage}{angle}": Special.LOCALIZER
        for stage in ("PREFIRE", "POSTFIRE", "POSTBIOPSY", "POSTMARKER")
        for angle in ("", "_MINUS", "_PLUS")
    },
    "TOMO_PROJ": Special.TOMOSYNTHESIS,
    "TOMOSYNTHESIS": Special.TOMOSYNTHESIS,
    "POST_CONTRAST": Special.CONTRAST,
    # Value 4, of the standard and of GE's contrast-enhanced mammography.
    "GENERATED_2D": Special.SYNTHETIC,
    "ADDITION": Special.CONTRAST,
    "SUBTRACTION": Special.CONTRAST,
    "RECOMBINED": Special.CONTRAST,
    "HIGH_ENERGY": Special.CONTRAST,
}

CBIS_REGIONS = ("ROI MASK IMAGES", "CROPPED IMAGES")
"""Series Description (0008,103E) of CBIS-DDSM's masks and cut-outs, which lie beside its mammograms."""

SPECIMEN_CODES = ("127457009", "G-8310")
"""Tissue specimen from breast in View Code Sequence: SNOMED CT and RT (PS3.16 CID 4014)."""

PADDLES = {
    re.compile(r"(?<![A-Z])SPOT"): Special.SPOT_COMPRESSION,
    re.compile(r"(?<![A-Z])MAG(N[A-Z]*)?(?![A-Z])"): Special.MAGNIFICATION,
}
"""Words of Paddle Description (0018,11A4) that name the small paddles of work-up views; IMAGE is none of them."""


def checked_keep(keep: Collection[str]) -> tuple[str, ...]:
    """Names of kinds to keep, in order, each once.

    Raises:
        ValueError: for an unknown kind.
    """
    names = (keep,) if isinstance(keep, str) else tuple(str(name) for name in keep)
    unknown = sorted(set(names) - set(Special))
    if unknown:
        raise ValueError(f"keep {unknown}: kinds of images are {', '.join(Special)}")
    return tuple(str(kind) for kind in Special if kind in names)


def special_kinds(dataset: Dataset, modifiers: Iterable[str] = ()) -> tuple[Special, ...]:
    """Kinds that a data set says it is, in the order of :class:`Special`.

    From View Modifier Code Sequence and what stands in its place (given as ``modifiers``), Paddle Description,
    magnification, Breast Implant Present (0028,1300), Image Type, SOP class, view code, Quality Control Image
    (0028,0300), Body Part Examined, and Series Description of CBIS-DDSM.

    Args:
        dataset: header.
        modifiers: view modifiers, see :func:`~pipeline.imaging.facts.view_modifiers`.
    """
    found = {MODIFIERS[name] for name in modifiers if name in MODIFIERS}
    types = [part.upper() for part in texts_of(dataset, "ImageType")[2:]]
    found |= {IMAGE_TYPES[part] for part in types if part in IMAGE_TYPES}
    if Special.SYNTHETIC in found:  # TOMOSYNTHESIS\GENERATED_2D is no slice
        found.discard(Special.TOMOSYNTHESIS)
    elif text_of(dataset, "SOPClassUID") in TOMOSYNTHESIS_CLASSES:
        found.add(Special.TOMOSYNTHESIS)
    paddle = text_of(dataset, "PaddleDescription")
    found |= {kind for word, kind in PADDLES.items() if word.search(paddle)}
    factor = dataset.get("EstimatedRadiographicMagnificationFactor")
    if isinstance(factor, int | float) and MAGNIFIED <= factor <= MAGNIFICATION_RANGE[1]:
        found.add(Special.MAGNIFICATION)
    if text_of(dataset, "BreastImplantPresent") == "YES":
        found.add(Special.IMPLANT)
    if text_of(dataset, "SeriesDescription") in CBIS_REGIONS:
        found.add(Special.REGION)
    views = {text_of(item, "CodeValue") for item in dataset.get("ViewCodeSequence") or []}
    if views & set(SPECIMEN_CODES) or dataset.get("SpecimenDescriptionSequence"):
        found.add(Special.SPECIMEN)
    if text_of(dataset, "QualityControlImage") == "YES" or text_of(dataset, "BodyPartExamined") == "PHANTOM":
        found.add(Special.QUALITY_CONTROL)
    return tuple(kind for kind in Special if kind in found)


def check_special(kinds: Iterable[Special], keep: Collection[str] = KEPT) -> None:
    """Refuse an image of a kind that is not kept.

    Raises:
        Refusal: ``special_image``, ``unsupported_pixels`` (tomosynthesis) or ``not_mammogram`` (region, specimen,
            quality control).
    """
    for kind in kinds:
        if kind not in keep:
            raise Refusal(
                CODES.get(kind, RefusalCode.SPECIAL_IMAGE),
                f"{MEANINGS[kind]}; leave it out, or name {str(kind)!r} in the reader's keep",
            )
