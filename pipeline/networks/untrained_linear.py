"""Linear layers of the head in an attack: few rows, many weights, no weight gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Pieces into which the outputs are cut. A product with a handful of rows costs the time to read the weights. On an AMD
# EPYC, MKL read them at a third of the memory's speed in one product and at full speed in a batch of products; on an
# Intel Xeon the pieces cost or gain a third of a product that is 2% of a step (benchmarks/head_rule.py).
PIECES = 16


def runs_untrained(layer: nn.Module, rows: Tensor) -> bool:
    """Whether `untrained_linear` stands for this layer: plain, float32 on the CPU, with no gradient of its own."""
    return (
        type(layer) is nn.Linear
        and rows.device.type == "cpu"
        and rows.dtype == layer.weight.dtype == torch.float32
        and layer.out_features % PIECES == 0
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in layer.parameters()))
    )


def untrained_linear(layer: nn.Module, rows: Tensor) -> Tensor:
    """`layer(rows)` whose gradient goes to `rows` alone.

    Args:
        layer: a linear one that `runs_untrained`.
        rows: (N, inputs).
    """
    assert isinstance(layer, nn.Linear)
    result: Tensor = _Product.apply(rows, layer.weight.detach())
    return result if layer.bias is None else result + layer.bias.detach()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        pieces = weight.view(PIECES, -1, weight.shape[1])
        # Not matmul, which folds the batch back into one product where the rows need a gradient.
        parts = torch.bmm(rows.expand(PIECES, -1, -1), pieces.transpose(1, 2))
        return parts.transpose(0, 1).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        pieces = weight.view(PIECES, -1, weight.shape[1])
        parts = gradient.unflatten(1, (PIECES, -1)).transpose(0, 1)
        return torch.bmm(parts, pieces).sum(dim=0), None
