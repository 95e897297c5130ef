"""Which layers of a network are trained, and how frozen ones stay frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn


def bare(network: nn.Module) -> nn.Module:
    """Return the module inside a (distributed) data-parallel wrapper, or the network itself."""
    inner = getattr(network, "module", network)
    return inner if isinstance(inner, nn.Module) else network


def freeze_except(network: nn.Module, trainable: Sequence[str] | Literal["all"]) -> list[str]:
    """Let only the parameters below the named modules be trained; return the names of the frozen modules.

    Args:
        network: any module; its `requires_grad` flags are set in place.
        trainable: dotted module names such as ``("features.28", "classifier")``, or ``"all"``.

    Returns:
        Names of the modules that neither lie in nor hold a trainable one. The caller keeps them in eval mode, so that
        frozen batch statistics cannot drift and frozen dropout stays off.

    Raises:
        ValueError: a name matches no module.
    """
    if trainable == "all":
        network.requires_grad_(True)
        return []
    if isinstance(trainable, str):
        trainable = (trainable,)
    modules = dict(network.named_modules())
    unknown = [name for name in trainable if name not in modules or name == ""]
    if unknown:
        top = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"trainable: no module named {', '.join(map(repr, unknown))} in {type(network).__name__}; "
            f"top-level modules are {top}; give dotted names as in named_modules(), or 'all'"
        )
    network.requires_grad_(False)
    for name in trainable:
        modules[name].requires_grad_(True)

    def touches(name: str) -> bool:
        return any(f"{name}.".startswith(f"{kept}.") or kept.startswith(f"{name}.") for kept in trainable)

    return [name for name in modules if name and not touches(name)]
