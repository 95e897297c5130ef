"""Where vendors and archives put side and view when they do not use the standard's tags, and how they write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

VIEWS = ("XCCL", "XCCM", "XCC", "CC", "MLO", "LMO", "ML", "LM", "SIO", "ISO", "FB")

WRITTEN_OUT = {
    "CRANIOCAUDAL": "CC",
    "MEDIOLATERALOBLIQUE": "MLO",
    "MEDIOLATERAL": "ML",
    "LATEROMEDIAL": "LM",
    "LATEROMEDIALOBLIQUE": "LMO",
}

PREFIXES = {"M": "magnification", "S": "spot compression"}
SUFFIXES = {
    "ID": "implant displaced",
    "RL": "rolled lateral",
    "RM": "rolled medial",
    "RI": "rolled inferior",
    "RS": "rolled superior",
    "AT": "axillary tail",
    "CV": "cleavage",
    "NP": "nipple in profile",
    "AC": "anterior compression",
    "AX": "axillary tissue",
    "IMF": "infra-mammary fold",
    "TAN": "tangential",
}
"""ACR's abbreviations of the view modifiers (PS3.16 CID 4015, ACR MQCM 1999): before and after the view's."""

WORDS = {**SUFFIXES, "MAG": "magnification", "SPOT": "spot compression", "MAGNIFICATION": "magnification"}
SIDES = {"L": "L", "LEFT": "L", "LT": "L", "R": "R", "RIGHT": "R", "RT": "R"}

_ABBREVIATION = re.compile(
    rf"(?P<side>[LR])?(?P<prefix>[{''.join(PREFIXES)}])?(?P<view>{'|'.join(VIEWS)})(?P<suffix>{'|'.join(SUFFIXES)})?"
)
_CBIS_ID = re.compile(r"(?:MASS|CALC)-(?:TRAINING|TEST)_P_\d{5}_(LEFT|RIGHT)_(CC|MLO)(?:_\d+)?")

PRIVATE = (
    (0x0045, "GEMS_SENO_02", 0x1B, "Clinical View (0045,xx1B) of GE"),
    (0x0055, "SIEMENS MED SP DXMG WH AWS 1", 0x01, "Projection View (0055,xx01) of Siemens"),
)
"""Group, creator, element and name of private tags that hold side and view in one word, such as RMLO."""


@dataclass(frozen=True)
class Wording:
    """Side, view and modifiers that a text says, and where it stands.

    Args:
        source: tag, and whose habit it is.
        side: L, R or None.
        view: abbreviation or None.
        modifiers: meanings, see :data:`SUFFIXES`.
        standard: the tag is meant for it; other tags only fill gaps.
    """

    source: str
    side: str | None = None
    view: str | None = None
    modifiers: tuple[str, ...] = ()
    standard: bool = False


def text_of(dataset: Dataset, keyword: str) -> str:
    """Value of a tag in capitals without blanks around it; empty where it is missing."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().upper()


def texts_of(dataset: Dataset, keyword: str) -> list[str]:
    """Values of a tag as texts; empty where it is missing."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [str(part).strip() for part in ([value] if isinstance(value, str) else value)]


def read_wording(text: str, source: str, *, standard: bool = False) -> Wording:
    """Read side, view and modifiers out of a text such as ``MLO``, ``RMLOID``, ``L CC``, ``Mammo, R MLO spot``.

    Words that say nothing are passed over. A text that names two sides or two views says neither.

    Args:
        text: value of a tag.
        source: name of the tag, kept in the result.
        standard: see :class:`Wording`.
    """
    sides, views, modifiers = set(), set(), []
    whole = WRITTEN_OUT.get(re.sub(r"[^A-Z]", "", text.upper()))
    for word in [whole] if whole else re.split(r"[^A-Z0-9]+", text.upper()):
        match = _ABBREVIATION.fullmatch(word)
        if word in SIDES:
            sides.add(SIDES[word])
        elif word in WORDS:
            modifiers.append(WORDS[word])
        elif match:
            views.add(match["view"])
            sides |= {match["side"]} - {None}
            modifiers += [PREFIXES[match["prefix"]]] if match["prefix"] else []
            modifiers += [SUFFIXES[match["suffix"]]] if match["suffix"] else []
    return Wording(
        source,
        side=min(sides) if len(sides) == 1 else None,
        view=min(views) if len(views) == 1 else None,
        modifiers=tuple(dict.fromkeys(modifiers)),
        standard=standard,
    )


def wordings(dataset: Dataset) -> list[Wording]:
    """What a header says in words about side, view and modifiers, the most trustworthy first.

    * View Position (0018,5101), a code string that many writers fill with more than the view;
    * private tags of GE and Siemens;
    * Acquisition Device Processing Description (0018,1400), where Fujifilm names the view;
    * Patient Orientation (0020,0020) and Patient ID of CBIS-DDSM.
    """
    found = [read_wording(text_of(dataset, "ViewPosition"), "ViewPosition", standard=True)]
    for group, creator, element, name in PRIVATE:
        try:
            value = dataset.private_block(group, creator)[element].value
        except KeyError:
            continue
        found.append(read_wording(str(value), name))
    processing = text_of(dataset, "AcquisitionDeviceProcessingDescription")
    wording = read_wording(processing, "AcquisitionDeviceProcessingDescription (as of Fujifilm)")
    found += [wording] if wording.view else []  # other makers name their processing there, in any words
    orientation = text_of(dataset, "PatientOrientation")
    if orientation in VIEWS:
        name = "PatientOrientation (holds the view, as in CBIS-DDSM)"
        found.append(Wording(name, view=orientation, standard=True))
    patient = _CBIS_ID.fullmatch(text_of(dataset, "PatientID"))
    if patient:
        found.append(Wording("PatientID (as in CBIS-DDSM)", side=patient[1][0], view=patient[2]))
    return [wording for wording in found if wording.side or wording.view or wording.modifiers]
