"""One frame of a multi-frame object, read as if it were an image of its own."""

from __future__ import annotations

from pydicom.dataset import Dataset

GROUPS = (
    "FrameAnatomySequence",
    "PixelMeasuresSequence",
    "FrameVOILUTSequence",
    "PixelValueTransformationSequence",
    "XRay3DFrameTypeSequence",
    "PatientOrientationInFrameSequence",
)
"""Functional group macros that hold what a single image has at its top (PS3.3 C.7.6.16.2)."""

RENAMED = {"FrameLaterality": "ImageLaterality"}


def frame_count(dataset: Dataset) -> int:
    """Number of Frames (0028,0008), 1 where it is missing."""
    return int(dataset.get("NumberOfFrames") or 1)


def shown_frame(dataset: Dataset) -> int:
    """Index of the frame that stands for the object: the middle one, 0 for a single image."""
    return frame_count(dataset) // 2


def lift_frame_tags(dataset: Dataset) -> None:
    """Copy the facts of the shown frame from the functional groups to the top, where they are missing there.

    Shared Functional Groups Sequence and the frame's item of Per-Frame Functional Groups Sequence, whose own facts come
    first (PS3.3 C.7.6.16.1).
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    index = shown_frame(dataset)
    items = [per_frame[index]] if index < len(per_frame) else []
    items += list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    for item in items:
        for name in GROUPS:
            for macro in list(item.get(name) or [])[:1]:
                for element in macro:
                    keyword = RENAMED.get(element.keyword, element.keyword)
                    if keyword and dataset.get(keyword) in (None, ""):
                        setattr(dataset, keyword, element.value)
