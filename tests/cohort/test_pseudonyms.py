"""Facts about pseudonyms: the hash by its definition, and where its key may and may not lie."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cohort.pseudonyms import (
    KEY_ENVIRONMENT,
    Kind,
    PseudonymKeyError,
    Pseudonyms,
    key_path,
    open_pseudonyms,
)

KEY = bytes(range(32))
posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are checked on POSIX systems only")


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "private" / "key"
    monkeypatch.setenv(KEY_ENVIRONMENT, str(path))
    return path


def test_a_pseudonym_is_the_first_80_bits_of_hmac_sha_256_in_base32() -> None:
    digest = hmac.new(KEY, b"p:12345", hashlib.sha256).digest()
    assert Pseudonyms(KEY)(Kind.PATIENT, "12345") == "p-" + base64.b32encode(digest[:10]).decode().lower()


def test_sha_256_hmac_of_the_library_meets_the_published_vector() -> None:
    digest = hmac.digest(b"\x0b" * 20, b"Hi There", hashlib.sha256).hex()  # RFC 4231, test case 1
    assert digest == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"


@given(st.text(min_size=1), st.text(min_size=1))
def test_unlike_ids_have_unlike_pseudonyms_and_blanks_around_do_not_count(one: str, other: str) -> None:
    names = Pseudonyms(KEY)
    assert names(Kind.PATIENT, f" {one} ") == names(Kind.PATIENT, one)
    if one.strip().isascii() and other.strip().isascii():
        assert (names(Kind.PATIENT, one) == names(Kind.PATIENT, other)) == (one.strip() == other.strip())


def test_kinds_and_keys_give_unlike_pseudonyms() -> None:
    names, others = Pseudonyms(KEY), Pseudonyms(KEY[::-1])
    made = {each(kind, "1")[2:] for kind in Kind for each in (names, others)}
    assert len(made) == 6 and names.fingerprint != others.fingerprint
    assert KEY.hex() not in repr(names)


@posix
def test_the_key_is_made_on_first_use_for_its_owner_only_and_then_stays(key_file: Path) -> None:
    first = open_pseudonyms()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600 and stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    text = key_file.read_text()
    assert len(bytes.fromhex(text)) == 32 and open_pseudonyms().fingerprint == first.fingerprint
    assert key_file.read_text() == text and os.listdir(key_file.parent) == ["key"]


def test_two_first_uses_at_once_end_with_one_key(key_file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = {names.fingerprint for names in pool.map(lambda _: open_pseudonyms(), range(16))}
    assert len(found) == 1


def test_without_the_variable_the_key_lies_in_the_configuration_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere/config")
    path = key_path()
    assert path.name == "pseudonym.key" and path.parent.name == "arfl-mammography"
    if os.uname().sysname == "Linux":
        assert path.is_relative_to("/somewhere/config")


def test_a_key_below_the_images_or_in_a_git_working_tree_is_refused(key_file: Path, tmp_path: Path) -> None:
    with pytest.raises(PseudonymKeyError, match="among the images"):
        open_pseudonyms(apart_from=[tmp_path])
    (tmp_path / ".git").mkdir()
    with pytest.raises(PseudonymKeyError, match="Git working tree"):
        open_pseudonyms()
    assert not key_file.exists()


@posix
def test_a_key_open_to_others_is_refused(key_file: Path) -> None:
    open_pseudonyms()
    key_file.chmod(0o640)
    with pytest.raises(PseudonymKeyError, match="chmod 600"):
        open_pseudonyms()


@pytest.mark.parametrize("text", ["", "no hexadecimal digits", "00ff", "é"])
def test_a_damaged_key_is_an_error_and_never_replaced(key_file: Path, text: str) -> None:
    open_pseudonyms()
    key_file.write_text(text, encoding="utf-8")
    with pytest.raises(PseudonymKeyError, match=KEY_ENVIRONMENT):
        open_pseudonyms()
    assert key_file.read_text(encoding="utf-8") == text
