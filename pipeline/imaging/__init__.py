"""One mammogram: from DICOM or PNG to display values, a replayable preparation and a prepared image in the store."""

from pipeline.imaging.chain import chain_digest, chain_from_description, describe_chain, prepare_item
from pipeline.imaging.display import Display, Table, VOIFunction
from pipeline.imaging.loading import LoadPreparedd
from pipeline.imaging.mammogram import Laterality, Mammogram, Presentation, View, VOIPolicy, Window
from pipeline.imaging.preparation import Preparation
from pipeline.imaging.reading import read_mammogram
from pipeline.imaging.refusal import Refusal, RefusalCode, explain, refusal_of
from pipeline.imaging.segmentation import segment_breast
from pipeline.imaging.steps import Background, Crop, Flip, Pad, Resize, Stretch
from pipeline.imaging.store import ImageStore, load_prepared
from pipeline.imaging.transforms import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
    StretchContrastd,
)

__all__ = [
    "ApplyWindowd",
    "Background",
    "Crop",
    "CropToBreastd",
    "Display",
    "Flip",
    "ImageStore",
    "Laterality",
    "LoadPreparedd",
    "Mammogram",
    "OrientChestWalld",
    "Pad",
    "Preparation",
    "Presentation",
    "ReadMammogramd",
    "Refusal",
    "RefusalCode",
    "Resize",
    "ResizeImaged",
    "SegmentBreastd",
    "Stretch",
    "StretchContrastd",
    "Table",
    "VOIFunction",
    "VOIPolicy",
    "View",
    "Window",
    "chain_digest",
    "chain_from_description",
    "describe_chain",
    "load_prepared",
    "prepare_item",
    "read_mammogram",
    "explain",
    "refusal_of",
    "segment_breast",
]
