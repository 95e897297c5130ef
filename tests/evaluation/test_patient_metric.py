"""The patient metric: eval mode, independence of batches, padded duplicates, cohorts of one class."""

import json
import math
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from sklearn.metrics import roc_auc_score
from torch import multiprocessing, nn

from pipeline.attacks import PGD
from pipeline.evaluation import PatientAUC
from pipeline.statistics import pool_patients


class WithDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.linear(self.dropout(images.flatten(1)))


def items(patients=8, positive=4):
    generator = torch.Generator().manual_seed(1)
    rows = []
    for patient in range(patients):
        for side in "LR":
            for view in ("CC", "MLO"):
                label = int(patient < positive)
                rows.append(
                    {"image": torch.rand(1, 8, 8, generator=generator), "label": np.array([label], np.float32),
                     "patient_label": label, "patient_id": f"p{patient}", "laterality": side, "view": view,
                     "image_id": f"p{patient}/{side}{view}", "partition": "test", "fold": 0}
                )  # fmt: skip
    return rows


def evaluate(rows, *, batch_size=4, budgets=(0.05,), **settings):
    torch.manual_seed(0)
    network = WithDropout().train()
    metric = PatientAUC(network, attacks=[PGD(budget=b, steps=2) for b in budgets], **settings)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=DataLoader(Dataset(rows), batch_size=batch_size), network=network,
        key_val_metric={"patient_auc": metric}, decollate=False,
    )  # fmt: skip
    engine.run()
    return metric, engine.state.metrics


def test_a_budget_of_zero_gives_the_clean_scores_although_the_head_has_dropout():
    table = evaluate(items(), budgets=(0.0,))[0].table.pivot(index="image_id", columns="attack_id", values="logit")
    assert table.shape[1] == 2
    assert (table.iloc[:, 0] == table.iloc[:, 1]).all()


def test_every_attacked_margin_is_worse_than_the_clean_one():
    table = evaluate(items())[0].table
    wide = table.pivot(index=["image_id", "patient_label"], columns="attack_id", values="logit").reset_index()
    assert (((1 - 2 * wide["patient_label"]) * (wide["pgd-2@0.05"] - wide["clean"])) > 0).all()


def test_the_value_is_the_auc_of_pooled_patients():
    metric, values = evaluate(items(), selection="mean", budgets=(0.001,))
    expected = []
    for attack in ("clean", "pgd-2@0.001"):
        part = metric.table[metric.table["attack_id"] == attack]
        breasts = part.groupby(["patient_id", "laterality", "patient_label"])["logit"].mean()
        patients = breasts.groupby(["patient_id", "patient_label"]).max().reset_index()
        expected.append(roc_auc_score(patients["patient_label"], patients["logit"]))
    assert values["clean_auc"] == pytest.approx(expected[0])
    assert values["attacked_auc"] == pytest.approx(expected[1])
    assert values["patient_auc"] == pytest.approx(np.mean(expected))


def test_scores_do_not_depend_on_batches():
    tables = [evaluate(items(), batch_size=size)[0].table for size in (1, 5, 32)]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, rtol=1e-5, atol=1e-6)


def test_images_that_a_sampler_padded_are_counted_once():
    rows = items()
    plain, padded = evaluate(rows), evaluate([*rows, *rows[:3]])
    pd.testing.assert_frame_equal(plain[0].table, padded[0].table, rtol=1e-5, atol=1e-6)
    assert plain[1] == pytest.approx(padded[1])


def test_the_healthy_breast_of_a_patient_with_cancer_is_pushed_down_like_the_other():
    rows = items()
    for row in rows:
        healthy = row["laterality"] == "R" or row["patient_label"] == 0
        row["breast_label"] = 0.0 if healthy else 1.0
        row["label"] = np.array([row["breast_label"]], np.float32)  # what a training would use
    table = evaluate(rows)[0].table
    wide = table.pivot(index=["image_id", "patient_label", "label"], columns="attack_id", values="logit").reset_index()
    healthy = wide[(wide["patient_label"] == 1) & (wide["label"] == 0)]
    assert len(healthy) == 8
    assert (healthy["pgd-2@0.05"] < healthy["clean"]).all()


def test_a_batch_without_the_facts_is_refused_by_name():
    rows = [{key: row[key] for key in row if key not in ("image_id", "laterality")} for row in items()]
    with pytest.raises(ValueError, match="lacks image_id, laterality"):
        evaluate(rows)


def test_an_earlier_normal_examination_does_not_dilute_a_later_one():
    rows = items()
    for row in rows:
        row["study_id"] = "first" if row["view"] == "CC" else "second"
    table = evaluate(rows, budgets=())[0].table
    pooled = pool_patients(table.dropna(axis="columns", how="all"), "mean", "max").set_index("patient_id")["logit"]
    assert pooled.to_dict() == pytest.approx(table.groupby("patient_id")["logit"].max().to_dict())


def _rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    rows = items()[:31]  # an odd count, so that the sampler pads
    padded = [*rows, rows[0]]
    metric, values = evaluate(padded[rank::2])
    metric.table.to_csv(f"{folder}/{rank}.csv", index=False, float_format="%.9g")
    Path(folder, f"{rank}.json").write_text(json.dumps(values))
    dist.destroy_process_group()


def test_two_ranks_see_the_table_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_rank, args=(port, str(tmp_path)), nprocs=2)
    metric, values = evaluate(items()[:31])
    for rank in range(2):
        table = pd.read_csv(tmp_path / f"{rank}.csv", keep_default_na=False, na_values={"label": [""]})
        for column in ("image_id", "attack_id", "patient_label"):
            assert table[column].tolist() == metric.table[column].tolist()
        assert np.allclose(table["logit"], metric.table["logit"], rtol=1e-5, atol=1e-6)
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(values)


def test_one_class_gives_no_number_and_never_one_half():
    assert math.isnan(evaluate(items(positive=0))[1]["patient_auc"])


def test_the_same_attack_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        PatientAUC(WithDropout(), attacks=[PGD(budget=0.1), PGD(budget=0.1)])
