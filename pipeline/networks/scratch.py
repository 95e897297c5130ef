"""Working memory of the frozen engine, kept from step to step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Flat float32 buffers by name, grown when needed and kept, so that a step of an attack allocates nothing twice."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """A contiguous tensor of `shape`; what it holds is finite and otherwise arbitrary."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            with torch.inference_mode(False):  # a buffer of inference mode could not be written outside it
                flat = self._flat[name] = torch.zeros(size, dtype=torch.float32, device="cpu")
        return flat[:size].view(shape)

    def nbytes(self) -> int:
        return sum(flat.numel() * 4 for flat in self._flat.values())
