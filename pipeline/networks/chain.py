"""Which modules of a network the frozen engine can stand in for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One convolution with its ReLU and, where `pool` is set, the 2 x 2 maximum pooling behind it.

    `index` and `end` are its place among the plain modules.
    """

    conv: nn.Conv2d
    pool: bool
    index: int
    end: int

    @property
    def channels(self) -> int:
        return self.conv.out_channels

    @property
    def weights(self) -> list[Tensor]:
        """Weight and, where there is one, bias."""
        return [self.conv.weight] if self.conv.bias is None else [self.conv.weight, self.conv.bias]

    @property
    def trained(self) -> bool:
        return any(weight.requires_grad for weight in self.weights)

    @property
    def version(self) -> tuple[tuple[int, int], ...]:
        """Changes with every write to the weights."""
        return tuple((weight.data_ptr(), weight._version) for weight in self.weights)

    @property
    def plain(self) -> bool:
        """Is the convolution still an ordinary one in float32? A parametrisation would compute its weights anew."""
        return type(self.conv) is nn.Conv2d and self.conv.weight.dtype == torch.float32


def chain_of(features: nn.Sequential) -> list[Layer]:
    """The leading layers of `features` that the engine can run, from a one-channel convolution on."""
    modules = list(features)
    layers: list[Layer] = []
    position = 0
    while position + 1 < len(modules) and _fits(modules[position], first=not layers):
        if not isinstance(modules[position + 1], nn.ReLU):
            break
        end = position + 2
        pool = end < len(modules) and _is_pool(modules[end])
        conv = modules[position]
        assert isinstance(conv, nn.Conv2d)
        layers.append(Layer(conv, pool, position, end + pool))
        position = end + pool
    return layers


def _fits(module: nn.Module, *, first: bool) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding == (1, 1)
        and module.padding_mode == "zeros"
        and module.groups == 1
        and (module.in_channels == 1) == first
    )


def _is_pool(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d) and (
        (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode) == (2, 2, 0, 1, False)
    )


def watched(module: nn.Module) -> bool:
    """Does a hook want to see this module's call?"""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    wanted = any(module.training or not getattr(hook, "in_training_only", False) for hook in hooks)
    return wanted or bool(module._backward_hooks) or bool(module._backward_pre_hooks)
