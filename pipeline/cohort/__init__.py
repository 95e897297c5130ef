"""Who is studied: manifests, their sources, folds, the preparation stage, and the opened cohort."""

from pipeline.cohort.auditing.audit import Audit, audit
from pipeline.cohort.auditing.leaks import LeakError
from pipeline.cohort.errors import CohortError
from pipeline.cohort.folds import patient_folds
from pipeline.cohort.manifest import ManifestError, read_manifest
from pipeline.cohort.opening import Cohort, open_cohort
from pipeline.cohort.phantoms import phantom_manifest
from pipeline.cohort.preparing import prepare_images, prepare_manifest
from pipeline.cohort.raw_ids import RawIdsError

__all__ = [
    "Audit",
    "Cohort",
    "CohortError",
    "LeakError",
    "ManifestError",
    "RawIdsError",
    "audit",
    "open_cohort",
    "patient_folds",
    "phantom_manifest",
    "prepare_images",
    "prepare_manifest",
    "read_manifest",
]
