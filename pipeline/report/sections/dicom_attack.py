"""Section about the DICOM attack: stored pixels changed by whole grey levels, measured by evaluation."""

from __future__ import annotations

from typing import Any

from pipeline.report.measured import AttackedPatient
from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles

FILE = "artefacts/dicom_attack.json"
SETTINGS = ("threshold", "origin", "budget", "limit", "steps")
_STORED = ("logit_prepared", "logit_rounded", "logit_dithered", "share_rounded", "share_dithered")


def dicom_attack_section(files: RunFiles) -> dict[str, Any]:
    """Content of artefacts/dicom_attack.json, one row per patient."""
    empty: dict[str, Any] = dict.fromkeys(SETTINGS) | {"summary": None, "patients": []}
    if files.dicom_attack is None:
        return section("missing", reason=files.missing[FILE], **empty)
    found = files.dicom_attack
    content: dict[str, Any] = found.model_dump(include={*SETTINGS, "summary"})
    content["patients"] = [_patient(record) for record in found.patients]
    n = {"patients": len(found.patients), "attacked": found.summary.attacked}
    if not n["attacked"]:
        reasons = sorted({_reason(record) for record in found.patients})
        return section("missing", reason="; ".join(reasons) or "no patient was attacked", n=n, **content)
    return section(n=n, **content)


def _reason(record: AttackedPatient) -> str:
    refused = record.refusals
    return f"{record.reason} ({refused[0].code}: {refused[0].reason})" if refused else record.reason


def _patient(record: AttackedPatient) -> dict[str, Any]:
    stored, flip, attacked = record.stored_budget, record.levels_to_flip, record.attacked
    images = len(attacked.images) if attacked else len(stored.full_scale_levels) if stored else 0
    return {
        "patient_id": record.patient_id,
        "label": record.label,
        "reason": _reason(record) if record.reason else None,
        "images": images,
        "logit": record.logit,
        **{name: getattr(stored, name, None) for name in _STORED},
        "budget_levels": max(stored.full_scale_levels) if stored and stored.full_scale_levels else None,
        "levels": flip.levels if flip else None,
        "levels_reason": (flip.reason or None) if flip else None,
        "logit_flipped": attacked.logit_after if attacked else None,
    }
