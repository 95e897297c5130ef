"""Which patients the gallery shows: ranks, calls at the frozen threshold, and reasons where nobody is shown."""

import pandas as pd

from pipeline.evaluation.failures import ALARMED, FLIPPED, MISSED, choose_failures

POOLING = {"within_breast": "mean", "across_breasts": "max"}


def scores(clean: dict[str, float], attacked: dict[str, float], validation: dict[str, float]) -> pd.DataFrame:
    """Patients named m... are malignant; one image of each breast, the left one lower by 1."""
    rows = []
    groups = (("test", "clean", clean), ("test", "pgd-7@0.001", attacked), ("validation", "clean", validation))
    for partition, attack_id, logits in groups:
        for patient, logit in logits.items():
            for side, value in (("R", logit), ("L", logit - 1)):
                rows.append(
                    {"image_id": f"{patient}/{side}", "patient_id": patient, "laterality": side, "view": "CC",
                     "partition": partition, "fold": 0, "patient_label": int(patient[0] == "m"), "attack_id": attack_id,
                     "norm": "", "budget": 0.0, "steps": 0, "restarts": 0, "logit": value}
                )  # fmt: skip
    return pd.DataFrame(rows)


CLEAN = {"m1": 5.0, "m2": -3.0, "m3": 2.0, "m4": 4.0, "b1": 1.0, "b2": -4.0, "b3": -1.0, "b4": -2.0}
ATTACKED = CLEAN | {"m1": -1.0, "m4": -0.5, "m3": 1.0, "m2": -9.0, "b3": 0.5, "b4": 3.0, "b1": 9.0}
VALIDATION = {"m8": 0.0, "m9": 3.0, "b8": -1.0, "b9": -2.0}  # the threshold is 0


def test_the_worst_errors_are_ranked_and_flips_are_those_of_right_calls_by_their_size() -> None:
    found = choose_failures(scores(CLEAN, ATTACKED, VALIDATION), attack_id="pgd-7@0.001", count=2, pooling=POOLING)
    assert [(each.rule, each.patients) for each in found] == [
        (MISSED, ("m2", "m3")), (ALARMED, ("b1", "b3")), (FLIPPED, ("m1", "b4"))
    ]  # fmt: skip
    more = choose_failures(scores(CLEAN, ATTACKED, VALIDATION), attack_id="pgd-7@0.001", count=1, pooling=POOLING)
    assert more[2].patients == ("m1",)  # m1 moves by 6, b4 by 5, m4 by 4.5


def test_a_patient_stands_under_one_rule_only() -> None:
    found = choose_failures(scores(CLEAN, ATTACKED, VALIDATION), attack_id="pgd-7@0.001", count=4, pooling=POOLING)
    assert found[2].patients == () and "shown above" in str(found[2].reason)


def test_where_nobody_can_be_shown_the_reason_is_said() -> None:
    none = choose_failures(scores(CLEAN, CLEAN, VALIDATION), attack_id="pgd-7@0.001", count=2, pooling=POOLING)[2]
    assert none.patients == () and "turns over no call" in str(none.reason)
    other = choose_failures(scores(CLEAN, ATTACKED, VALIDATION), attack_id="square@1", count=2, pooling=POOLING)[2]
    assert other.patients == () and "no patient was scored under square@1" in str(other.reason)
    blind = choose_failures(scores(CLEAN, ATTACKED, {"m8": 0.0}), attack_id="pgd-7@0.001", count=2, pooling=POOLING)[2]
    assert blind.patients == () and blind.reason
    benign = {name: value for name, value in CLEAN.items() if name[0] == "b"}
    missed = choose_failures(scores(benign, {}, VALIDATION), attack_id="pgd-7@0.001", count=2, pooling=POOLING)[0]
    assert missed.patients == () and "no malignant patient" in str(missed.reason)
