"""Readable errors: MONAI wraps what a component raised; the innermost error of ours is printed last."""

from __future__ import annotations

import sys
from types import TracebackType


def own_error(error: BaseException) -> BaseException | None:
    """The deepest error in the chain whose class belongs to this package, else whose raising code does, or None.

    Classes go first: they carry the message for the reader, where the plain error that they were raised from says only
    what went wrong in a line of ours.
    """
    own_class = own_code = None
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if is_own(current):
            own_class = current
        elif _raised_here(current):
            own_code = current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return own_class or own_code


def is_own(error: BaseException) -> bool:
    """Whether the error's class belongs to this package."""
    return type(error).__module__.partition(".")[0] == "pipeline"


def _raised_here(error: BaseException) -> bool:
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "pipeline"


def install_error_printer() -> None:
    """Print our own innermost error as the last line of an uncaught exception. Installing twice changes nothing."""
    previous = sys.excepthook
    if getattr(previous, "prints_own_error", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        previous(kind, error, trace)
        own = own_error(error)
        if own is not None and not isinstance(error, KeyboardInterrupt):
            sys.stdout.flush()
            print(f"\n{type(own).__name__}: {own}", file=sys.stderr, flush=True)

    hook.prints_own_error = True  # type: ignore[attr-defined]
    sys.excepthook = hook
