"""Reading a manifest for an audit: what contradicts itself between rows is a finding here, not the end."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from pipeline.cohort.manifest import ManifestError, read_manifest
from pipeline.cohort.schema import bad_cells

BETWEEN_ROWS = ("label", "patient_label", "group_id", "partition", "image")


def read_for_audit(path: str | Path, *, dataset_dir: str | Path | None) -> pd.DataFrame:
    """Read a manifest as ``read_manifest`` does, but with contradictory rows.

    A patient in two partitions, two labels of one breast, an image listed twice: ``read_manifest`` refuses such a
    manifest, and an audit has to name what is wrong with it.

    Args:
        path: the manifest.
        dataset_dir: the data root.

    Returns:
        The table of ``read_manifest``; ``attrs["digest"]`` is the SHA-256 of the file.

    Raises:
        ManifestError: columns or cells that cannot be read at all, or a link out of the data root.
    """
    try:
        return read_manifest(path, dataset_dir=dataset_dir, allow_raw_ids=True)
    except ManifestError as error:
        columns = set(error.rows["column"])
        if (error.rows["line"] == 0).any() or not columns <= set(BETWEEN_ROWS):
            raise
        text = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig")
        links = (error.rows["column"] == "image") & ~error.rows["problem"].str.endswith("stands there twice")
        if len(bad_cells(text)) or links.any():
            raise
    table = text.assign(
        label=pd.to_numeric(text["label"].replace("", None)).astype("float64"),
        patient_label=pd.to_numeric(text["patient_label"]).astype("int64"),
        group_id=text["group_id"].where(text["group_id"] != "", text["patient_id"])
        if "group_id" in text
        else text["patient_id"],
    )
    if "partition" in table and (table["partition"] == "").any():
        table = table.drop(columns="partition")
    table.attrs["digest"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return table
