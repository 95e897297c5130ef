"""How many images go through an attack together under a memory budget."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Score = Callable[[Tensor], Tensor]


def images_per_part(network: nn.Module, score: Score, images: Tensor, memory_gib: float) -> int:
    """Largest number of images whose kept activations fit into `memory_gib`, at least 1.

    Counted is what autograd keeps between forward and backward for one image, measured by a forward pass of it;
    weights are not counted. What a layer needs in passing comes on top.

    Args:
        network: in the mode of the attack.
        score: calls it, as the attack does.
        images: (N, C, H, W), N at least 1.
        memory_gib: budget in GiB.
    """
    return max(1, int(memory_gib * 2**30 // max(kept_bytes(network, score, images[:1]), 1)))


def kept_bytes(network: nn.Module, score: Score, images: Tensor) -> int:
    """Bytes that autograd keeps for the gradient of `images`, without parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # the tensors are held, so that no storage is freed and counted for another

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        score(images.detach().clone().requires_grad_(True))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
