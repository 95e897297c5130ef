"""The run directory: what a run leaves behind, written atomically."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: two runs of one name at a time are not noticed there
    fcntl = None  # type: ignore[assignment]

PACKAGES = (
    "arfl-mammography", "monai", "torch", "torchvision", "pytorch-ignite", "pydicom", "numpy", "pandas", "scipy",
)  # fmt: skip
LOCK = ".running"
logger = logging.getLogger(__name__)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


class RunningError(RuntimeError):
    """Another process writes to the run directory; the message says what to do."""


class RunDirectory:
    """`<output_dir>/<name>/`. Nothing is created before `open`.

    Args:
        output_dir: folder of all runs.
        name: name of this run; a plain folder name.
        resume: continue the run that lies there. Otherwise an earlier run of that name is moved aside to
            `<name>.1`, `<name>.2`, ..., so that nothing is lost.

    Raises:
        ValueError: a name with a path separator.
    """

    def __init__(self, output_dir: str | Path, name: str, *, resume: bool = False) -> None:
        if not name or name in {".", ".."} or Path(name).name != name:
            raise ValueError(f"run_name {name!r} is no plain folder name; allowed are names without '/'")
        self.path = Path(output_dir).expanduser() / name
        self.resume = resume
        self._started: float | None = None
        self._held: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def artefacts(self) -> Path:
        return self.path / "artefacts"

    def open(self, configuration: dict[str, Any] | None = None) -> Path:
        """Create the folder and write `config.json`; on resume, refuse a configuration that differs.

        Raises:
            ConfigurationError: resuming with a configuration that would train something else.
            RunningError: another process has the folder open.
        """
        from pipeline.runs.configuration import current_configuration, refuse_changed_configuration

        configuration = current_configuration() if configuration is None else configuration
        recorded = self.path / "config.json"
        if self.path.is_dir():
            self._hold()
        if self.resume and recorded.is_file():
            refuse_changed_configuration(json.loads(recorded.read_text(encoding="utf-8")), configuration, self.path)
        elif self.path.exists() and any(entry.name != LOCK for entry in self.path.iterdir()):
            aside = next(
                p for i in range(1, 10_000) if not (p := self.path.with_name(f"{self.path.name}.{i}")).exists()
            )
            self.path.rename(aside)
            logger.info("an earlier run stood at %s; it was moved to %s", self.path, aside)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.artefacts.mkdir(exist_ok=True)
        self._hold()
        write_atomically(recorded, json.dumps(configuration, indent=2, default=str))
        self._started = time.time()
        return self.path

    def _hold(self) -> None:
        """Lock the folder until this process ends; nothing is to be removed after a crash."""
        if fcntl is None:
            return
        held = (self.path / LOCK).open("a", encoding="utf-8")
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            held.close()
            raise RunningError(
                f"{self.path} is being written by another process; wait for its end, or give another run_name"
            ) from None
        except OSError as error:  # some network file systems know no locks
            logger.warning("%s cannot be locked (%s): do not start two runs of this name at a time", self.path, error)
        self._held = held

    def record_provenance(self, *, test_images: Collection[str] = (), **facts: Any) -> Path:
        """Write `provenance.json`: command, times, versions, and the facts given (seeds, digests, device).

        Args:
            test_images: digests of the images that were tested on. How often the same ones were tested on by runs in
                this folder is counted (`test_sets.jsonl`): whoever chooses among many runs by one test set fits to it.
            facts: further entries.
        """
        now = time.time()
        started = self._started or now
        versions = {"python": platform.python_version()}
        for package in PACKAGES:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                if package == "arfl-mammography":  # run from the repository without installation
                    from pipeline import __version__

                    versions[package] = __version__
        content = {
            "command": recorded_command(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "duration_s": round(now - started, 1),
            "versions": versions,
            **facts,
        }
        if test_images:
            content["test set"] = self._counted(test_images, content["finished"])
        target = self.path / "provenance.json"
        write_atomically(target, json.dumps(content, indent=2, default=str))
        return target

    def _counted(self, images: Collection[str], finished: str) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()
        ledger = self.path.parent / "test_sets.jsonl"
        with ledger.open("ab", buffering=0) as stream:  # one write, so that runs may share the file
            stream.write(
                (json.dumps({"test_set": digest, "run": self.path.name, "finished": finished}) + "\n").encode()
            )
        lines = ledger.read_text(encoding="utf-8").splitlines()
        return {"digest": digest, "evaluations in this folder of runs": sum(digest in line for line in lines)}


def recorded_command() -> str:
    """The command line as a shell takes it, without the machine's paths of Python and of the module."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        package = program.parent.name
        name = "monai.bundle" if package == "bundle" else package
        return shlex.join(["python", "-m", name, *sys.argv[1:]])
    return shlex.join([program.name, *sys.argv[1:]])
