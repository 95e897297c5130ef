"""The strong test end to end: a sound network passes the gates, and networks that mask their gradients fail them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from pipeline.evaluation import strong
from pipeline.evaluation.effort import Effort, effort
from pipeline.evaluation.probes import Probes
from pipeline.evaluation.scores_file import COLUMNS
from pipeline.evaluation.strong import Batch, StrongTest, chosen_items, whole_exams
from pipeline.evaluation.surrogate import Surrogate
from pipeline.report.measured import Strong
from pipeline.report.measured import measured as measured_file
from pipeline.report.run_files import RunFiles
from pipeline.report.sections.scores import Settings
from pipeline.report.sections.strong import gates_section

SIZE, PATIENTS = 8, 30
SMALL = Effort(PATIENTS, 3, 20, 5, 40, 2, 4, 4, 5, 1, 0)
TINY = Effort(6, 2, 3, 2, 5, 1, 2, 2, 2, 1, 0)
BUDGET = 0.01


def pictures() -> dict[str, Tensor]:
    """Four images of each patient; malignant ones are brighter in one corner."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for patient in range(PATIENTS):
        for view in range(4):
            image = 0.3 + 0.4 * torch.rand(1, SIZE, SIZE, generator=generator)
            image[:, :4, :4] += 0.05 * (patient % 2)
            found[f"p{patient}/{view}"] = image.clamp(0, 1)
    return found


PICTURES = pictures()


class Cohort:
    """Test patients, every other one malignant."""

    def items(self, partition: str, purpose: str = "training") -> list[dict[str, Any]]:
        return [
            {"image": name, "image_id": name, "patient_id": name.split("/")[0], "study_id": "", "partition": "test",
             "laterality": "LR"[int(name[-1]) // 2], "view": ("CC", "MLO")[int(name[-1]) % 2], "fold": 0,
             "patient_label": int(name.split("/")[0][1:]) % 2, "breast_label": float("nan"),
             "label": np.float32([int(name.split("/")[0][1:]) % 2])}
            for name in PICTURES
        ]  # fmt: skip


class Corner(nn.Module):
    """A smooth network that looks at the corner: 40 times its mean, through a convolution and a softplus."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blur = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * SIZE * SIZE, 1)
        with torch.no_grad():
            self.blur.weight.abs_()
            weight = 0.02 * torch.randn(4, SIZE, SIZE)
            weight[:, :4, :4] += 0.3
            self.head.weight.copy_(weight.reshape(1, -1))
            self.head.bias.zero_()
            self.head.bias.copy_(-self(torch.full((1, 1, SIZE, SIZE), 0.5))[0])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(nn.functional.softplus(self.blur(images)).flatten(1))


class Saturated(nn.Module):
    """Says the same through a sigmoid so steep that its gradient is exactly 0 away from the threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corner()

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(1e4 * self.inner(images)) + 1e-3 * torch.tanh(self.inner(images)).detach()


class Quantised(nn.Module):
    """Rounds its input to ten grey levels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corner()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner((images * 200).round() / 200)


class Shattered(nn.Module):
    """Adds ripples of a wavelength far below the budget, whose slopes drown those of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corner()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images + 1e-3 * torch.sin(2e5 * images))


def measured(
    network: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch, *, effort: Effort = SMALL, batch_size: int = 200
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Run the strong test; its file and the metric's table."""
    monkeypatch.setattr(strong, "load_prepared", PICTURES.__getitem__)
    other = Surrogate(Corner(seed=1), "another network")
    monkeypatch.setattr(strong, "train_surrogate", lambda *_, **__: other)
    items = Cohort().items("test")
    with torch.no_grad():
        logits = network(torch.stack([PICTURES[item["image"]] for item in items]))[:, 0].tolist()
    rows = [
        item | {"attack_id": "clean", "norm": "", "budget": 0.0, "steps": 0, "restarts": 0, "logit": logit}
        for item, logit in zip(items, logits, strict=True)
    ]
    metric = SimpleNamespace(table=pd.DataFrame(rows, columns=list(COLUMNS)))
    test = StrongTest(network, metric=metric, cohort=Cohort(), run_directory=SimpleNamespace(path=folder),
                      effort=effort, budget=BUDGET, batch_size=batch_size,)  # fmt: skip
    # The reported attack, as the metric would have scored it.
    from pipeline.attacks import PGD, as_logit

    reported = PGD(budget=BUDGET, steps=7)
    images = torch.stack([PICTURES[item["image"]] for item in items])
    labels = torch.tensor([float(item["patient_label"]) for item in items])
    with torch.no_grad():
        after = as_logit(network(reported(network, images, labels, seed=0))).tolist()
    about = {name: getattr(reported, name) for name in ("attack_id", "norm", "budget", "steps", "restarts")}
    extra = [item | about | {"logit": logit} for item, logit in zip(items, after, strict=True)]
    metric.table = pd.concat([metric.table, pd.DataFrame(extra, columns=list(COLUMNS))], ignore_index=True)
    test(SimpleNamespace(state=SimpleNamespace(rank=0)))
    return json.loads((folder / "artefacts" / "strong.json").read_text()), metric.table


def verdicts(content: dict[str, Any], table: pd.DataFrame, folder: Path) -> dict[str, str]:
    strong = measured_file(content, Strong, path="strong.json")
    files = RunFiles(folder, table, None, None, None, None, None, strong, None, None, None, None)
    return {gate["name"]: gate["verdict"] for gate in gates_section(files, Settings())["gates"]}


def test_a_sound_network_fails_no_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Corner()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    content, table = measured(network, tmp_path, monkeypatch)
    found = verdicts(content, table, tmp_path)
    assert "fail" not in found.values(), found
    for name in ("auc_falls_with_budget", "auc_reaches_zero", "iterated_vs_single_step", "white_box_vs_transfer",
                 "zero_gradients", "repeated_forwards", "within_budget", "within_bounds"):  # fmt: skip
        assert found[name] == "pass", name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert content["images"] == 4 * PATIENTS and len(content["distances"]) == 4 * PATIENTS
    assert set(table["attack_id"]) >= {entry["attack_id"] for entry in content["attacks"]}
    counts = table.groupby("attack_id").size()
    assert (counts == 4 * PATIENTS).all(), "every attack scores every image once"


@pytest.mark.parametrize(
    ("network", "expected"),
    [(Saturated, "zero_gradients"), (Quantised, "zero_gradients"), (Shattered, "square_vs_white_box")],
)
def test_a_masked_network_fails_a_gate(
    network: type[nn.Module], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = verdicts(*measured(network(), tmp_path, monkeypatch), tmp_path)
    assert found[expected] == "fail", found
    assert sum(verdict == "fail" for verdict in found.values()) >= 1


def test_the_same_seed_gives_the_same_scores_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured(Corner(), tmp_path / "a", monkeypatch, effort=TINY, batch_size=24)[1]
    again = measured(Corner(), tmp_path / "b", monkeypatch, effort=TINY, batch_size=24)[1]
    pd.testing.assert_frame_equal(first, again)
    parts = measured(Corner(), tmp_path / "c", monkeypatch, effort=TINY, batch_size=4)[1]
    pd.testing.assert_frame_equal(first, parts, atol=1e-3)


def test_patients_are_chosen_without_regard_to_results_and_half_of_them_malignant() -> None:
    items = Cohort().items("test")
    for count in (1, 6, 7, PATIENTS, 100):
        chosen = chosen_items(items, count, seed=0)
        labels = {item["patient_id"]: item["patient_label"] for item in chosen}
        assert len(labels) == min(count, PATIENTS) and len(chosen) == 4 * len(labels)
        assert abs(2 * sum(labels.values()) - len(labels)) <= 1
    assert chosen_items(items, 6, seed=0) == chosen_items(items, 6, seed=0) != chosen_items(items, 6, seed=1)
    rare = [item for item in items if item["patient_label"] == 0 or item["patient_id"] == "p1"]
    assert len({item["patient_id"] for item in chosen_items(rare, 6, seed=0)}) == 6


def test_batches_hold_whole_exams_and_number_their_breasts() -> None:
    items = Cohort().items("test")
    parts = list(whole_exams(items, 10))
    assert sum(parts, []) == items and all(len(part) == 8 for part in parts)
    assert [len(part) for part in whole_exams(items, 1)] == [4] * PATIENTS
    batch = Batch(parts[0], torch.zeros(8, 1, 2, 2), torch.zeros(8))
    assert batch.exams().tolist() == [0] * 4 + [1] * 4
    assert [batch.breasts()[i] == batch.breasts()[i + 1] for i in (0, 2, 4, 6)] == [True] * 4
    assert batch.breasts()[0] != batch.breasts()[2]


def test_an_unknown_effort_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="none, demo, quick, full"):
        effort("thorough")


def test_an_effort_may_be_made_of_sizes() -> None:
    assert effort({"name": "demo", "patients": 3}).patients == 3
    assert effort({"name": "demo", "patients": 3}).starts == effort("demo").starts
    for wrong in ({"patience": 3}, {"patients": -1}, {"patients": 2.5}, "little"):
        with pytest.raises(ValueError, match="allowed are"):
            effort(wrong)


class Views:
    """Facts of an attack that the probes look at."""

    def __init__(self, norm: str, budget: float, views: int | None = None) -> None:
        self.norm, self.budget = norm, budget
        if views is not None:
            self.views = views


def test_the_budget_of_an_exam_is_measured_over_its_views() -> None:
    images = torch.full((4, 1, 8, 8), 0.5)
    change = torch.zeros_like(images)
    change[..., 0, 0] = 0.1  # a length of 0.1 in each view, 0.2 over the exam
    exams = torch.tensor([0, 0, 0, 0])
    for budget, breaks in ((0.2001, False), (0.1995, True), (0.1, True)):
        probes = Probes(nn.Identity())
        probes.see_attacked(images, images + change, Views("l2", budget), exams=exams)
        assert (probes.facts()["budget_excess"] > 1e-4 * breaks) == breaks, budget
    for views, breaks in ((4, False), (3, True), (1, True)):
        probes = Probes(nn.Identity())
        probes.see_attacked(images, images + change, Views("linf", 0.1, views), exams=exams)
        assert (probes.facts()["budget_excess"] > 0.01) == breaks, views


class Noisy(nn.Module):
    """Adds noise to its images in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corner()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images + 0.01 * torch.randn_like(images))


def test_a_random_forward_is_attacked_in_expectation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, _ = measured(Noisy(), tmp_path, monkeypatch, effort=TINY)
    assert content["random_forward"] and any(entry["attack_id"].startswith("eot10-") for entry in content["attacks"])
    content, _ = measured(Corner(), tmp_path, monkeypatch, effort=TINY)
    assert not content["random_forward"]
    assert not any(entry["attack_id"].startswith("eot") for entry in content["attacks"])
