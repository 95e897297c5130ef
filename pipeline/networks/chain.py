"""Which modules of a network the frozen engine can stand in for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_calls

from pipeline.networks.normalise import Normalise


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
        """Changes with every write to the weights that PyTorch counts."""
        return tuple((weight.data_ptr(), weight._version) for weight in self.weights)


def chain_of(normalise: nn.Module, features: nn.Module) -> list[Layer]:
    """The leading layers of `features` that the engine can run, from a one-channel convolution on.

    Layers are looked at anew in every pass: anybody may replace, patch or watch a module meanwhile.
    """
    if type(normalise) is not Normalise or type(features) is not nn.Sequential:
        return []
    if watched(normalise) or watched(features):
        return []
    modules = list(features)
    layers: list[Layer] = []
    position = 0
    while position + 1 < len(modules) and _fits(modules[position], first=not layers):
        if type(modules[position + 1]) is not nn.ReLU:
            break
        end = position + 2
        pool = end < len(modules) and _is_pool(modules[end])
        if any(watched(module) for module in modules[position : end + pool]):
            break
        conv = modules[position]
        assert isinstance(conv, nn.Conv2d)
        layers.append(Layer(conv, pool, position, end + pool))
        position = end + pool
    return layers


def _fits(module: nn.Module, *, first: bool) -> bool:
    # A parametrised convolution is of another type: it computes its weights anew.
    return (
        type(module) is nn.Conv2d
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and not module.weight.is_inference()
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding == (1, 1)
        and module.padding_mode == "zeros"
        and module.groups == 1
        and (module.in_channels == 1) == first
    )


def _is_pool(module: nn.Module) -> bool:
    return type(module) is nn.MaxPool2d and (
        (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode) == (2, 2, 0, 1, False)
    )


def watched(module: nn.Module) -> bool:
    """Does a hook want to see this module's call, or does something else stand for it?"""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    wanted = any(module.training or not getattr(hook, "in_training_only", False) for hook in hooks)
    hooked = wanted or bool(module._backward_hooks) or bool(module._backward_pre_hooks)
    return hooked or "forward" in module.__dict__


def transformed() -> bool:
    """Is a pass under way that autograd's functions do not see: forward-mode or `torch.func`, or global hooks?"""
    return (
        forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or module_calls._has_any_global_hook()
    )
