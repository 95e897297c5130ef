"""Rows of a batch: growing it by adversarial ones, and means over clean and adversarial rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLAG = "adversarial"


def grow_batch(batch: dict[str, Any], adversarial_images: Tensor, *, image_key: str = "image") -> dict[str, Any]:
    """Append adversarial rows, one or several for every clean row; every key grows, or the batch is refused.

    MONAI's decollate fills keys that are too short with None in silence, hence the refusal.

    Args:
        batch: tensors (N, ...), lists or tuples of N entries, or values without a batch dimension (numbers, strings,
            None, zero-dimensional tensors), which stay as they are.
        adversarial_images: (K N, C, H, W); row i is attacked from row i modulo N.
        image_key: key of the images.

    Returns:
        A new dictionary with (1 + K) N rows, the clean ones first, and the row flag `adversarial` (bool, on the CPU).

    Raises:
        TypeError: an entry that cannot be repeated.
        ValueError: an entry whose length is not N.
    """
    count = len(batch[image_key])
    copies, rest = divmod(len(adversarial_images), count) if count else (0, len(adversarial_images))
    if rest:
        raise ValueError(f"{len(adversarial_images)} adversarial rows for {count} clean ones; a multiple is needed")
    grown: dict[str, Any] = {}
    for key, value in batch.items():
        if key == image_key:
            grown[key] = torch.cat([value.to(adversarial_images), adversarial_images])
        elif key == FLAG:
            continue
        elif value is None or isinstance(value, int | float | str) or (isinstance(value, Tensor) and value.ndim == 0):
            grown[key] = value
        elif isinstance(value, Tensor | list | tuple):
            if len(value) != count:
                raise ValueError(f"batch[{key!r}] has {len(value)} rows, the images {count}; they must agree")
            grown[key] = torch.cat([value] * (1 + copies)) if isinstance(value, Tensor) else [*value] * (1 + copies)
        else:
            raise TypeError(
                f"batch[{key!r}] is a {type(value).__name__}; tensors, lists and plain values can be repeated; "
                "remove the key in the training transform"
            )
    grown[FLAG] = torch.arange((1 + copies) * count) >= count
    return grown


def replace_rows(batch: dict[str, Any], adversarial_images: Tensor, labels: Tensor) -> dict[str, Any]:
    """The batch with every image replaced by its attacked one, and the flag set for all rows."""
    flag = torch.ones(len(adversarial_images), dtype=torch.bool)
    return batch | {"image": adversarial_images, "label": labels, FLAG: flag}


def adversarial_rows(batch: Any, count: int) -> Tensor:
    """The row flag of a batch, or all False for a batch that no method has touched: bool (N,) on the CPU."""
    flag = batch.get(FLAG) if isinstance(batch, dict) else None
    if flag is None:
        return torch.zeros(count, dtype=torch.bool)
    if len(flag) != count:
        raise ValueError(f"batch[{FLAG!r}] has {len(flag)} rows, the output {count}")
    return flag


def split_rows(values: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
    """Clean and adversarial rows of a tensor.

    In the order in which `grow_batch` leaves them they are slices: choosing rows of a tensor on a GPU by a mask makes
    the host wait for it, forward and back.

    Args:
        values: (N, ...).
        adversarial: bool (N,), as `adversarial_rows` gives it.
    """
    if adversarial.device.type == "cpu":
        clean = len(adversarial) - int(adversarial.sum())
        if not adversarial[:clean].any():
            return values[:clean], values[clean:]
    return values[~adversarial], values[adversarial]


def weighted_group_means(values: Tensor, adversarial: Tensor, standard_ratio: float) -> Tensor:
    """r * mean over clean rows + (1 - r) * mean over adversarial rows; one group alone counts fully.

    Args:
        values: (N,), one number per row.
        adversarial: bool (N,).
        standard_ratio: r of Eq. 4 and 5, the share of standard data.
    """
    clean, attacked = split_rows(values, adversarial)
    if len(clean) == 0 or len(attacked) == 0:
        return values.mean()
    return standard_ratio * clean.mean() + (1 - standard_ratio) * attacked.mean()
