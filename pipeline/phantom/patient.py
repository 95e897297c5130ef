"""Who a phantom patient is: drawn from the cohort's seed and the patient's number alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.imaging.writing import ACQUISITION_STYLES, AcquisitionStyle
from pipeline.phantom.anatomy import BreastShape
from pipeline.phantom.lesions import BENIGN, MALIGNANT, Difficulty, Finding, LesionKind

__all__ = ["DENSITIES", "PhantomPatient", "draw_patient"]

# BI-RADS composition categories and the share of dense tissue that stands for each here; prevalences of
# 10, 40, 40 and 10 % as in screening (Sprague et al., J Natl Cancer Inst 106:dju255, 2014).
DENSITIES = {"a": 0.10, "b": 0.25, "c": 0.45, "d": 0.65}
_PREVALENCE = (0.1, 0.4, 0.4, 0.1)
_PAIR_STREAM = 0x50414952  # sets the stream shared by a pair apart from every patient's own
_SIZE_STRATA = 5


@dataclass(frozen=True, kw_only=True)
class PhantomPatient:
    """Everything about a patient but the pixels.

    Args:
        number: position in the cohort, from 0.
        malignant: whether one breast is malignant.
        age: in years.
        density: BI-RADS category, "a" to "d".
        style: how the exam is stored.
        noise: standard deviation of the noise in display values.
        breasts: shape by laterality.
        findings: finding by laterality (kind NONE where there is nothing).
    """

    number: int
    malignant: bool
    age: int
    density: str
    style: AcquisitionStyle
    noise: float
    breasts: dict[str, BreastShape]
    findings: dict[str, Finding]


def draw_patient(seed: int, number: int, *, difficulty: Difficulty) -> PhantomPatient:
    """Draw one patient.

    Patients 2k and 2k + 1 are a matched pair, as in a case-control study: one of them is malignant, and both share the
    stratum of breast size, the density category, the acquisition style and the noise. Within the stratum each draws its
    own values. So nothing but the findings separates the classes, in a cohort of any seed and (nearly) any size.

    Args:
        seed: of the cohort.
        number: position in the cohort, from 0.
        difficulty: scales size and contrast of every finding.

    Returns:
        the patient.
    """
    pair = np.random.default_rng(np.random.SeedSequence([seed, number // 2, _PAIR_STREAM]))
    malignant = bool(pair.integers(2)) == bool(number % 2)
    stratum = int(pair.integers(_SIZE_STRATA))
    density = str(pair.choice(list(DENSITIES), p=_PREVALENCE))
    style = ACQUISITION_STYLES[int(pair.integers(len(ACQUISITION_STYLES)))]
    noise = float(pair.uniform(0.010, 0.020))

    own = np.random.default_rng(np.random.SeedSequence([seed, number]))
    size = (stratum + own.uniform()) / _SIZE_STRATA
    common = DENSITIES[density] + own.uniform(-0.05, 0.05)
    thickness = 38 + 28 * size + own.normal(0, 3)
    breasts = {
        side: BreastShape(
            depth_mm=76 + 58 * size + own.normal(0, 2.5),
            height_mm=136 + 74 * size + own.normal(0, 4),
            thickness_mm=thickness + own.normal(0, 1),
            density=float(np.clip(common + own.normal(0, 0.015), 0.02, 0.9)),
        )
        for side in ("L", "R")
    }
    bad_side = "LR"[int(own.integers(2))]
    findings = {}
    for side in ("L", "R"):
        kinds: tuple[LesionKind, ...] = MALIGNANT if malignant and side == bad_side else BENIGN
        findings[side] = _draw_finding(kinds[int(own.integers(len(kinds)))], own, difficulty)
    return PhantomPatient(
        number=number, malignant=malignant, age=int(np.clip(own.normal(57, 9), 38, 84)), density=density, style=style,
        noise=noise, breasts=breasts, findings=findings,
    )  # fmt: skip


def _draw_finding(kind: LesionKind, generator: np.random.Generator, difficulty: Difficulty) -> Finding:
    """Place and scale a finding; the same distributions for every kind."""
    return Finding(
        kind=kind,
        depth=float(generator.uniform(0.35, 0.7)),
        across=float(generator.uniform(-0.5, 0.5)),
        up=float(generator.uniform(-0.45, 0.4)),
        radius_mm=float(generator.uniform(8.0, 11.5)) * difficulty.size,
        contrast=float(generator.uniform(0.22, 0.32)) * difficulty.contrast,
    )
