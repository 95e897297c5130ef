"""Section on top: what was done, on whom, and the answer in one line."""

from __future__ import annotations

from typing import Any

from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles
from pipeline.report.sections.scores import Scored
from pipeline.statistics import AttackResult

_HEADLINE_ATTACKS = 4


def overview(
    files: RunFiles, scored: Scored, cohort: dict[str, Any], strong: dict[str, Any], gates: dict[str, Any]
) -> dict[str, Any]:
    """Who trained what on whom, the test AUC clean and attacked, and what the strong test says of it."""
    partitions = {row["partition"]: row for row in cohort["partitions"]}
    clean = scored.results[0]
    attacked = [result for result in scored.results[1:] if result.norm == scored.results[1].norm]
    if len(attacked) > _HEADLINE_ATTACKS:
        attacked = [attacked[0], attacked[len(attacked) // 2], attacked[-1]]
    return section(
        n={"patients": clean.patients, "malignant": clean.auc.n_positive, "benign": clean.auc.n_negative},
        method=trained(files),
        data=_data(files.config or {}),
        training=partitions.get("training"),
        leaks=[str(message) for message in ((files.provenance or {}).get("leaks") or {}).get("found", [])],
        external=bool((files.config or {}).get("external")),
        epoch=(files.provenance or {}).get("epoch"),
        attack=_attack(attacked),
        strongest=_strongest(strong),
        failed_gates=[gate["name"] for gate in gates["gates"] if gate["verdict"] == "fail"],
        headline=[
            {
                "place": scored.results.index(result),
                "attack_id": result.attack_id,
                "label": scored.labels[result.attack_id],
                "budget": result.budget,
                "auc": result.auc.to_dict(),
            }
            for result in [clean, *attacked]
        ],
    )


def _attack(attacked: list[AttackResult]) -> str | None:
    """The attack of the headline in words."""
    steps = {result.steps for result in attacked}
    return f"PGD with {steps.pop()} steps" if len(steps) == 1 and all("pgd" in r.attack_id for r in attacked) else None


def _strongest(strong: dict[str, Any]) -> dict[str, Any] | None:
    """The lowest AUC of the strong test at its budget, on its patients; None without one."""
    places = [
        (attack["auc"]["value"], attack["role"] == "exam", place)  # of equals, one on all images
        for place, attack in enumerate(strong["attacks"])
        if attack["norm"] == "linf" and attack["budget"] == strong["budget"] and attack["auc"]["value"] is not None
    ]
    if not places:
        return None
    place = min(places)[-1]
    attack = strong["attacks"][place]
    return {
        "label": attack["label"],
        "budget": attack["budget"],
        "auc": attack["auc"],
        "patients": strong["n"]["patients"],
    }


def trained(files: RunFiles) -> str | None:
    """How the network was trained: by this run, or by that of the checkpoint which it evaluates."""
    provenance = files.provenance or {}
    if "training" not in provenance:
        return _method(files.config or {})
    words = _method(provenance["training"])
    return f"{words} on {_patients(provenance['training'])}" if words else None


def _patients(config: dict[str, Any]) -> str:
    data = _data(config)
    return "phantoms" if data == "phantoms" else f"the patients of {data}"


def _method(config: dict[str, Any]) -> str | None:
    """The training method in words, from the resolved configuration; None when it does not say."""
    method = config.get("method")
    target = str(method.get("_target_", "")) if isinstance(method, dict) else ""
    name = target.rsplit(".", 1)[-1]
    if name and name != "AdversarialTraining":
        return name
    ratio, weight = config.get("standard_ratio"), config.get("arfl_weight")
    if not isinstance(ratio, (int, float)):
        return name or None
    if ratio == 1:
        words = "standard training"
    elif ratio == 0:
        words = "adversarial training"
    else:
        words = f"dual adversarial training (share of standard images {ratio:g})"
    if isinstance(weight, (int, float)) and weight > 0:
        words += f" with robust feature learning, ARFL (weight {weight:g})"
    start = config.get("start_epoch")
    if isinstance(start, int) and start > 1 and not (ratio == 1 and not weight):
        words = f"{start - 1} epochs of standard training, then {words}"
    return words


def _data(config: dict[str, Any]) -> str | None:
    """What the patients are: a manifest by name, or "phantoms"; None when the configuration does not say."""
    if "manifest" not in config:
        return None
    manifest = config["manifest"]
    return "phantoms" if manifest in (None, "") else str(manifest).replace("\\", "/").rsplit("/", 1)[-1]
