"""The one place that switches a network for an attack and puts it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def attack_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Put `network` into eval mode without parameter gradients; restore both per module and per parameter.

    Eval mode keeps batch statistics and dropout out of the attack. Without parameter gradients a PGD step costs two
    forward passes instead of up to three. Modes are restored module by module, because a blanket `train()` would wake
    frozen layers.

    Yields:
        The bare module of a data-parallel wrapper, so that no gradient synchronisation happens inside the attack.
    """
    inner = getattr(network, "module", network)
    inner = inner if isinstance(inner, nn.Module) else network
    modes = [(module, module.training) for module in inner.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in inner.parameters()]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield inner
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
