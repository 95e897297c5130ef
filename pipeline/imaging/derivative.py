"""The derivative of a preparation at a stored picture: changes pushed forward, gradients pulled back, exactly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.imaging import scan
from pipeline.imaging.levels import reachable_levels
from pipeline.imaging.mammogram import Mammogram
from pipeline.imaging.preparation import Preparation
from pipeline.imaging.steps import Background, Crop, Flip, Pad, Resize

TOLERANCE = 1e-2
"""Relative residual at which :meth:`Derivative.realise` stops."""

RIDGE = 0.03
"""Weight of a small change against an exact one, share of the largest reaction of a prepared pixel (ours): on two real
mammograms inside the breast, 6 to 9% of random signs are missed after 15 to 18 steps; a tenth of it takes 80 to 93."""

ITERATIONS = 100
"""Most steps of conjugate gradients."""


class Derivative:
    """Jacobian J of ``Preparation.apply`` at a stored picture: a slope per pixel, then crop, mirror, resize, pad.

    All but the slopes is linear, so that J is applied by two small matrix products, without a graph over the stored
    picture. Pixels that the preparation does not look at (background, padding, saturated ones) have slope 0.

    Args:
        preparation: recorded on the picture; its resize comes after what changes grey levels.
        mammogram: gives the stored values, of 8 or 16 bits, and what they may become.
        reach: 0 takes the derivative at the stored values, as autograd does. Above 0, the slope of the chord over so
            many grey levels on either side: what a whole step of that size can reach where a lookup table is a
            staircase or a window is cut off. On a straight line both are the same.

    Raises:
        ValueError: the preparation was recorded on a picture of another shape, or holds its steps in another order.
    """

    def __init__(self, preparation: Preparation, mammogram: Mammogram, *, reach: int = 0) -> None:
        if tuple(mammogram.stored.shape) != tuple(preparation.source_shape):
            raise ValueError(
                f"stored picture has shape {mammogram.stored.shape}, the preparation was recorded on "
                f"{preparation.source_shape}"
            )
        steps = preparation.steps
        self._geometry = [step for step in steps if isinstance(step, Crop | Flip | Resize | Pad)]
        grey = [place for place, step in enumerate(steps) if step not in self._geometry]
        resize = next((place for place, step in enumerate(steps) if isinstance(step, Resize)), len(steps))
        if any(place > resize for place in grey):
            raise ValueError("a preparation that changes grey levels after its resize has no derivative here")
        self._matrices = {step: _matrices(step) for step in self._geometry if isinstance(step, Resize)}
        self.slopes = _slopes(preparation, mammogram, reach)
        for step in steps:
            if isinstance(step, Background):
                self.slopes.masked_fill_(~step.mask(), 0.0)

    def push(self, change: Tensor) -> Tensor:
        """J d: change of the prepared picture (1, h, w) for a change d of the stored one (H, W), in grey levels."""
        return self._forward(change * self.slopes)[None]

    def pull(self, gradient: Tensor) -> Tensor:
        """J^T g: gradient over the stored picture (H, W), per grey level, of a gradient g over the prepared one."""
        return self._backward(gradient).mul_(self.slopes)

    def seen(self) -> Tensor:
        """Stored pixels that change the prepared picture, bool (H, W)."""
        rows, columns = self._shapes()[-1]
        return self.pull(torch.ones(1, rows, columns)) != 0

    def realise(self, change: Tensor) -> Tensor:
        """Small change of the stored picture that changes the prepared one nearly as wished for (ridge regression).

        d = J^T u with (J J^T + ridge) u = change, by conjugate gradients (Hestenes and Stiefel 1952): it minimises
        |J d - change|^2 + ridge |d|^2. The ridge keeps prepared pixels that hardly react, at the breast's outline, from
        calling for huge changes.

        Args:
            change: wished-for change of the prepared picture (1, h, w).

        Returns:
            Change of the stored picture (H, W) in grey levels, not whole; 0 where the preparation does not look.
        """
        ridge = RIDGE * self._forward(self.slopes.square(), power=2).max()
        weights, residual = torch.zeros_like(change), change
        direction, size = residual, residual.square().sum()
        enough = TOLERANCE**2 * size
        for _ in range(ITERATIONS):
            if size <= enough:
                break
            image = self.push(self.pull(direction)) + ridge * direction
            length = size / (direction * image).sum()
            weights = weights + length * direction
            residual = residual - length * image
            size, before = residual.square().sum(), size
            direction = residual + (size / before) * direction
        return self.pull(weights)

    def _forward(self, picture: Tensor, *, power: int = 1) -> Tensor:
        for step in self._geometry:
            if isinstance(step, Resize):
                rows, columns = self._matrices[step]
                picture = rows**power @ picture @ columns.T**power
            else:
                picture = step.apply(picture)
        return picture

    def _backward(self, gradient: Tensor) -> Tensor:
        moved = gradient.reshape(gradient.shape[-2:])
        for step, (height, width) in zip(self._geometry[::-1], self._shapes()[-2::-1], strict=True):
            if isinstance(step, Resize):
                rows, columns = self._matrices[step]
                moved = rows.T @ moved @ columns
            elif isinstance(step, Crop):
                right, below = width - step.column - step.width, height - step.row - step.height
                moved = functional.pad(moved, (step.column, right, step.row, below))
            elif isinstance(step, Flip):
                moved = step.apply(moved)
            else:
                moved = moved[:height, :width]
        return moved.clone() if moved.data_ptr() == gradient.data_ptr() else moved

    def _shapes(self) -> list[tuple[int, int]]:
        """(rows, columns) of the stored picture, and after each geometric step."""
        shapes = [(self.slopes.shape[0], self.slopes.shape[1])]
        for count in range(1, len(self._geometry) + 1):
            shapes.append(Preparation(shapes[0], tuple(self._geometry[:count])).shape)
        return shapes


def _matrices(step: Resize) -> tuple[Tensor, Tensor]:
    """Weights of a resize along the rows and along the columns: float32 (target, source) each."""
    matrices = []
    for source, target in zip(step.source, step.target, strict=True):
        first, weights = scan.triangle_weights(source, target)
        places = np.minimum(first[:, None] + np.arange(weights.shape[1]), source - 1)  # those beyond have weight 0
        matrix = np.zeros((target, source), dtype=np.float32)
        np.add.at(matrix, (np.arange(target)[:, None], places), weights)
        matrices.append(torch.from_numpy(matrix))
    return matrices[0], matrices[1]


def _slopes(preparation: Preparation, mammogram: Mammogram, reach: int) -> Tensor:
    """Change of the shown value per grey level at every stored pixel, float32 (H, W)."""
    values = scan.every_value(mammogram.stored)
    if reach > 0:
        ends = reachable_levels(values.numpy(), mammogram.presentation, budget=reach)
        lower, upper = (torch.from_numpy(end).to(torch.float32) for end in ends)
        table = (preparation.shown(upper) - preparation.shown(lower)) / (upper - lower).clamp_min(1)
    else:
        values.requires_grad_(True)
        with torch.enable_grad():
            (table,) = torch.autograd.grad(preparation.shown(values).sum(), values)
    return torch.from_numpy(table.numpy()[scan.as_bits(mammogram.stored)])
