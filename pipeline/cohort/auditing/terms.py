"""Header text as closed terms: a device's maker by name, all other free text by number, as it may hold a person's."""

from __future__ import annotations

import hashlib

import pandas as pd
from pydicom.dataset import Dataset

from pipeline.cohort.sources.identity import maker, tag_text
from pipeline.imaging.decoding import PHOTOMETRICS

UNKNOWN = "?"
"""Begins what stands for a text that is no known term, until it has a number."""
HELD = {"manufacturer": "Manufacturer", "model": "ManufacturerModelName", "software": "SoftwareVersions"}
"""Fact -> tag of free text (PS3.3 C.7.5.1): a hospital may have written anything into it."""
TERMS = (*HELD, "photometric")


def terms(dataset: Dataset) -> dict[str, str]:
    """Term of every fact of ``TERMS``: a known name, ``UNKNOWN`` and a digest of other text, "" where empty."""
    found = {name: _unknown(tag_text(dataset, tag)) for name, tag in HELD.items()}
    known = maker(dataset)
    if known not in ("", "other"):
        found["manufacturer"] = known
    photometric = tag_text(dataset, "PhotometricInterpretation").upper()
    return found | {"photometric": photometric if photometric in PHOTOMETRICS else _unknown(photometric)}


def numbered(values: pd.Series) -> pd.Series:
    """Unknown texts as "other 1", "other 2", ...: the most frequent first, so that nothing of the text is left.

    Args:
        values: terms of one fact, one per image.
    """
    unknown = values[values.str.startswith(UNKNOWN)].value_counts()
    order = sorted(unknown.index, key=lambda term: (-unknown[term], term))  # the same numbers in any order of rows
    return values.replace({term: f"other {number}" for number, term in enumerate(order, start=1)})


def _unknown(text: str) -> str:
    return UNKNOWN + hashlib.blake2b(text.encode(), digest_size=16).hexdigest() if text else ""
