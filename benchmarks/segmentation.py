"""How well the breast and the pectoral muscle are found: Dice on phantoms, plausibility on DDSM, time of one image.

    python benchmarks/segmentation.py --ddsm ../shared/data/ddsm-small --sheet doubtful.png

The truth of a phantom is what its scene drew, without the frame that the detector does not cover. Where no muscle is
removed, for want of confidence, its Dice counts as 0 in "all". DDSM needs a folder with `labels.csv` (image,
laterality, scanner_group) and the images; films of group A were digitised from the other face. `--sheet` draws the
images with the most doubt, ranks of grey levels instead of grey levels, so that faint skin shows; the breast's outline
is red, the muscle's green. All on one thread; times are the processor's, so that a busy machine does not count.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw
from scipy import ndimage, stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.imaging import Refusal, segment_breast
from pipeline.imaging.pectoral import SURE, pectoral_grid, pectoral_muscle
from pipeline.imaging.plausibility import MaskCheck, check_mask
from pipeline.imaging.segmentation import breast_grid, to_grid
from pipeline.imaging.writing import Padding
from pipeline.phantom.cohort import patient_scenes
from pipeline.phantom.lesions import Difficulty
from pipeline.phantom.patient import draw_patient

ROWS, COLUMNS = 3000, 2400  # of the image that is timed


def main(
    patients: Annotated[int, typer.Option(help="phantoms, four views each; 0 leaves them out")] = 40,
    height: Annotated[int, typer.Option(help="rows of a phantom's image")] = 1000,
    seed: int = 11,
    ddsm: Annotated[Path | None, typer.Option(help="folder with labels.csv and images")] = None,
    every: Annotated[int, typer.Option(help="take every n-th image of the folder")] = 1,
    sheet: Annotated[Path | None, typer.Option(help="PNG file: the most doubtful images of the folder")] = None,
    shown: Annotated[int, typer.Option(help="images on the sheet")] = 60,
    repeats: int = 15,
) -> None:
    torch.set_num_threads(1)
    _print_times(repeats)
    if patients:
        _print_dice(patients, height, seed)
    if ddsm is not None:
        _print_plausibility(ddsm, every, sheet, shown)


def _print_times(repeats: int) -> None:
    scene = _scenes(0, 1000, seed=0)[2]  # R MLO
    picture = torch.nn.functional.interpolate(
        torch.from_numpy(scene[2])[None, None], size=(ROWS, COLUMNS), mode="bilinear"
    )[0, 0]
    breast, grid = segment_breast(picture), breast_grid(picture)
    small = to_grid(picture)
    steps = {
        "breast, mask at the working resolution": lambda: breast_grid(picture),
        "breast, mask at full resolution": lambda: segment_breast(picture),
        "muscle, at the working resolution": lambda: pectoral_grid(small, grid, chest_wall="right", view="MLO"),
        "muscle, mask at full resolution": lambda: pectoral_muscle(
            picture, breast=breast, chest_wall="right", view="MLO"
        ),
    }
    for name, step in steps.items():
        took = []
        for _ in range(repeats):
            started = time.process_time()
            step()
            took.append(1e3 * (time.process_time() - started))
        print(f"{ROWS} x {COLUMNS}, {name}: median {np.median(took):.0f} ms of one core, slowest {max(took):.0f} ms")


def _scenes(number: int, height: int, seed: int) -> list[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """(laterality, view, pixels, breast, muscle) of one phantom patient, as the files show them."""
    patient = draw_patient(seed, number, difficulty=Difficulty.MEDIUM)
    found = []
    for side, view, scene in patient_scenes(patient, seed=seed, height=height):
        blank = scene.air if patient.style.padding is Padding.RANGE else scene.padding
        pixels = np.where(blank, np.float32(0), scene.pixels)
        found.append((side, view, pixels, scene.breast & ~scene.padding, scene.pectoral & ~scene.padding))
    return found


def _print_dice(patients: int, height: int, seed: int) -> None:
    breasts, muscles, sure = [], [], []
    for number in range(patients):
        for side, view, pixels, breast, muscle in _scenes(number, height, seed):
            found = segment_breast(pixels)
            breasts.append(_dice(found, breast))
            if view == "MLO":
                wall = "left" if side == "L" else "right"
                mask, confidence = pectoral_muscle(pixels, breast=found, chest_wall=wall, view=view)
                muscles.append(_dice(mask, muscle))
                sure.append(confidence >= SURE)
    removed = np.array(muscles)[sure]
    print(f"Dice of the breast, {len(breasts)} phantom images: mean {np.mean(breasts):.4f}, least {min(breasts):.4f}")
    print(
        f"Dice of the muscle, {len(muscles)} phantom MLO images: all {np.mean(muscles):.3f}; "
        f"removed in {len(removed)}: mean {removed.mean():.3f}, least {removed.min():.3f}"
    )


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


def _print_plausibility(folder: Path, every: int, sheet: Path | None, shown: int) -> None:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::every]
    doubtful: list[tuple[float, str, np.ndarray, np.ndarray, np.ndarray]] = []
    faults: dict[str, int] = {}
    removed = oblique = wrong = 0
    for row in rows:
        pixels = np.asarray(Image.open(folder / row["image"]).convert("L"), dtype=np.float32) / 255
        wall = "left" if (row["laterality"] == "L") != (row["scanner_group"] == "A") else "right"
        muscle = np.zeros(pixels.shape, dtype=bool)
        try:
            mask = segment_breast(pixels)
            check = check_mask(pixels, mask, chest_wall=wall)
        except Refusal as refusal:
            mask, check = muscle, MaskCheck((str(refusal.code),), 9.0)
        if row["view"] == "MLO" and mask.any():
            muscle, _ = pectoral_muscle(pixels, breast=mask, chest_wall=wall, view="MLO")
            oblique, removed = oblique + 1, removed + bool(muscle.any())
        wrong += bool(check.faults)
        for fault in check.faults:
            faults[fault] = faults.get(fault, 0) + 1
        name = f"{Path(row['image']).stem} {check.doubt:.2f} {' '.join(check.faults)}"
        doubtful.append((check.doubt, name, pixels, mask, muscle))
        if len(doubtful) > 4 * shown:  # pictures of the doubtful ones alone are kept
            doubtful = sorted(doubtful, key=lambda entry: -entry[0])[:shown]
    share = 1 - wrong / len(rows)
    print(f"plausible: {len(rows) - wrong} of {len(rows)} DDSM images ({share:.2%}); faults: {faults or 'none'}")
    print(f"muscle removed in {removed} of {oblique} MLO images")
    if sheet is not None:
        _draw(sorted(doubtful, key=lambda entry: -entry[0])[:shown], sheet)


def _draw(entries: list[tuple[float, str, np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    cell, columns = 250, 10
    canvas = Image.new("RGB", (columns * cell, -(-len(entries) // columns) * (cell + 14)))
    pen = ImageDraw.Draw(canvas)
    for number, (_, name, pixels, mask, muscle) in enumerate(entries):
        grey = (255 * stats.rankdata(pixels, method="average").reshape(pixels.shape) / pixels.size).astype(np.uint8)
        picture = np.stack([grey] * 3, axis=-1)
        for part, colour in ((mask, (255, 0, 0)), (muscle, (0, 255, 0))):
            picture[part & ~ndimage.binary_erosion(part)] = colour
        left, top = number % columns * cell, number // columns * (cell + 14)
        canvas.paste(Image.fromarray(picture).resize((cell - 2, cell - 2), Image.Resampling.BILINEAR), (left, top + 14))
        pen.text((left, top), name, fill=(255, 255, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
    print(f"the {len(entries)} most doubtful images: {path}")


if __name__ == "__main__":
    typer.run(main)
