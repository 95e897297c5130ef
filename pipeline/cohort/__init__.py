"""Who is studied: manifests, their sources, folds, the preparation stage, and the opened cohort."""

from pipeline.cohort.errors import CohortError
from pipeline.cohort.folds import patient_folds
from pipeline.cohort.manifest import ManifestError, read_manifest
from pipeline.cohort.opening import Cohort, open_cohort, phantom_manifest
from pipeline.cohort.preparing import prepare_images
from pipeline.cohort.raw_ids import RawIdsError

__all__ = [
    "Cohort",
    "CohortError",
    "ManifestError",
    "RawIdsError",
    "open_cohort",
    "patient_folds",
    "phantom_manifest",
    "prepare_images",
    "read_manifest",
]
