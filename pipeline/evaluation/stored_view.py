"""One view of an exam as its file stores it: attacked in whole grey levels, written, read anew and scored."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch import Tensor, nn

from pipeline.attacks import as_logit, attack_mode, margin, pgd
from pipeline.evaluation.scores_file import image_seed
from pipeline.imaging import Preparation, ReadMammogramd, Refusal, RefusalCode, prepare_item
from pipeline.imaging.derivative import Derivative
from pipeline.imaging.derived import write_derived
from pipeline.imaging.levels import dither_noise, reachable_levels, whole_levels
from pipeline.imaging.mammogram import Mammogram
from pipeline.imaging.reading import PNG_SIGNATURE

DESCRIPTION = "adversarial test image"
"""Begin of every Derivation Description; research use only."""

ROUNDS = 2
"""An attack can move the breast's outline or a percentile, and so what the chain decides anew; where that costs it more
than `LOSS` of its gain, the ascent goes on once with what was decided."""
LOSS = 0.1


@dataclass(frozen=True)
class ViewFile:
    """One original file and what the manifest says of it.

    Args:
        path: DICOM file.
        image_id: pseudonymous id of the image; names it in results and decides its noise.
        laterality: "L" or "R".
        view: for example "CC".
        study_id: pseudonym of the examination, empty where a patient has one.
    """

    path: Path
    image_id: str
    laterality: str
    view: str
    study_id: str = ""

    @property
    def breast(self) -> tuple[str, str]:
        """What is pooled first."""
        return self.study_id, self.laterality


class Candidate(NamedTuple):
    """Stored values (H, W), their logit after a full re-read, and the one under the preparation recorded before."""

    stored: np.ndarray
    logit: float
    recorded: float


class StoredView:
    """A view that can be attacked through its preparation and scored after storage.

    Args:
        file: the original.
        network: gives logits (N, 1) or (N, 2).
        chain: the preparation that the network was trained with, from `ReadMammogramd` to `ResizeImaged`.
        seed: of dithering and of the written UIDs.

    Raises:
        Refusal: the file cannot be prepared, or is no single DICOM image.
    """

    def __init__(self, file: ViewFile, *, network: nn.Module, chain: Compose, seed: int) -> None:
        self.file, self.network, self.chain, self.seed = file, network, chain, seed
        item = self._item(file.path)
        prepared = prepare_item(chain, item)
        reader = next(step for step in chain.flatten().transforms if isinstance(step, ReadMammogramd))
        with file.path.open("rb") as stream:
            if stream.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE:
                raise Refusal(RefusalCode.UNSUPPORTED_SYNTAX, "a PNG; this attack is on DICOM files", file.image_id)
        self.mammogram: Mammogram = reader(item)["mammogram"]
        if "frame" in self.mammogram.provenance:
            raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, "several frames; single images are attacked", file.image_id)
        low, high = self.mammogram.presentation.stored_range
        if self.mammogram.stored.min() < low or self.mammogram.stored.max() > high:
            raise Refusal(
                RefusalCode.UNSUPPORTED_PIXELS, f"decoded values lie outside the {self.bits} bits stored", file.image_id
            )
        self.preparation: Preparation = prepared["preparation"]
        self.prepared: Tensor = prepared["image"].as_subclass(Tensor)
        logit = self.score(self.prepared)
        self.clean = Candidate(self.mammogram.stored, logit, logit)

    @property
    def bits(self) -> int:
        """Bits Stored of the file."""
        return self.mammogram.presentation.bits_stored

    def score(self, prepared: Tensor) -> float:
        """Logit of a prepared picture (1, h, w)."""
        with torch.no_grad(), attack_mode(self.network) as module:
            return float(as_logit(module(prepared[None].to(_device(module))))[0])

    def store(self, stored: np.ndarray, target: Path, *, description: str, patient_id: str | None) -> None:
        """Write stored values as a derived DICOM image, see `write_derived`."""
        write_derived(
            self.file.path, target, stored, description=description, seed=self.seed, patient_id=patient_id
        )  # fmt: skip

    def reread(self, stored: np.ndarray) -> tuple[float, Preparation] | None:
        """Write stored values, read the file and prepare it anew: its logit, and what the chain decided this time.

        None where the chain refuses the picture.
        """
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "stored.dcm"
            self.store(stored, target, description=DESCRIPTION, patient_id="")
            try:
                item = prepare_item(self.chain, self._item(target))
            except Refusal:
                return None
        return self.score(item["image"]), item["preparation"]

    def attack(
        self, label: int, *, budget: float, steps: int, dither: bool = False, start: Candidate | None = None
    ) -> Candidate:
        """Push the logit to the side of a wrong diagnosis by at most `budget` grey levels per pixel.

        PGD on the margin over the stored values; the network sees the whole levels of every iterate, and the gradient
        passes the rounding straight through (Bengio et al. 2013). Pixels that the preparation does not look at and
        padding stay as they are. The best iterate is stored, read and scored anew; it is taken only where it is worse
        for the diagnosis than `start` and than the original, so that the result is never better than either.

        Args:
            label: of the patient, 1 malignant or 0.
            budget: grey levels. A fraction of a level needs dithering, and is then met on the mean of the pixels.
            steps: of each ascent; the step size is 2.5 * budget / steps.
            dither: spread fractions of a level over the pixels instead of rounding them.
            start: an earlier result with a budget not above this one.
        """
        begin = best = start or self.clean
        preparation, stored = self.preparation, best.stored
        for _ in range(ROUNDS):
            stored, recorded = self._ascend(label, preparation, stored, budget=budget, steps=steps, dither=dither)
            outcome = self.reread(stored)
            if outcome is None:
                break
            if (1 - 2 * label) * (outcome[0] - best.logit) > 0:
                best = Candidate(stored, outcome[0], recorded)
            sign = 1 - 2 * label
            if outcome[1] == preparation or recorded * sign - outcome[0] * sign <= LOSS * abs(recorded - begin.logit):
                break
            preparation = outcome[1]
        return best

    def _ascend(
        self, label: int, preparation: Preparation, start: np.ndarray, *, budget: float, steps: int, dither: bool
    ) -> tuple[np.ndarray, float]:
        """Stored values and logit of the iterate with the largest margin under a recorded preparation."""
        derivative = Derivative(preparation, self.mammogram, reach=max(1, int(np.ceil(budget))))
        seen = derivative.seen().numpy()
        box = _bounding_box(seen)
        original = self.mammogram.stored[box]
        lower, upper = reachable_levels(original, self.mammogram.presentation, budget=budget)
        lower, upper = (np.where(seen[box], end, original) for end in (lower, upper))
        noise = self.noise(original.shape) if dither else None
        labels = torch.tensor([label], dtype=torch.float32)
        best: list[Any] = [start, -np.inf]

        with attack_mode(self.network) as module:

            def score(values: Tensor) -> Tensor:
                whole = whole_levels(values.detach().numpy()[0, 0], lower, upper, noise=noise)
                candidate = self.mammogram.stored.copy()
                candidate[box] = whole
                prepared = _Prepared.apply(values, preparation.apply(torch.from_numpy(candidate)), derivative, box)
                logits = as_logit(module(prepared.to(_device(module)))).cpu()
                value = float(margin(logits.detach(), labels))
                if value > best[1]:
                    best[:] = candidate, value
                return logits

            centre = torch.from_numpy(original.astype(np.float32))[None, None]
            moved = torch.from_numpy(start[box].astype(np.float32))[None, None] - centre
            low, high = self.mammogram.presentation.stored_range
            last = pgd(
                score, centre, labels, budget=budget, steps=steps, step_size=2.5 * budget / steps, bounds=(low, high),
                noise=moved / budget,
            )  # fmt: skip
            with torch.no_grad():
                score(last)
        return best[0], (1 - 2 * label) * best[1]

    def noise(self, shape: Sequence[int]) -> np.ndarray:
        """Thresholds of the image's dithering, in [0, 1)."""
        return dither_noise(tuple(shape), seed=image_seed(self.seed, "dither", self.file.image_id))

    def _item(self, path: Path) -> dict[Any, Any]:
        return {"image": str(path), "laterality": self.file.laterality, "view": self.file.view}


class _Prepared(torch.autograd.Function):
    """The prepared picture of whole levels; backwards, the rounding is passed straight through."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, prepared: Tensor, derivative: Derivative, box: tuple[slice, slice]) -> Tensor:
        ctx.derivative, ctx.box = derivative, box
        return prepared[None].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.derivative.pull(gradients[0][0])[ctx.box][None, None], None, None, None


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Smallest rectangle that holds a mask (H, W); one pixel where it is empty."""
    ends = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis=axis))
        ends.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1))
    return ends[0], ends[1]


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
