"""Read one mammogram, DICOM or grey PNG, or refuse it with a reason."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.imaging import decoders, decoding, facts, frames, guard, parsing
from pipeline.imaging.decoding import RawPolicy
from pipeline.imaging.facts import Conflicts
from pipeline.imaging.mammogram import Mammogram, Presentation
from pipeline.imaging.refusal import Refusal, RefusalCode
from pipeline.imaging.special import KEPT, checked_keep, special_kinds

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Policies:
    """What is read of the images that are no plain ones; see :func:`read_mammogram`."""

    keep: tuple[str, ...]
    for_processing: RawPolicy
    conflicts: Conflicts


def read_mammogram(
    path: str | PathLike[str],
    *,
    laterality: str | None = None,
    view: str | None = None,
    patient_id: str | None = None,
    keep: Collection[str] = KEPT,
    for_processing: RawPolicy | str = RawPolicy.REFUSE,
    conflicts: Conflicts | str = Conflicts.REFUSE,
) -> Mammogram:
    """Read a mammogram in DICOM's order: decode, padding, modality LUT, VOI, inversion exactly once.

    Args:
        path: DICOM file, or 8- or 16-bit grey PNG (told apart by content, not by name).
        laterality: ``L`` or ``R`` from a manifest; needed for a PNG, fills a gap in DICOM, must not contradict it.
        view: view from a manifest, for example ``CC``; same rules.
        patient_id: pseudonym to keep with the image; the file's own identity is never read.
        keep: kinds of unusual images to read, see :class:`~pipeline.imaging.special.Special`; the others are refused.
            Of a tomosynthesis stack, the middle frame is read.
        for_processing: ``refuse`` raw detector values, or show them by their logarithm, ``log``.
        conflicts: ``refuse`` an image whose sources contradict each other about side or view, or ``flag`` it in the
            provenance and believe the first source.

    Returns:
        The mammogram with ``stored`` values and ``pixels``, float32 (H, W) in [0, 1], bright = dense.

    Raises:
        Refusal: with a code of :class:`~pipeline.imaging.refusal.RefusalCode`.
        ValueError: for an unknown policy.
    """
    policies = Policies(checked_keep(keep), RawPolicy(for_processing), Conflicts(conflicts))
    source = Path(path)
    try:
        if source.exists() and not source.is_file():  # a folder, or a pipe that would never end
            raise Refusal(RefusalCode.MISSING_FILE, "no file; check the manifest's image column", str(path))
        with source.open("rb") as file:
            start = file.read(8)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Refusal(RefusalCode.MISSING_FILE, "no such file; check the manifest's image column", str(path)) from error
    except OSError as error:
        raise Refusal(RefusalCode.UNREADABLE, f"cannot be opened: {error.strerror}", str(path)) from error
    try:
        if start == PNG_SIGNATURE:
            mammogram = _read_png(source, laterality, view)
        else:
            mammogram = _read_dicom(source, laterality, view, policies)
    except Refusal as refusal:
        raise refusal.at(path) from None
    return replace(mammogram, patient_id=patient_id)


def _read_png(source: Path, laterality: str | None, view: str | None) -> Mammogram:
    if not laterality:
        raise Refusal(RefusalCode.UNKNOWN_SIDE, "a PNG does not say its side; give laterality (L or R)")
    if not view:
        raise Refusal(RefusalCode.UNKNOWN_VIEW, "a PNG does not say its view; give view (for example CC or MLO)")
    guard.check_png(source)
    with parsing.refusing("PNG"), Image.open(source, formats=("PNG",)) as picture:
        mode = picture.mode
        stored = np.array(picture)
    bits = {"L": 8, "I;16": 16, "I": 16}.get(mode)
    if bits is None or stored.ndim != 2 or min(stored.shape) < 2:
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"PNG of mode {mode} and shape {stored.shape}: 8- or 16-bit grey")
    return Mammogram(
        stored=stored,
        presentation=Presentation(stored_range=(0.0, float(2**bits - 1)), bits_stored=bits),
        laterality=facts.checked_laterality(laterality),
        view=facts.checked_view(view),
        provenance={
            "laterality": "manifest",
            "view": "manifest",
            "spacing_mm": "not stated",
            "display": f"PNG, {bits}-bit grey",
        },
    )


def _read_dicom(source: Path, laterality: str | None, view: str | None, policies: Policies) -> Mammogram:
    with parsing.refusing("DICOM file"):
        dataset = parsing.open_dataset(source)
        decoding.check_object(dataset, keep=policies.keep, for_processing=policies.for_processing)
        limits = parsing.Limits()
        guard.check_pixels(dataset, limits=replace(limits, pixels=limits.pixels * frames.frame_count(dataset)))
        frames.lift_frame_tags(dataset)
        side_view, view_source = facts.read_view(dataset, view, conflicts=policies.conflicts)
        side, side_source = facts.read_laterality(dataset, side_view, laterality, conflicts=policies.conflicts)
        spacing, spacing_source = facts.read_spacing(dataset)
        presentation = decoding.read_presentation(dataset)
        decoders.load_decoders(str(dataset.file_meta.TransferSyntaxUID))
        stored = guard.decode_guarded(decoding.decode, dataset)
        provenance = {
            "laterality": side_source,
            "view": view_source,
            "spacing_mm": spacing_source,
            "display": f"{dataset.PhotometricInterpretation}, {dataset.BitsStored} bits stored",
            "transfer_syntax": dataset.file_meta.TransferSyntaxUID.name,
        }
        if presentation.raw:
            provenance["display"] += ", For Processing"
        if frames.frame_count(dataset) > 1:
            provenance["frame"] = f"{frames.shown_frame(dataset) + 1} of {frames.frame_count(dataset)}"
        modifiers = facts.view_modifiers(dataset)
        if modifiers:
            provenance["view_modifier"] = ", ".join(modifiers)
        kinds = special_kinds(dataset, modifiers)
        if kinds:
            provenance["special"] = ", ".join(kinds)
        chest_wall = facts.chest_wall_side(dataset)
    return Mammogram(
        stored=stored,
        presentation=presentation,
        laterality=side,
        view=side_view,
        spacing_mm=spacing,
        provenance=provenance,
        chest_wall=chest_wall,
    )
