"""One mammogram: from DICOM or PNG to display values, a replayable preparation and a prepared image in the store."""

from pipeline.imaging.mammogram import Laterality, Mammogram, View, VOIPolicy
from pipeline.imaging.preparation import Preparation
from pipeline.imaging.reading import read_mammogram
from pipeline.imaging.refusal import Refusal, RefusalCode, refusal_of
from pipeline.imaging.segmentation import segment_breast
