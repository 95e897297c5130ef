"""Synthetic run directories: binormal scores under several budgets, with every optional file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

BUDGETS = (1e-4, 1e-3, 1e-2)
VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))


def patients_of(rng: np.random.Generator, patients: int) -> pd.DataFrame:
    """Patients of all three partitions with labels and a latent score."""
    partition = rng.permutation(np.arange(patients) % 10)
    names = np.select([partition < 6, partition < 8], ["training", "validation"], "test")
    label = (np.arange(patients) % 3 == 0).astype(int)
    return pd.DataFrame(
        {
            "patient_id": [f"p-{number:04d}" for number in range(patients)],
            "partition": names,
            "patient_label": label,
            "latent": rng.normal(size=patients) + 1.6 * label,
        }
    )


def images_of(rng: np.random.Generator, people: pd.DataFrame) -> pd.DataFrame:
    """Four images per patient with side, view, density, vendor and age."""
    people = people.assign(
        density=rng.choice(["A", "B", "C", "D"], size=len(people)),
        vendor=rng.choice(["Maker One", "Maker Two"], size=len(people)),
        age=rng.integers(40, 80, size=len(people)),
    )
    table = people.merge(pd.DataFrame(VIEWS, columns=["laterality", "view"]), how="cross")
    table["image_id"] = table["patient_id"] + "/" + table["laterality"] + "_" + table["view"] + ".dcm"
    table["label"] = table["patient_label"].where(table["laterality"] == "L")
    return table.assign(fold=0)


def scores_of(rng: np.random.Generator, images: pd.DataFrame) -> pd.DataFrame:
    """Validation and test images scored clean and under PGD, whose effect grows with the budget."""
    scored = images[images["partition"] != "training"].copy()
    scored["logit"] = scored["latent"] - 1.0 + 0.4 * rng.normal(size=len(scored))
    clean = scored.assign(attack_id="clean", norm=None, budget=0.0, steps=None, restarts=None)
    parts = [clean]
    for budget in BUDGETS:
        push = 0.9 * (np.log10(budget) + 4.2) * (1 - 2 * scored["patient_label"])
        parts.append(
            scored.assign(
                attack_id=f"pgd-{budget:g}",
                norm="linf",
                budget=budget,
                steps=7,
                restarts=1,
                logit=scored["logit"] + push,
            )
        )
    columns = ["image_id", "patient_id", "laterality", "view", "partition", "fold", "label", "patient_label"]
    return pd.concat(parts)[[*columns, "attack_id", "norm", "budget", "steps", "restarts", "logit"]]


def write_gallery(rng: np.random.Generator, directory: Path, scores: pd.DataFrame) -> None:
    """Pictures of a half-ellipse breast with saliency for one missed and one falsely called patient."""
    folder = directory / "artefacts" / "gallery"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[0:500, 0:400]
    images: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    test = scores[(scores["partition"] == "test") & (scores["view"] == "MLO") & (scores["laterality"] == "R")]
    for rule, label in (("missed", 1), ("alarmed", 0)):
        patient = test.loc[test["patient_label"] == label, "patient_id"].iloc[0]
        mine = test[(test["patient_id"] == patient) & test["attack_id"].isin(["clean", "pgd-0.001"])]
        breast = ((rows - 250) / 220.0) ** 2 + ((columns - 400) / 300.0) ** 2 < 1
        grey = np.where(breast, 90 + 60 * rng.random((500, 400)), 0)
        scenes: list[dict[str, Any]] = []
        for number, row in enumerate(mine.to_dict("records")):
            spot = np.exp(-(((rows - 200 - 90 * number) / 40.0) ** 2) - ((columns - 300 + 60 * number) / 40.0) ** 2)
            stem = f"{patient}-{row['attack_id']}"
            Image.fromarray(grey.astype(np.uint8)).save(folder / f"{stem}.png")
            Image.fromarray((255 * spot * breast).astype(np.uint8)).save(folder / f"{stem}-saliency.png")
            scenes.append(
                {
                    **{key: row[key] for key in ("attack_id", "budget", "logit")},
                    "picture": f"artefacts/gallery/{stem}.png",
                    "saliency": f"artefacts/gallery/{stem}-saliency.png",
                }
            )
        change = np.where(breast[..., None], rng.integers(0, 256, (500, 400, 3)), 247).astype(np.uint8)
        Image.fromarray(change).save(folder / f"{patient}-change.png")
        first = mine.iloc[0]
        images.append(
            {
                "rule": rule,
                **{key: first[key] for key in ("patient_id", "laterality", "view")},
                "patient_label": int(first["patient_label"]),
                "image": first["image_id"],
                "change": f"artefacts/gallery/{patient}-change.png",
                "change_limit": 0.001,
                "scenes": scenes,
            }
        )
        rules.append({"rule": rule, "patients": [patient], "reason": None})
    rules.append({"rule": "flipped", "patients": [], "reason": "pgd-0.001 turns over no call of a patient"})
    content = {"attack_id": "pgd-0.001", "budget": 0.001, "rules": rules, "images": images}
    (directory / "artefacts" / "gallery.json").write_text(json.dumps(content), encoding="utf-8")


def write_run(directory: Path, *, patients: int = 120, seed: int = 0) -> Path:
    """Write a whole synthetic run directory."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    images = images_of(rng, patients_of(rng, patients))
    scores = scores_of(rng, images)
    scores.to_csv(directory / "scores.csv", index=False)
    images.drop(columns="latent").to_csv(directory / "cohort.csv", index=False)
    rejects = [
        ("p-9001/L_CC.dcm", "p-9001", "unreadable", "the file ends within the pixel data"),
        ("p-9001/R_CC.dcm", "p-9001", "no_breast", "no region over 5% of the image"),
        ("p-9002/L_CC.dcm", "p-9002", "no_breast", "no region over 5% of the image"),
    ]
    pd.DataFrame(rejects, columns=["image", "patient_id", "code", "reason"]).to_csv(
        directory / "rejects.csv", index=False
    )
    flow = [
        {"stage": "files in the manifest", "files": 4 * patients + 3, "patients": patients + 2, "note": ""},
        {"stage": "refused while preparing", "files": 3, "patients": 2, "note": "see the table below"},
        {"stage": "studied", "files": 4 * patients, "patients": patients, "note": ""},
    ]
    (directory / "flow.json").write_text(json.dumps(flow), encoding="utf-8")
    epoch = np.arange(1, 13)
    history = {
        "epoch": epoch,
        "classification_loss": 0.7 * np.exp(-epoch / 9) + 0.01 * rng.random(12),
        "robust_loss": -0.6 - 0.02 * epoch,
        "share_positive": 0.45 - 0.01 * epoch,
        "share_negative": 0.55 + 0.01 * epoch,
        "share_saturated": 0.002 * epoch,
        "share_dead": 0.55 + 0.01 * epoch,
        "attack_success": 0.3 + 0.01 * epoch,
        "clean_auc": np.where(epoch % 2 == 0, 0.6 + 0.02 * epoch, np.nan),
        "attacked_auc": np.where(epoch % 2 == 0, 0.5 + 0.02 * epoch, np.nan),
        "seconds_attack": 4.0 + rng.random(12),
        "seconds_step": 1.0 + rng.random(12),
        "seconds_loading": 0.1 * rng.random(12),
    }
    pd.DataFrame(history).to_csv(directory / "history.csv", index=False)
    config = {
        "manifest": None,
        "standard_ratio": 0.5,
        "arfl_weight": 10.0,
        "method": {"_target_": "pipeline.methods.AdversarialTraining", "standard_ratio": 0.5},
        "test_budgets": list(BUDGETS),
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    provenance = {
        "command": "python -m monai.bundle run --config_file bundles/arfl/train.json",
        "started": "2026-01-01T10:00:00Z",
        "finished": "2026-01-01T10:04:12Z",
        "duration_s": 252.3,
        "device": "cpu",
        "seeds": {"seed": 0, "fold": 0},
        "versions": {"python": "3.11.2", "torch": "2.14.1", "monai": "1.6.1"},
        "digests": {"manifest": "9f2c" * 16, "chain": "07ab" * 16},
    }
    (directory / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    write_gallery(rng, directory, scores)
    return directory


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Factory of synthetic run directories."""
    return lambda name="synthetic", **settings: write_run(tmp_path / name, **settings)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One synthetic run directory with its report written; do not change it."""
    from pipeline.report import write_report

    directory = write_run(tmp_path_factory.mktemp("runs") / "synthetic")
    write_report(directory)
    return directory
