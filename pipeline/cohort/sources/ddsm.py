"""DDSM (film mammograms, Heath et al. 2000): a manifest from the table labels.csv of the small four-view version.

Rules. The class of DDSM is the case's. In ``cancers`` a breast is malignant (1) where the overlay of either of its
views contains MALIGNANT, benign (0) where the overlays say only BENIGN or BENIGN_WITHOUT_CALLBACK, and unknown (empty)
where they say UNPROVEN alone or nothing. In ``benigns`` no side is given: both breasts are 0. ``patient_label`` is the
class of the case.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.errors import CohortError
from pipeline.cohort.schema import ALLOWED

TABLE = "labels.csv"
PATIENT_LABELS = {"cancers": 1, "benigns": 0}
MALIGNANT = "MALIGNANT"
BENIGN = frozenset({"BENIGN", "BENIGN_WITHOUT_CALLBACK"})
UNKNOWN = frozenset({"UNPROVEN"})


def breast_label(case_class: str, overlays: list[str]) -> float:
    """Label of one breast.

    Args:
        case_class: class of the case, "cancers" or "benigns".
        overlays: cell ``overlay_pathology`` of each view; several marks are joined by "|", none is "".

    Returns:
        1.0 malignant, 0.0 benign or negative, NaN unknown.

    Raises:
        CohortError: a word that the table's description does not know.
    """
    found = {mark for cell in overlays for mark in cell.split("|") if mark}
    strange = found - BENIGN - UNKNOWN - {MALIGNANT}
    if strange or case_class not in PATIENT_LABELS:
        words = sorted(strange) or [case_class]
        raise CohortError(
            f"DDSM: {words} is not known; overlay_pathology holds {MALIGNANT}, {', '.join(sorted(BENIGN | UNKNOWN))} "
            f"joined by '|', case_class {', '.join(PATIENT_LABELS)}"
        )
    if case_class == "benigns":
        return 0.0
    if MALIGNANT in found:
        return 1.0
    return 0.0 if found & BENIGN else np.nan


def ddsm_manifest(root: str | Path) -> pd.DataFrame:
    """Build the manifest of a DDSM folder.

    Args:
        root: folder with labels.csv and the images that it names; it becomes the data root.

    Returns:
        One row per image with the columns of a manifest; vendor is the scanner group A to D.

    Raises:
        CohortError: the table is missing or lacks columns.
    """
    path = Path(root) / TABLE
    if not path.is_file():
        raise CohortError(f"{path} does not exist; --root must be the folder that holds {TABLE} and images/")
    table = pd.read_csv(path, dtype="str", keep_default_na=False)
    needed = ["image", "patient_id", "laterality", "view", "case_class", "scanner_group", "overlay_pathology", "lesion"]
    missing = [name for name in needed if name not in table]
    if missing:
        raise CohortError(f"{path} lacks the columns {', '.join(missing)}; is it the table of the small DDSM?")
    labels = {
        breast: breast_label(rows["case_class"].iloc[0], rows["overlay_pathology"].tolist())
        for breast, rows in table.groupby(["patient_id", "laterality"])
    }
    keys = zip(table["patient_id"], table["laterality"], strict=True)
    manifest = table.assign(
        label=[labels[key] for key in keys],
        patient_label=table["case_class"].map(PATIENT_LABELS).astype(np.int64),
        vendor=table["scanner_group"],
    )
    return manifest[[name for name in ALLOWED if name in manifest]]
