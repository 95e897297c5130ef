"""What a DICOM file tells of a person beyond the picture: identifying text in its path, age, maker of the device."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import permutations

from pydicom.dataset import Dataset

from pipeline.cohort.schema import OLDEST

SHORT = 4  # letters; a shorter id or name must stand alone in a path ("Lee" is no part of "sleep")
OLD = 90  # years; ages above 89 count as identifying and are pooled (45 CFR 164.514(b)(2)(i)(C))
ID_KEYWORDS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "StudyID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
NAME_KEYWORDS = ("PatientName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName")
DATE_KEYWORDS = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
MAKERS = {
    # word in Manufacturer (0008,0070) -> name; the tag itself is free text and may hold anything.
    "HOLOGIC": "Hologic",
    "LORAD": "Hologic",
    "GE MED": "GE",
    "GE HEALTH": "GE",
    "GENERAL ELECTRIC": "GE",
    "SIEMENS": "Siemens",
    "FUJI": "Fujifilm",
    "PHILIPS": "Philips",
    "SECTRA": "Philips",
    "IMS": "IMS Giotto",
    "GIOTTO": "IMS Giotto",
    "PLANMED": "Planmed",
    "CARESTREAM": "Carestream",
    "KODAK": "Carestream",
    "AGFA": "Agfa",
    "KONICA": "Konica Minolta",
    "METALTRONICA": "Metaltronica",
    "CANON": "Canon",
    "TOSHIBA": "Canon",
}
_AGE = re.compile(r"(\d{3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")


def tag_text(dataset: Dataset, keyword: str) -> str:
    """Text of a tag without blanks around it, "" where it is missing or empty."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def path_tells(path: str, words: Iterable[str]) -> bool:
    """Whether a path holds one of the words; those of fewer than four letters must stand alone.

    Beside a word of letters only, such as a name, digits may stand: "Kim01" tells, "kimono" does not.

    Args:
        path: relative path; case does not matter.
        words: ids or names.
    """
    low = path.casefold()
    for word in words:
        quoted = re.escape(word.strip().casefold())
        if not quoted:
            continue
        beside = r"[^\W\d_]" if word.strip().isalpha() else r"[^\W_]"
        pattern = quoted if len(word.strip()) >= SHORT else rf"(?<!{beside}){quoted}(?!{beside})"
        if re.search(pattern, low):
            return True
    return False


def path_identifies(dataset: Dataset, path: str) -> bool:
    """Whether the path of a file holds an id, a UID, part of a name or a date of the file's own header.

    Args:
        dataset: header of the file.
        path: its path below the root of the archive.
    """
    words = [part for keyword in ID_KEYWORDS for part in tag_text(dataset, keyword).split("\\")]
    for keyword in NAME_KEYWORDS:
        parts = [part for part in re.split(r"[\^=\\\s,._-]+", tag_text(dataset, keyword)) if part]
        words += [part for part in parts if len(part) > 1]
        joined = ("".join(pair) for pair in permutations(parts, 2))  # "LiNa" of Li^Na, and with initials, "NLi"
        words += [word for word in joined if len(word) > 2]
    return path_tells(path, words) or any(_holds_date(path, tag_text(dataset, keyword)) for keyword in DATE_KEYWORDS)


def _holds_date(path: str, date: str) -> bool:
    """Whether a path holds a date in any usual order, with a year of four digits or of two."""
    found = _DATE.fullmatch(date)
    if found is None:
        return False
    full, month, day = found.groups()
    gap = r"[-_./ ]?"
    orders = [
        order for year in (full, full[2:]) for order in ((year, month, day), (month, day, year), (day, month, year))
    ]
    return any(re.search(rf"(?<!\d){gap.join(order)}(?!\d)", path) for order in orders)


def age_years(dataset: Dataset) -> float | None:
    """Age at the examination in whole years: Patient's Age (0010,1010), else from birth and study date; 90 if above 89.

    Returns:
        The age, None where it is not known, below one year or above any person's.
    """
    years: float | None = None
    stated = _AGE.fullmatch(tag_text(dataset, "PatientAge"))
    birth, study = (_DATE.fullmatch(tag_text(dataset, keyword)) for keyword in ("PatientBirthDate", "StudyDate"))
    if stated and int(stated.group(1)):  # 000Y and a birth in the year 0 stand for an unknown age
        years = int(stated.group(1)) * _YEARS[stated.group(2)]
    elif birth and study:
        born, seen = ([int(part) for part in date.groups()] for date in (birth, study))
        years = seen[0] - born[0] - (seen[1:] < born[1:])
    if years is None or not 1 <= years <= OLDEST:
        return None
    return float(min(int(years), OLD))


def maker(dataset: Dataset) -> str:
    """Maker of the device from Manufacturer (0008,0070): a known name, "other", or "" where the tag is empty."""
    text = tag_text(dataset, "Manufacturer").upper()
    if not text:
        return ""
    return next((name for word, name in MAKERS.items() if re.search(rf"\b{word}", text)), "other")
