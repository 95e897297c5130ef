"""The synthetic cohort: simulated patients with four views each, written as DICOM mammograms."""

from pipeline.phantom.cohort import MANIFEST_COLUMNS, PhantomError, write_cohort
from pipeline.phantom.lesions import Difficulty, LesionKind

__all__ = ["MANIFEST_COLUMNS", "Difficulty", "LesionKind", "PhantomError", "write_cohort"]
