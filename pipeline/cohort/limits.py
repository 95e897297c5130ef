"""The memory and time that a worker process may take, so that no file takes the machine."""

from __future__ import annotations

import sys

from pipeline.imaging.isolation import allow_memory, watched_process

WORKER_MEMORY = 4 * 2**30
"""Bytes on top of what a worker has after its start; the largest image allowed, 64 million pixels, takes 2.2 GiB."""


def limit_worker(memory: int = WORKER_MEMORY) -> None:
    """Limit this process, which only prepares images and is watched from outside; called once, after the imports.

    The address space is bounded by ``RLIMIT_AS`` (Linux), relative to what is mapped already, so that torch and its
    reserved addresses do not count: an image that needs more is refused as ``out_of_memory`` and the process goes on.
    No core is dumped. Time is kept by :class:`~pipeline.cohort.warden.Warden`; a decoder that hangs or crashes costs
    this process, so decoding is not put into yet another one.

    Args:
        memory: bytes on top of the present size.
    """
    allow_memory(memory)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    watched_process()
