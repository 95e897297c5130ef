"""Maps of a frozen prefix, computed once for images that come again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks.freezing import bare

SEEN = 200_000  # digests remembered of images that came once


class FeatureCache:
    """Keeps the maps of images that were seen before, known again by their content.

    An image's maps are kept from its second pass on, since attacked and augmented images come once. What does not fit
    any more is computed each time. Maps are computed image by image, so that their bits depend on nothing else: not on
    the batch, and not on whether they were kept, which a resumed run would show.

    One by one they cost more than in a batch, so that `paused` leaves out batches that hold images which come once.

    Args:
        limit_gib: memory for the maps; 0 keeps none and leaves batches whole.
    """

    def __init__(self, limit_gib: float) -> None:
        if limit_gib < 0:
            raise ValueError(f"cache_gib is {limit_gib}; allowed are numbers from 0 on")
        self.limit = int(limit_gib * 2**30)
        self.paused = False
        self.hits = 0
        self.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "limit": self.limit,
            "paused": False,
            "hits": 0,
            "_version": None,
            "_bytes": 0,
            "_maps": {},
            "_seen": OrderedDict(),
        }

    def clear(self) -> None:
        """Forget everything."""
        self._version: Hashable = None
        self._maps: dict[bytes, Tensor] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._bytes = 0

    def __call__(self, images: Tensor, compute: Callable[[Tensor], Tensor], version: Hashable) -> Tensor:
        """Maps (N, C, h, w) of images (N, 1, H, W).

        Args:
            images: on the CPU.
            compute: gives the maps of one image (1, 1, H, W).
            version: of whatever `compute` depends on; another one than last time empties the cache.
        """
        if version != self._version:
            self.clear()
            self._version = version
        rows = []
        for image in images.detach().split(1):
            digest = hashlib.blake2b(image.contiguous().numpy(), digest_size=16, key=str(tuple(image.shape)).encode())
            rows.append(self._row(digest.digest(), image, compute))
        return torch.cat(rows)

    def _row(self, digest: bytes, image: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        known = self._maps.get(digest)
        if known is not None:
            self.hits += 1
            return known
        maps = compute(image)
        if digest in self._seen:
            size = maps.numel() * maps.element_size()
            if self._bytes + size <= self.limit:
                del self._seen[digest]
                self._maps[digest] = maps
                self._bytes += size
        else:
            self._seen[digest] = None
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
        return maps


def pause_cache(network: nn.Module, paused: bool) -> None:
    """Say whether the images that come now come only once, so that looking for their maps would not pay.

    Args:
        network: with an `engine` that has a `FeatureCache`, or a data-parallel wrapper of it; others are left alone.
        paused: neither look maps up nor keep them.
    """
    cache = getattr(getattr(bare(network), "engine", None), "cache", None)
    if isinstance(cache, FeatureCache):
        cache.paused = paused
