"""The keeper of one worker process: a crash or a hang of an image ends that process and is known by the image."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from pipeline.cohort.errors import CohortError
from pipeline.cohort.workers import CRASHED, ENVIRONMENT, READY, Outcome, Setup, Task
from pipeline.imaging import RefusalCode

HUNG = RefusalCode.HUNG.value
TIME_LIMIT = 60.0
"""Seconds after which an image counts as hung; the slowest real file (JPEG 2000, 14 million pixels) takes 2 s."""
START_LIMIT = 300.0
"""Seconds in which a process must have loaded torch and MONAI; 5 to 20 s here, more from a busy network drive."""

_BOOT = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = json.loads(sys.argv[1]); "
    "from pipeline.cohort.workers import serve; serve()"
)
"""Ctrl-C in a terminal goes to every process; a worker leaves it to the one that asks, which ends it."""


class WorkersError(CohortError):
    """Worker processes end before they do anything, or hold other code."""


class Warden:
    """Runs tasks in one process of its own, started when the first task comes and again after a crash or a hang.

    A plain child process rather than one of ``multiprocessing``: workers of Dask are daemons, which may have none, and
    the calling script needs no ``__main__`` guard.

    Args:
        setup: what the process needs to know.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process: subprocess.Popen[str] | None = None
        self._runner = 0  # number of the process that works on the image
        self._closed = False

    def run(self, task: Task) -> Outcome:
        """Prepare one image; "crashed" where the process ended, "hung" where it took more than ``TIME_LIMIT``.

        Raises:
            WorkersError: the process cannot start.
        """
        process = self._process or self._start()
        answer, late = self._ask(process, json.dumps(asdict(task)), TIME_LIMIT)
        if isinstance(answer, dict):
            return Outcome(**answer)
        if answer != CRASHED or not self._next_runner(process):
            self._end()
        if late:
            return Outcome(code=HUNG, reason=f"the image took more than {TIME_LIMIT:g} s", seconds=TIME_LIMIT)
        return Outcome(code=CRASHED, reason="the process that prepared the image ended")

    def close(self) -> None:
        """End the process, also in the middle of an image."""
        self._closed = True
        self._end()

    def _start(self) -> subprocess.Popen[str]:
        if self._closed:
            raise WorkersError("the run was ended")
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | ENVIRONMENT,
        )  # fmt: skip
        self._process, self._runner = process, process.pid
        answer, _ = self._ask(process, json.dumps(asdict(self._setup)), START_LIMIT)
        if answer == READY and self._next_runner(process):
            return process
        self._end()
        raise WorkersError(
            answer
            if answer and answer != READY
            else "a worker process ends as soon as it starts: the preparation chain cannot be unpacked there, or there "
            "is no memory for it; workers=0 prepares in this process"
        )

    def _next_runner(self, process: subprocess.Popen[str]) -> bool:
        """Learn which process works on the images from now on; False where there is none."""
        number = _answer(process)
        self._runner = number if isinstance(number, int) else process.pid
        return isinstance(number, int)

    def _ask(self, process: subprocess.Popen[str], line: str, seconds: float) -> tuple[Any, bool]:
        """Send a line and wait for the answer; also whether the process that works was ended for being late."""
        assert process.stdin is not None
        late = threading.Event()

        def end(runner: int = self._runner) -> None:
            late.set()
            os.kill(runner, signal.SIGKILL)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return _answer(process), late.is_set()
        except (OSError, ValueError):  # the pipe is broken, or closed by close()
            return None, late.is_set()
        finally:
            timer.cancel()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for number in {self._runner, process.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):  # a line that never left
                    stream.close()


def _answer(process: subprocess.Popen[str]) -> Any:
    """The next line that comes back, None where the process ended."""
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
    except ValueError:  # closed by close()
        return None
    return json.loads(line) if line.endswith("\n") else None
