"""CBIS-DDSM (Lee et al. 2017, doi 10.1038/sdata.2017.177): its PatientID names the view, not the patient.

"Mass-Test_P_00173_LEFT_CC" is the CC view of the left breast of patient P_00173, who may also stand in Calc-Training.
Grouping by PatientID would put the four views of a patient into four patients. A number at the end
("..._LEFT_CC_1") marks the mask or the cut-out of a finding, which is no whole mammogram. Study Instance UIDs differ
per view too, so they make no examinations. The ids are public pseudonyms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PATTERN = re.compile(
    r"(?:Mass|Calc)-(?:Training|Test)_(?P<patient>P_\d{5})_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)(?:_(?P<finding>\d+))?"
)
PATIENT = re.compile(r"P_\d{5}")


@dataclass(frozen=True)
class CbisId:
    """A PatientID of CBIS-DDSM, taken apart.

    Args:
        patient: patient, for example "P_00173".
        laterality: L or R.
        view: CC or MLO.
        finding: number of the finding of a mask or cut-out, None for a whole mammogram.
    """

    patient: str
    laterality: str
    view: str
    finding: int | None = None


def cbis_id(patient_id: str) -> CbisId | None:
    """Take a PatientID of CBIS-DDSM apart; None for any other id."""
    found = PATTERN.fullmatch(patient_id)
    if found is None:
        return None
    finding = found["finding"]
    return CbisId(found["patient"], found["side"][0], found["view"], int(finding) if finding else None)


def cbis_patient(text: str) -> str | None:
    """Patient "P_00173" of either form of the id; None for any other text."""
    parts = cbis_id(text)
    if parts is not None:
        return parts.patient
    return text if PATIENT.fullmatch(text) else None
