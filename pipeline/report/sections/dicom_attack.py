"""Section about the DICOM attack: stored pixels changed by whole grey levels, measured by evaluation."""

from __future__ import annotations

from typing import Any

from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles

FILE = "artefacts/dicom_attack.json"
SETTINGS = ("threshold", "origin", "budget", "limit", "steps")
_STORED = ("full_scale_levels", "logit_prepared", "logit_rounded", "logit_dithered", "share_rounded", "share_dithered")


def dicom_attack_section(files: RunFiles) -> dict[str, Any]:
    """Content of artefacts/dicom_attack.json, one row per patient."""
    empty: dict[str, Any] = dict.fromkeys(SETTINGS) | {"summary": None, "patients": []}
    if files.dicom_attack is None:
        return section("missing", reason=files.missing[FILE], **empty)
    content = files.dicom_attack
    settings: dict[str, Any] = {name: content.get(name) for name in SETTINGS}
    patients = [_patient(record) for record in content["patients"]]
    n = {"patients": len(patients), "attacked": int(content["summary"]["attacked"])}
    if not n["attacked"]:
        reasons = sorted({_reason(record) for record in content["patients"]})
        reason = "; ".join(reasons) or "no patient was attacked"
        return section("missing", reason=reason, n=n, **settings, summary=content["summary"], patients=patients)
    return section(n=n, **settings, summary=content["summary"], patients=patients)


def _reason(record: dict[str, Any]) -> str:
    refused = record.get("refusals") or []
    return f"{record['reason']} ({refused[0]['code']}: {refused[0]['reason']})" if refused else record["reason"]


def _patient(record: dict[str, Any]) -> dict[str, Any]:
    stored, flip = record.get("stored_budget") or {}, record.get("levels_to_flip") or {}
    attacked = record.get("attacked") or {}
    return {
        "patient_id": str(record["patient_id"]),
        "label": int(record["label"]),
        "reason": _reason(record) if record["reason"] else None,
        "images": len(attacked.get("images") or stored.get("full_scale_levels") or []),
        "logit": record.get("logit"),
        **{name: stored.get(name) for name in _STORED if name != "full_scale_levels"},
        "budget_levels": max(stored["full_scale_levels"]) if stored.get("full_scale_levels") else None,
        "levels": flip.get("levels"),
        "levels_reason": flip.get("reason") or None,
        "logit_flipped": attacked.get("logit_after"),
    }
