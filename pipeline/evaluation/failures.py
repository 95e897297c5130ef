"""Which test patients a gallery shows: the worst errors and the patients that an attack turns over, by rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pipeline.statistics import CLEAN, freeze_threshold, pool_patients

MISSED, ALARMED, FLIPPED = "missed", "alarmed", "flipped"


@dataclass(frozen=True)
class Failures:
    """Patients of one rule.

    Attributes:
        rule: "missed" (malignant, the lowest clean logits), "alarmed" (benign, the highest) or "flipped" (called
            rightly without attack and wrongly under it; the largest changes of the logit).
        patients: the worst first.
        reason: why there is none; None where there are some.
    """

    rule: str
    patients: tuple[str, ...]
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self) | {"patients": list(self.patients)}


def choose_failures(scores: pd.DataFrame, *, attack_id: str, count: int, pooling: dict[str, Any]) -> list[Failures]:
    """Choose patients by rule; each stands under the first rule that it fulfils.

    Calls are made at the threshold that the validation patients of the table fix (sensitivity of 0.9), as in the
    report. A worst miss is listed also where it is still caught: the rule is a rank.

    Args:
        scores: rows of scores.csv, one fold.
        attack_id: the attack of the rule "flipped".
        count: patients per rule, at most.
        pooling: arguments of :func:`~pipeline.statistics.pool_patients`.
    """
    pooled = pool_patients(scores, **pooling)
    test = pooled[pooled["partition"] == "test"]
    clean = test[test["attack_id"] == CLEAN].set_index("patient_id").sort_index()
    chosen: list[Failures] = []
    for rule, label, lowest in ((MISSED, 1, True), (ALARMED, 0, False)):
        rows = clean[clean["patient_label"] == label].sort_values("logit", ascending=lowest, kind="stable")
        who = tuple(str(name) for name in rows.index[:count])
        absent = "no malignant patient was scored" if label else "no benign patient was scored"
        chosen.append(Failures(rule, who, None if who else absent))
    shown = {name for failures in chosen for name in failures.patients}
    chosen.append(_flipped(pooled, clean, test[test["attack_id"] == attack_id], attack_id, count, shown))
    return chosen


def _flipped(
    pooled: pd.DataFrame, clean: pd.DataFrame, attacked: pd.DataFrame, attack_id: str, count: int, shown: set[str]
) -> Failures:
    if attacked.empty:
        return Failures(FLIPPED, (), f"no patient was scored under {attack_id}")
    frozen = pooled[(pooled["partition"] == "validation") & (pooled["attack_id"] == CLEAN)]
    threshold = freeze_threshold(frozen["patient_label"].to_numpy(), frozen["logit"].to_numpy())
    if threshold.value is None:
        return Failures(FLIPPED, (), threshold.reason)
    after = attacked.set_index("patient_id")["logit"]
    before = clean.loc[after.index]
    malignant = before["patient_label"] == 1
    turned = ((before["logit"] >= threshold.value) == malignant) & ((after >= threshold.value) != malignant)
    if not turned.any():
        return Failures(FLIPPED, (), f"{attack_id} turns over no call of a patient")
    moved = (after - before["logit"]).abs()[turned].sort_values(ascending=False, kind="stable")
    others = tuple(str(name) for name in moved.index if name not in shown)[:count]
    return Failures(FLIPPED, others, None if others else "all patients that are turned over are shown above")
