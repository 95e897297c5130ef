"""Synthetic run directories: binormal scores under several budgets, with every optional file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.statistics import certified_cohort

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


STRONG = (
    ("noise", "random noise", "noise-10@0.001", "linf", 0.001, 0.02),
    ("single_step", "one step (FGSM)", "fgsm-1@0.001", "linf", 0.001, 0.6),
    ("more_steps", "PGD, 70 steps", "best-pgd-70@0.001", "linf", 0.001, 1.1),
    ("restarts", "PGD, 7 steps from 5 starts", "best-pgd-7x5@0.001", "linf", 0.001, 1.1),
    ("iterated", "APGD, 100 steps", "apgd-100@0.001", "linf", 0.001, 1.12),
    ("square", "Square, 200 queries", "square-200@0.001", "linf", 0.001, 0.3),
    ("l2", "PGD in L2, length 0.1", "best-pgd-l2-7@0.1", "l2", 0.1, 1.3),
    ("exam", "one view of the exam only", "1-views-pgd-7@0.001", "linf", 0.001, 0.4),
    ("universal", "universal, 20 steps", "universal-20@0.001", "linf", 0.001, 0.2),
    ("budget", "PGD, 7 steps", "pgd-7@0.1", "linf", 0.1, 9.0),
    ("transfer", "made on another network", "transfer-best-pgd-70@0.001", "linf", 0.001, 0.2),
)
"""Role, name, attack_id, norm, budget, and how far the margin moves."""


def write_strong(rng: np.random.Generator, directory: Path, scores: pd.DataFrame) -> pd.DataFrame:
    """Files of the strong test of 16 test patients; returns the scores with its rows."""
    clean = scores[(scores["partition"] == "test") & (scores["attack_id"] == "clean")]
    labels = clean.groupby("patient_id")["patient_label"].first()
    chosen = sorted([*labels[labels == 1].index[:8], *labels[labels == 0].index[:8]])
    clean = clean[clean["patient_id"].isin(chosen)]
    parts, attacks = [scores], []
    for role, name, attack_id, norm, budget, push in STRONG:
        moved = clean["logit"] + push * (1 - 2 * clean["patient_label"]) * rng.uniform(0.95, 1.05, len(clean))
        parts.append(clean.assign(attack_id=attack_id, norm=norm, budget=budget, steps=7, restarts=1, logit=moved))
        attacks.append(
            {"role": role, "name": name, "attack_id": attack_id, "norm": norm, "budget": budget, "steps": 7,
             "restarts": 1, "forward_passes": 64, "backward_passes": 56, "seconds": 1.5}
        )  # fmt: skip
    strong = {
        "budget": 0.001,
        "reported": "pgd-0.001",
        "scored_before": ["pgd-0.0001", "pgd-0.001", "pgd-0.01"],
        "steps": 7,
        "random_forward": False,
        "patients": chosen,
        "images": len(clean),
        "attacks": attacks,
        "facts": {
            "zero_gradient_share": 0.0, "zero_gradient_images": len(clean), "zero_pixel_share": 0.2,
            "repeat_difference": 0.0, "repeat_images": len(clean), "budget_excess": -1e-6, "bounds_excess": 0.0,
            "stored_images": 10 * len(clean),
        },
        "surrogate": "the same kind of network, trained from another seed",
        "distance_steps": 100,
        "distances": [
            {"image_id": name, "patient_id": name.split("/")[0], "patient_label": 0, "distance": value}
            for name, value in zip(clean["image_id"], [None, *rng.uniform(1e-4, 1e-2, len(clean) - 1)], strict=True)
        ],
    }  # fmt: skip
    (directory / "artefacts" / "strong.json").write_text(json.dumps(strong), encoding="utf-8")
    noisy = rng.normal(size=(len(chosen), 200)) + 3 * labels[chosen].to_numpy()[:, None]
    found = certified_cohort(labels[chosen], noisy, sigma=0.02, radii=[0.0, 0.01], alpha=0.01, threshold=1.0)
    certified = {
        "patients": len(chosen), "malignant": 8, "images": len(clean), "sigma": 0.02, "draws": 200, "alpha": 0.01,
        "threshold": 1.0, "radii": [entry.to_dict() for entry in found], "seconds": 12.5,
    }  # fmt: skip
    (directory / "artefacts" / "certified.json").write_text(json.dumps(certified), encoding="utf-8")
    return pd.concat(parts, ignore_index=True)


def write_dicom_attack(directory: Path, patients: list[str]) -> None:
    """The DICOM attack on two patients, and on one whose files could not be used."""
    stored = {
        "budget": 1e-4, "full_scale_levels": [0.4095], "mean_levels": [0.2], "logit_before": 1.2, "logit_prepared": 0.9,
        "logit_unrounded": 0.95, "logit_rounded": 1.2, "logit_dithered": 1.0, "share_unrounded": 0.83,
        "share_rounded": 0.0, "share_dithered": 0.67, "reason": "",
    }  # fmt: skip
    attacked = {"budget": 3, "logit_before": 1.2, "logit_after": -0.3, "images": [{"image_id": "a"}]}
    flip = {"levels": 3, "reason": "", "limit": 256, "tried": [[1, 0.8], [2, 0.2], [4, -0.9], [3, -0.3]]}
    never = {"levels": None, "reason": "256 grey levels did not do it", "limit": 256, "tried": [[256, 0.1]]}
    about = {"reason": "", "refusals": [], "seconds": 2.5}
    records = [
        about | {"patient_id": patients[0], "label": 1, "logit": 1.2, "stored_budget": stored, "levels_to_flip": flip,
                 "attacked": attacked},
        about | {"patient_id": patients[1], "label": 1, "logit": 4.0, "stored_budget": stored, "levels_to_flip": never,
                 "attacked": None},
        about | {"patient_id": patients[2], "label": 0, "reason": "none of the patient's files can be attacked",
                 "refusals": [{"image_id": "b", "code": "unreadable", "reason": "the file is cut off"}]},
    ]  # fmt: skip
    summary = {
        "patients": 3, "attacked": 2, "wrong_before": 0, "flipped": 1, "not_flipped": 1, "median_levels_to_flip": None,
        "patients_with_share": 2, "median_share_unrounded": 0.83, "median_share_rounded": 0.0,
        "median_share_dithered": 0.67, "refused_files": 1,
    }  # fmt: skip
    content = {"threshold": 0.5, "budget": 1e-4, "limit": 256, "steps": 10, "summary": summary, "patients": records}
    (directory / "artefacts" / "dicom_attack.json").write_text(json.dumps(content), encoding="utf-8")


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
    write_strong(rng, directory, scores).to_csv(directory / "scores.csv", index=False)
    write_dicom_attack(directory, sorted(scores.loc[scores["partition"] == "test", "patient_id"].unique())[:3])
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
