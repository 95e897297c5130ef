"""The one place that switches a network for an attack and puts it back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class _Before:
    """How a network stood before the first of the attacks that are under way on it."""

    modes: list[tuple[nn.Module, bool]]
    flags: list[tuple[nn.Parameter, bool]]
    attacks: int = 0


_UNDER_ATTACK: WeakKeyDictionary[nn.Module, _Before] = WeakKeyDictionary()
_LOCK = threading.Lock()


def bare(network: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper, or the network itself."""
    inner = getattr(network, "module", network)
    return inner if isinstance(inner, nn.Module) else network


@contextmanager
def attack_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Put `network` into eval mode without parameter gradients; restore both per module and per parameter.

    Eval mode keeps batch statistics and dropout out of the attack. Without parameter gradients a PGD step costs two
    forward passes instead of up to three. Modes are restored module by module, because a blanket `train()` would wake
    frozen layers. Attacks may be nested or run in several threads: the last one to end restores.

    Yields:
        The bare module of a data-parallel wrapper, so that no gradient synchronisation happens inside the attack.
    """
    inner = bare(network)
    with _LOCK:
        if inner not in _UNDER_ATTACK:
            modes = [(module, module.training) for module in inner.modules()]
            _UNDER_ATTACK[inner] = _Before(modes, [(p, p.requires_grad) for p in inner.parameters()])
        before = _UNDER_ATTACK[inner]
        before.attacks += 1
        for module, _ in before.modes:
            module.training = False
        for parameter, _ in before.flags:
            parameter.requires_grad_(False)
    try:
        yield inner
    finally:
        with _LOCK:
            before.attacks -= 1
            if before.attacks == 0:
                del _UNDER_ATTACK[inner]
                for module, mode in before.modes:
                    module.training = mode
                for parameter, flag in before.flags:
                    parameter.requires_grad_(flag)
