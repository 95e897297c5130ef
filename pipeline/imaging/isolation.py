"""Decoders of compressed pixels, C code fed by strangers, run in a child process with a limit of time and memory.

A hang or a crash inside a C library cannot be caught in the process that suffers it. The child is a fork
and only decodes: its threads, locks and devices are never used. It costs 50 to 60 ms for an image of 7 to 14 million
pixels (measured on two cores of a Xeon), so in a process that exists only to prepare images and is watched from outside
it is spared.
"""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.imaging.parsing import MEBI
from pipeline.imaging.refusal import Refusal, RefusalCode

if sys.platform != "win32":
    import resource

Result = TypeVar("Result")

TIME_LIMIT = 30.0
"""Seconds for one decoding; the largest mammograms (6000 x 5000, JPEG 2000) take about 3 s on a slow core."""

MEMORY_LIMIT = 2048 * MEBI
"""Bytes that decoding may take on top of its parent's; 30 million pixels of 32 bits, four times over, are 0.5 GB."""

_watched = False


def watched_process() -> None:
    """Declare that this process is itself limited and watched, so that decoding here needs no child."""
    global _watched
    _watched = True


def allow_memory(extra: int) -> None:
    """Bound this process's address space to what it has now and ``extra`` bytes; has an effect on Linux only.

    Relative to the present size, because libraries such as CUDA reserve far more addresses than they use.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        bound = pages * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))


def run_apart(
    function: Callable[..., Result],
    *arguments: Any,
    room: int,
    seconds: float = TIME_LIMIT,
    memory: int = MEMORY_LIMIT,
) -> Result:
    """Call a function in a forked child and return its result; where there is no fork, or no need, call it here.

    Args:
        function: decodes pixels; uses neither torch nor a device.
        arguments: its arguments.
        room: bytes that the arrays of the result may have; they come back through shared memory.
        seconds: after which the child is ended.
        memory: bytes that the child may take beyond what this process has.

    Returns:
        The function's result.

    Raises:
        Refusal: what the function refused, or ``hung``, ``crashed``, ``out_of_memory``, ``unreadable``.
    """
    if _watched or not hasattr(os, "fork"):
        return function(*arguments)
    shared = mmap.mmap(-1, max(room, 1))
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; the child takes no lock but malloc's, which fork handles.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        _decode_and_end(function, arguments, shared, reader, writer, memory)
    os.close(writer)
    try:
        answer = _answer(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if answer is None:
        raise Refusal(RefusalCode.HUNG, f"decoding took more than {seconds:g} s and was ended")
    if not answer:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        raise Refusal(RefusalCode.CRASHED, f"the decoder ended its process ({how}); the pixel data is damaged")
    lengths, content = pickle.loads(answer)
    buffers, place = [], 0
    for length in lengths:
        buffers.append(memoryview(shared)[place : place + length])
        place += length
    good, result = pickle.loads(content, buffers=buffers)
    if not good:
        raise result
    return result


def _answer(reader: int, end: float) -> bytes | None:
    """All that the child writes until it closes the pipe; None when it is late."""
    parts: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            part = os.read(reader, MEBI)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _decode_and_end(
    function: Callable[..., Any], arguments: Any, shared: mmap.mmap, reader: int, writer: int, memory: int
) -> None:
    """The child's whole life; it never returns, and runs no exit handler of its parent."""
    try:
        os.close(reader)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
            signal.signal(number, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)  # decoders print what they stumble over
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of memory would hold the header
        allow_memory(memory)
        with os.fdopen(writer, "wb") as stream:
            stream.write(_packed(function, arguments, shared))
        os._exit(0)
    finally:
        os._exit(1)


def _packed(function: Callable[..., Any], arguments: Any, shared: mmap.mmap) -> bytes:
    good, result = False, None
    try:
        good, result = True, function(*arguments)
    except Refusal as refusal:
        result = Refusal(refusal.code, refusal.reason, refusal.where)
    except MemoryError:
        result = Refusal(RefusalCode.OUT_OF_MEMORY, "decoding takes more memory than it may")
    except BaseException as error:  # a decoder may fail in any way, Rust's panics too; its text may quote the header
        result = Refusal(RefusalCode.UNREADABLE, f"pixel data cannot be decoded ({type(error).__name__})")
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps((good, result), protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if sum(view.nbytes for view in views) > len(shared):
        excess = Refusal(RefusalCode.PIXEL_SIZE, "the decoder gives more pixels than the tags say")
        return pickle.dumps(((), pickle.dumps((False, excess))))
    place = 0
    for view in views:
        shared[place : place + view.nbytes] = view
        place += view.nbytes
    return pickle.dumps((tuple(view.nbytes for view in views), content))
