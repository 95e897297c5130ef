"""Shapes of what attacks take: logits, labels, budgets per image, and the noise of a random start."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor


def as_logit(outputs: Tensor) -> Tensor:
    """Logit of the positive class (N,), float32 or wider, from logits (N,), (N, 1) or (N, 2)."""
    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    if outputs.ndim == 1:
        return outputs
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        return outputs[:, 0]
    if outputs.ndim == 2 and outputs.shape[1] == 2:
        return outputs[:, 1] - outputs[:, 0]
    raise ValueError(f"the score gives shape {tuple(outputs.shape)}; allowed are logits (N,), (N, 1) or (N, 2)")


def as_images(images: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Plain, detached images, checked to lie inside `bounds`.

    Outside its bounds an image would be clipped into them, far beyond any budget: the trap of z-scored images.

    Raises:
        ValueError: values outside the bounds, or NaN.
    """
    images = images.detach().as_subclass(Tensor)  # a MetaTensor would pay its bookkeeping at every step
    if images.numel() == 0:
        return images
    low, high = torch.stack(images.aminmax()).tolist()  # the one place of an attack that waits for the device
    tolerance = 1e-5 * (bounds[1] - bounds[0])  # rounding of an interpolation
    if not (low >= bounds[0] - tolerance and high <= bounds[1] + tolerance):
        raise ValueError(
            f"the images hold values from {low:g} to {high:g}, the attack's bounds are {tuple(bounds)}; "
            "give the attack the bounds of the images as the network takes them, and a budget in the same units"
        )
    return images


def as_labels(labels: Tensor, count: int) -> Tensor:
    """Labels (N,) from (N,) or (N, 1)."""
    if labels.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} for {count} images; allowed are ({count},) or ({count}, 1)"
        )
    return labels.detach().reshape(count)


def per_image(value: float | Tensor, images: Tensor, *, name: str) -> Tensor:
    """A number, or (N,), as a tensor that broadcasts over the images."""
    # A number is checked and filled in without a transfer, for which a GPU would be waited for.
    if not (bool((value >= 0).all()) if isinstance(value, Tensor) else value >= 0):
        raise ValueError(f"{name} is {value}; allowed are numbers from 0 on, in units of the images")
    if isinstance(value, Tensor) and value.ndim > 0:
        tensor = value.to(images)
    else:
        tensor = torch.full((len(images),), float(value), dtype=images.dtype, device=images.device)
    if tensor.shape != (len(images),):
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} for {len(images)} images; allowed are a number or (N,)"
        )
    return tensor.reshape(-1, *[1] * (images.ndim - 1))


def start_noise(images: Tensor, seed: int | Sequence[int] | None) -> Tensor:
    """Uniform noise in [-1, 1] of the images' shape.

    One seed serves the whole batch; one per image makes an image's noise the same in every batch and on every rank.
    """
    noise = torch.empty_like(images).as_subclass(Tensor)
    if seed is None:
        return noise.uniform_(-1, 1)
    generator = torch.Generator(device=images.device)
    if isinstance(seed, int | Integral):
        return noise.uniform_(-1, 1, generator=generator.manual_seed(int(seed)))
    if len(seed) != len(images):
        raise ValueError(f"{len(seed)} seeds for {len(images)} images; allowed are one seed or one per image")
    for row, row_seed in zip(noise, seed, strict=True):
        row.uniform_(-1, 1, generator=generator.manual_seed(int(row_seed)))
    return noise
