"""Memory of the strong test: every attack of it on few and on many images, each count in a process of its own.

python -m benchmarks.attack_matrix [--images 100,400] [--size 96] [--width 0.25]

The images are noise and the network is untrained: neither changes what is allocated. Steps and queries are few, since
none of them keeps anything for the next. Peak resident memory is that of the whole process (`ru_maxrss`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch

from pipeline.evaluation.effort import Effort
from pipeline.evaluation.scores_file import COLUMNS
from pipeline.evaluation.strong import StrongTest
from pipeline.imaging.store import ImageStore
from pipeline.networks import vgg16

VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))


class Cohort:
    """Exams of four views, every other patient malignant, written to a store."""

    def __init__(self, root: Path, images: int, size: int) -> None:
        store, generator = ImageStore(root), torch.Generator().manual_seed(0)
        self.rows: list[dict[str, Any]] = []
        for number in range(images):
            patient, (laterality, view) = number // len(VIEWS), VIEWS[number % len(VIEWS)]
            key = store.key(__file__, str(number))
            label = patient % 2
            self.rows.append(
                {"image": store.put(key, torch.rand(1, size, size, generator=generator), {}), "image_id": key,
                 "patient_id": f"p{patient}", "study_id": "", "laterality": laterality, "view": view, "fold": 0,
                 "partition": "test", "patient_label": label, "breast_label": float("nan")}
            )  # fmt: skip

    def items(self, partition: str, purpose: str = "training") -> list[dict[str, Any]]:
        return self.rows


def measure(images: int, size: int, width: float) -> dict[str, Any]:
    """Run the strong test in this process; its attacks, seconds and peak memory."""
    effort = Effort(images, 2, 10, 5, 20, 2, 4, 2, 5, 1, 0)
    network = vgg16(weights="none", trainable="all", width=width, head="compact", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        cohort = Cohort(Path(folder) / "store", images, size)
        metric: Any = SimpleNamespace(table=pd.DataFrame(columns=list(COLUMNS)))
        place = SimpleNamespace(path=Path(folder))
        test = StrongTest(
            network, metric=metric, cohort=cohort, run_directory=place, effort=effort, steps=1, surrogate=None
        )
        started = time.perf_counter()
        test(SimpleNamespace(state=SimpleNamespace(rank=0)))  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        attacks = len(json.loads((Path(folder) / StrongTest.file).read_text())["attacks"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": images, "attacks": attacks, "rows": len(metric.table), "seconds": seconds, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="100,400", help="counts, by comma")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--width", type=float, default=0.25, help="of the VGG16")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for count in map(int, arguments.images.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(measure, (count, arguments.size, arguments.width)))
        row = found[-1]
        print(
            f"{row['images']} images x {row['attacks']} attacks: {row['rows']} scores, {row['seconds']:.0f} s, "
            f"peak {row['peak']:.0f} MiB, {row['peak'] / found[0]['peak']:.3f} of the first"
        )


if __name__ == "__main__":
    main()
