"""Nothing that needs no look at the tissue tells the classes apart."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from sklearn.metrics import roc_auc_score

from pipeline.phantom import write_cohort


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Per-patient means of trivial measurements over 200 patients at 96 rows."""
    folder = tmp_path_factory.mktemp("cohort") / "phantoms"
    manifest = pd.read_csv(
        write_cohort(folder, patients=200, seed=0, height=96, masks=True, workers=1, progress=False)
    )  # fmt: skip
    rows = []
    for row in manifest.itertuples():
        path = folder / row.image
        dataset = pydicom.dcmread(path)
        mask = np.asarray(
            nibabel.load(folder / "masks" / row.patient_id / f"{row.laterality}_{row.view}_breast.nii.gz").dataobj
        )
        shown = apply_voi_lut(dataset.pixel_array, dataset).astype(float)
        shown /= 4095 if "VOILUTSequence" in dataset else 2**dataset.BitsStored - 1
        if dataset.PresentationLUTShape == "INVERSE":
            shown = 1 - shown
        rows.append(
            {
                "patient_id": row.patient_id, "label": row.patient_label, "mean_intensity": shown.mean(),
                "mean_in_breast": shown[mask == 1].mean(), "breast_area": mask.sum(), "file_size": path.stat().st_size,
                "age": row.age, "stored_mean": dataset.pixel_array.mean(), "bits": dataset.BitsStored,
                "vendor": hash(row.vendor), "thickness": float(dataset.BodyPartThickness),
            }
        )  # fmt: skip
    return pd.DataFrame(rows).groupby("patient_id").mean()


@pytest.mark.parametrize("measure", ["mean_intensity", "mean_in_breast", "breast_area", "file_size"])
def test_a_trivial_measurement_tells_nothing(patients: pd.DataFrame, measure: str) -> None:
    assert patients[measure].nunique() > 20, "the measurement does not vary, so the test could not fail"
    assert 0.40 <= roc_auc_score(patients.label, patients[measure]) <= 0.60


@pytest.mark.parametrize("measure", ["age", "stored_mean", "thickness"])
def test_neither_do_the_headers(patients: pd.DataFrame, measure: str) -> None:
    assert 0.40 <= roc_auc_score(patients.label, patients[measure]) <= 0.60


def test_devices_are_the_same_for_both_classes(patients: pd.DataFrame) -> None:
    counts = patients.groupby(["vendor", "label"]).size().unstack()
    assert (counts[0] == counts[1]).all()
