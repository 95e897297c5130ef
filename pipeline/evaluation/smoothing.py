"""Randomised smoothing of whole exams: patient logits under Gaussian noise on all views, for certified intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.attacks import as_logit, attack_mode
from pipeline.evaluation.scores_file import image_seed

Pool = Literal["mean", "max"]
PURPOSE = "smoothing"
"""Stream of random numbers, apart from those of the attacks."""


@dataclass(frozen=True)
class ExamImages:
    """The prepared views of one patient.

    Args:
        patient_id: pseudonym; the noise depends on it.
        images: float32 (V, 1, H, W) in [0, 1].
        breasts: names of what is pooled first, one per view: the side, or (examination, side) where a patient has
            several examinations.
    """

    patient_id: str
    images: Tensor
    breasts: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.breasts) or not len(self.images):
            raise ValueError(
                f"patient {self.patient_id}: images of shape {tuple(self.images.shape)} and {len(self.breasts)} "
                "breasts; (V, 1, H, W) and one breast per view needed, V at least 1"
            )


def pool_views(
    logits: np.ndarray, breasts: Sequence[Hashable], *, within_breast: Pool = "mean", across_breasts: Pool = "max"
) -> np.ndarray:
    """Pool logits of one patient's views, many draws at once; equal to ``pipeline.statistics.pool_patients``.

    Args:
        logits: (..., V).
        breasts: name of the breast that each view shows, V of them.
        within_breast: "mean" or "max" over the views of a breast.
        across_breasts: "max" or "mean" over the breasts.

    Returns:
        float64 (...,).

    Raises:
        ValueError: another pooling, or another number of breasts than views.
    """
    pools: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "max": np.max}
    for name, pool in (("within_breast", within_breast), ("across_breasts", across_breasts)):
        if pool not in pools:
            raise ValueError(f"{name} is {pool!r}; allowed are 'mean' and 'max'")
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[-1:] != (len(breasts),):
        raise ValueError(f"logits of shape {logits.shape} for {len(breasts)} views; the last axis holds the views")
    places = [[at for at, name in enumerate(breasts) if name == breast] for breast in dict.fromkeys(breasts)]
    pooled = np.stack([pools[within_breast](logits[..., views], axis=-1) for views in places], axis=-1)
    return np.asarray(pools[across_breasts](pooled, axis=-1))


def smoothing_samples(
    network: nn.Module,
    exams: Iterable[ExamImages],
    *,
    sigma: float,
    n: int,
    within_breast: Pool = "mean",
    across_breasts: Pool = "max",
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Patient logits under n draws of iid Gaussian noise on every pixel of every view (Cohen et al. 2019).

    The noise is **not clipped** to [0, 1]: the certificate holds for the plain Gaussian, so the network sees values
    outside the range that it was trained on. What the samples certify is an L2 radius over the whole exam, all views
    together, in units of the pixel scale; it says nothing useful of an L-infinity budget of 0.01, whose L2 norm over
    four views of 224 x 224 pixels is 4.5.

    Args:
        network: gives logits (N, 1) or (N, 2); runs in eval mode without gradients and comes back as it was.
        exams: one after the other; may be a generator, only one exam is held at a time.
        sigma: standard deviation of the noise, in units of the pixel scale, above 0.
        n: draws per patient.
        within_breast: pooling of the views of a breast, "mean" or "max"; take the report's.
        across_breasts: pooling of the breasts, "max" or "mean".
        seed: with the patient's id, it decides the noise; the batch size does not, nor do the other patients.
        batch_size: images that go through the network at once.

    Returns:
        float64 (patients, n), rows in the order of the exams. Equal draws of two calls with different n are equal.

    Raises:
        ValueError: sigma, n or batch_size out of range, or an unknown pooling.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; allowed are numbers above 0, in units of the pixel scale")
    if n < 1 or batch_size < 1:
        raise ValueError(f"n is {n} and batch_size {batch_size}; allowed are whole numbers from 1 on")
    rows = []
    with torch.no_grad(), attack_mode(network) as module:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        for exam in exams:
            # On the CPU, so that every device sees the same noise.
            generator = torch.Generator().manual_seed(image_seed(seed, PURPOSE, exam.patient_id))
            images = exam.images.detach().as_subclass(Tensor).to(device)
            draws = max(1, batch_size // len(images))
            noise = torch.empty(draws, *images.shape)
            logits = np.empty((n, len(images)))
            for first in range(0, n, draws):
                count = min(draws, n - first)
                # Draw by draw: a generator's numbers depend on how many are asked for at once.
                for draw in noise[:count]:
                    torch.randn(images.shape, generator=generator, out=draw)
                noisy = (images + sigma * noise[:count].to(images)).flatten(0, 1)
                scored = torch.cat([as_logit(module(part)) for part in noisy.split(batch_size)])
                logits[first : first + count] = scored.double().reshape(count, -1).cpu().numpy()
            rows.append(pool_views(logits, exam.breasts, within_breast=within_breast, across_breasts=across_breasts))
    return np.stack(rows) if rows else np.empty((0, n))
