"""Pseudonyms of patients, examinations and files by a keyed hash; the key stays in the user's configuration folder."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import typer

from pipeline.cohort.errors import CohortError

KEY_ENVIRONMENT = "ARFL_PSEUDONYM_KEY"
APPLICATION = "arfl-mammography"
KEY_NAME = "pseudonym.key"
KEY_BYTES = 32  # as long as the output of SHA-256 (RFC 2104, section 3)
PSEUDONYM_BYTES = 10  # 80 bits: among a million patients two meet with a chance of 4e-13


class PseudonymKeyError(CohortError):
    """The key of the pseudonyms cannot be used: unreadable, damaged, open to others, or kept in a bad place."""


class Kind(StrEnum):
    """What a pseudonym stands for; its first letter. The same text gives unlike pseudonyms for unlike kinds."""

    PATIENT = "p"
    STUDY = "s"
    FILE = "f"


class Pseudonyms:
    """Pseudonyms with one key: HMAC-SHA-256 (RFC 2104) of kind and text, 80 bits of it in base32.

    Without the key nobody can list all ids of a hospital and compare, which a plain hash would allow.

    Args:
        key: secret bytes, at least 32.

    Raises:
        PseudonymKeyError: the key is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise PseudonymKeyError(f"the pseudonym key has {len(key)} bytes, at least {KEY_BYTES} are needed")
        self._key = key

    def __repr__(self) -> str:
        return f"Pseudonyms(fingerprint={self.fingerprint!r})"

    def __call__(self, kind: Kind, text: str) -> str:
        """Pseudonym such as ``p-k3v5x2...``; blanks around the text and its Unicode form do not matter."""
        normal = unicodedata.normalize("NFC", text.strip())
        return f"{kind.value}-{self._hash(f'{kind.value}:{normal}')}"

    @property
    def fingerprint(self) -> str:
        """Eight letters that tell keys apart and say nothing of them: equal pseudonyms need equal fingerprints."""
        return self._hash("fingerprint")[:8]

    def _hash(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return base64.b32encode(digest[:PSEUDONYM_BYTES]).decode().lower()


def key_path() -> Path:
    """Place of the key: environment variable ``ARFL_PSEUDONYM_KEY``, else the user's configuration folder."""
    named = os.environ.get(KEY_ENVIRONMENT)
    return Path(named).expanduser() if named else Path(typer.get_app_dir(APPLICATION)) / KEY_NAME


def open_pseudonyms(*, apart_from: Iterable[Path] = ()) -> Pseudonyms:
    """Read the key, or make it on first use (mode 0600, its new folder 0700).

    Args:
        apart_from: folders of images; the key may not lie below one.

    Raises:
        PseudonymKeyError: the key lies below such a folder or in a Git working tree, others may read it, it is damaged,
            or it can be neither read nor made.
    """
    path = key_path().absolute()
    place = path.parent.resolve()
    for folder in (place, *place.parents):
        if (folder / ".git").exists():
            raise _bad(path, "lies in a Git working tree, from where it could be published")
    for folder in apart_from:
        if place.is_relative_to(Path(folder).resolve()):
            raise _bad(path, "lies among the images, which may be passed on")
    try:
        if not path.exists():
            _make(path)
        _check_mode(path)
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path, f"can be neither read nor made ({type(error).__name__})") from error
    try:
        key = bytes.fromhex(text)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) < KEY_BYTES:
        raise _bad(path, f"is damaged: {2 * KEY_BYTES} hexadecimal digits are needed. Bring it back from a backup; ")
    return Pseudonyms(key)


def _bad(path: Path, problem: str) -> PseudonymKeyError:
    help_ = f"another place can be named by the environment variable {KEY_ENVIRONMENT}; another key, other pseudonyms"
    return PseudonymKeyError(f"the pseudonym key {path} {problem.rstrip('; ')}; {help_}")


def _check_mode(path: Path) -> None:
    others = stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    if os.name == "posix" and others:
        raise _bad(path, f"is open to other users (run: chmod 600 '{path}')")


def _make(path: Path) -> None:
    """Write a new key under a temporary name and link it: of two first uses at once, one key wins for both."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(KEY_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        os.unlink(temporary)
