"""Every attack on one trained run: mean margin, AUC over images, passes and seconds; who is worth its passes.

python -m benchmarks.attack_crosscheck RUN [--patients 24] [--budget 1e-3] [--l2-budget 0.1] [--surrogate RUN2]
    [--only pgd-7 apgd ...]

The images are those of the run's test patients, in the order of their ids, each attacked towards its patient's label.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import Dataset
from torch import Tensor, nn

from pipeline.attacks import (
    APGD,
    FGSM,
    FMN,
    PGD,
    SPSA,
    BestPGD,
    Count,
    ExamLayout,
    ExamPGD,
    ExamPooling,
    FewViews,
    Noise,
    Square,
    Transfer,
    Universal,
    as_logit,
    margin,
)
from pipeline.imaging import LoadPreparedd
from pipeline.statistics import auc


def opened(run: Path) -> tuple[ConfigParser, nn.Module]:
    """Configuration and network of a run, with its best weights."""
    parser = ConfigParser()
    parser.read_config(str(run / "config.json"))
    network = parser.get_parsed_content("network")
    checkpoint = torch.load(run / "checkpoints" / "best.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(checkpoint["network"])
    return parser, network.eval()


def test_images(parser: ConfigParser, patients: int) -> dict[str, Any]:
    """Images, labels, exams and breasts of the first test patients of each class."""
    rows = parser.get_parsed_content("cohort").items("test", "scoring")
    chosen: list[str] = []
    for label in (0, 1):
        names = sorted({row["patient_id"] for row in rows if int(row["patient_label"]) == label})
        chosen += names[: patients // 2]
    rows = sorted((row for row in rows if row["patient_id"] in chosen), key=lambda row: str(row["image_id"]))
    items = list(Dataset(rows, LoadPreparedd(keys="image")))
    return {
        "images": torch.stack([torch.as_tensor(item["image"]).float() for item in items]).as_subclass(Tensor),
        "labels": torch.tensor([float(item["patient_label"]) for item in items]),
        "exams": torch.tensor([chosen.index(item["patient_id"]) for item in items]),
        "breasts": torch.tensor([int(item["laterality"] == "R") for item in items]),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--budget", type=float, default=1e-3)
    parser.add_argument("--l2-budget", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--surrogate", type=Path)
    parser.add_argument("--only", nargs="*", help="beginnings of the names of the attacks to run; all without it")
    given = parser.parse_args()

    def wanted(attack_id: str) -> bool:
        return given.only is None or attack_id.startswith(tuple(given.only))

    configuration, network = opened(given.run)
    cohort = test_images(configuration, given.patients)
    images, labels = cohort["images"], cohort["labels"]
    layout = ExamLayout.of(cohort["exams"], cohort["breasts"])
    pool = ExamPooling()
    exam_labels = torch.zeros(layout.exam_count).scatter_(0, layout.exams, labels)

    def logits_of(candidates: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([as_logit(network(part)) for part in candidates.split(given.batch)])

    def line(name: str, candidates: Tensor, seconds: float, forward: float = 0, backward: float = 0) -> None:
        logits = logits_of(candidates)
        pooled = pool(logits, layout)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        areas = auc(labels.numpy(), logits.numpy()), auc(exam_labels.numpy(), pooled.numpy())
        print(
            f"{name:28s} images: margin {margin(logits, labels).mean():8.4f}, AUC {areas[0]:.4f}; "
            f"patients: {margin(pooled, exam_labels).mean():8.4f}, {areas[1]:.4f}; "
            f"passes {forward:.4g} + {backward:.4g}, {seconds / len(candidates):.3f} s/image, peak {peak:.2f} GiB",
            flush=True,
        )

    print(f"{layout.exam_count} patients, {len(images)} images of {tuple(images.shape[1:])}")
    line("clean", images, 0)
    linf = {"budget": given.budget}
    l2: dict[str, Any] = {"budget": given.l2_budget, "norm": "l2"}
    attacks: list[Any] = [
        Noise(**linf, draws=10), FGSM(**linf), PGD(**linf), BestPGD(**linf, steps=7), APGD(**linf, steps=7),
        BestPGD(**linf, steps=70), APGD(**linf, steps=70), BestPGD(**linf, steps=14, restarts=5),
        Square(**linf, queries=200), SPSA(**linf), Noise(**l2), BestPGD(**l2, steps=20), APGD(**l2, steps=20),
    ]  # fmt: skip
    if given.surrogate is not None:
        attacks.append(Transfer(BestPGD(**linf, steps=20), surrogate=opened(given.surrogate)[1]))
    seeds = list(range(len(images)))
    counted = Count(network)
    for attack in filter(lambda one: wanted(one.attack_id), attacks):
        counted.reset()
        start = time.perf_counter()
        parts = [
            attack(counted, images[rows], labels[rows], seed=seeds[rows])
            for rows in (slice(first, first + given.batch) for first in range(0, len(images), given.batch))
        ]
        seconds = time.perf_counter() - start
        passes = counted.forward_images / len(images), counted.backward_images / len(images)
        line(attack.attack_id, torch.cat(parts), seconds, *passes)
    exams = {name: cohort[name] for name in ("exams", "breasts")}
    wholes: list[Any] = [
        ExamPGD(**l2, steps=20, memory_gib=2), *(FewViews(PGD(**linf, memory_gib=2), views=k) for k in (1, 2)),
    ]  # fmt: skip
    for attack in filter(lambda one: wanted(one.attack_id), wholes):
        counted.reset()
        start = time.perf_counter()
        found = attack(counted, images, labels, seed=seeds, **exams)
        passes = counted.forward_images / len(images), counted.backward_images / len(images)
        line(attack.attack_id, found, time.perf_counter() - start, *passes)
    if wanted("universal"):
        start = time.perf_counter()
        batches = list(zip(images.split(given.batch), labels.split(given.batch), strict=True))
        fitted = Universal(**linf, steps=10).fit(network, batches)
        line(fitted.attack_id, fitted(network, images, labels), time.perf_counter() - start, *fitted.passes)
    for norm in ("linf", "l2") if wanted("fmn") else ():
        start = time.perf_counter()
        found = [FMN(steps=20, norm=norm)(network, part).distances for part in images.split(given.batch)]
        distances = torch.cat(found)
        print(
            f"fmn-{norm}-20: median distance {distances.median():.3g}, quartiles "
            f"{distances.quantile(0.25):.3g} to {distances.quantile(0.75):.3g}, "
            f"{int(distances.isinf().sum())} out of reach, {(time.perf_counter() - start) / len(images):.3f} s/image"
        )


if __name__ == "__main__":
    main()
