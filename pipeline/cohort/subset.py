"""A smaller cohort: a seeded subset of patients with the class shares of the whole."""

from __future__ import annotations

import hashlib
import math

import pandas as pd

from pipeline.cohort.errors import CohortError
from pipeline.cohort.folds import patient_table


def draw_patients(manifest: pd.DataFrame, patients: int, *, seed: int = 0) -> pd.DataFrame:
    """Take a seeded subset of patients with the class shares of the whole.

    Args:
        manifest: as read by ``read_manifest``.
        patients: how many patients to keep.
        seed: seed of the draw.

    Returns:
        The rows of the drawn patients, in the order of the manifest.

    Raises:
        CohortError: more patients wanted than there are, or fewer than one per class.
    """
    everyone = patient_table(manifest)
    strata = ["patient_label"] + (["partition"] if "partition" in everyone else [])
    groups = everyone.groupby(strata, sort=True)
    if not len(groups) <= patients <= len(everyone):
        raise CohortError(f"patients is {patients}; the manifest allows {len(groups)} to {len(everyone)}")
    shares = groups.size() * patients / len(everyone)
    sizes = shares.map(math.floor).clip(lower=1)
    while sizes.sum() < patients:  # largest remainder first
        sizes[(shares - sizes).idxmax()] += 1
    while sizes.sum() > patients:  # a stratum was rounded up to one patient
        sizes[(sizes - shares).where(sizes > 1).idxmax()] -= 1
    order = everyone["patient_id"].map(lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    ranked = everyone.assign(order=order).sort_values("order")
    kept = {
        name
        for stratum, rows in ranked.groupby(strata, sort=True)
        for name in rows["patient_id"].head(int(sizes[stratum if len(strata) > 1 else stratum[0]]))
    }
    return manifest[manifest["patient_id"].isin(kept)].reset_index(drop=True)
