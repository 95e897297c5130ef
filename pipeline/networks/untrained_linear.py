"""Linear layers of the head in an attack: few rows, many weights, no weight gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.networks import head_loops
from pipeline.networks.loops import loop_threads


def runs_untrained(layer: nn.Module, rows: Tensor) -> bool:
    """Whether `untrained_linear` stands for this layer: plain, float32 on the CPU, with no gradient of its own.

    For one row, and for more than four, PyTorch's product is as fast.
    """
    return (
        type(layer) is nn.Linear
        and 1 < len(rows) <= head_loops.ROWS
        and rows.device.type == "cpu"
        and rows.dtype == layer.weight.dtype == torch.float32
        and layer.out_features % 4 == 0
        and layer.weight.is_contiguous()
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
        return _filled(head_loops.product, rows, weight, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        threads = torch.get_num_threads()
        return _filled(head_loops.transposed_product, gradient, weight, weight.shape[1], threads), None


def _filled(loop: Any, rows: Tensor, weight: Tensor, outputs: int, *settings: int) -> Tensor:
    """Run a loop on the rows, filled up with zeros to as many as it is written for."""
    whole = rows.new_zeros(head_loops.ROWS, rows.shape[1])
    whole[: len(rows)] = rows
    out = rows.new_empty(head_loops.ROWS, outputs)
    with loop_threads():
        loop(whole.detach().numpy(), weight.numpy(), out.numpy(), *settings)
    return out[: len(rows)]
