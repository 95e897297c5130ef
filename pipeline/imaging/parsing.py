"""Parsing a DICOM file of any content in bounded time and memory, silently."""

from __future__ import annotations

import contextvars
import io
import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO, cast

import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble, read_sequence

from pipeline.imaging.refusal import Refusal, RefusalCode

MEBI = 2**20

READS_PER_ELEMENT = 2
"""Reads that pydicom makes for most data elements: tag, VR and length; value."""

CHECKED_SEQUENCE = 64 * 1024
"""Bytes of a sequence value up to which it is harmless unparsed: at most 8,192 empty items of a kilobyte each."""

RUST_PANIC = "PanicException"
"""What decoders written in Rust raise (pyo3); no ``Exception``, and its class cannot be imported."""

_reading: contextvars.ContextVar[bool] = contextvars.ContextVar("reading", default=False)
_shown_to: contextvars.ContextVar[Callable[[Dataset], None] | None] = contextvars.ContextVar("shown_to", default=None)
logging.getLogger("pydicom").addFilter(lambda record: not _reading.get())


@dataclass(frozen=True)
class Limits:
    """What a file may cost.

    Args:
        file_bytes: size of a file, and of its inflated content; the largest mammograms (6000 x 5000 x 16 bit) have
            60 MB.
        pixels: rows x columns; twice the 30 million of the largest mammograms.
        elements: data elements and items in a header; a mammogram has some hundred, one with a frame per
            slice some thousand.
    """

    file_bytes: int = 256 * MEBI
    pixels: int = 64 * MEBI
    elements: int = 10_000


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the warnings and log lines of parsers away: they quote a file's text, which may be personal."""
    token = _reading.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _reading.reset(token)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file of any content is read into a refusal, in silence.

    Parsers and converters of values fail in many ways on bytes that are not what they say; the error's own text may
    quote them, so only its type is told, and it is not the refusal's cause.

    Args:
        what: name of the file's kind, for the reason.

    Raises:
        Refusal: ``too_deep``, ``out_of_memory`` or ``unreadable``; a refusal passes as it is, without its cause.
    """
    with silenced():
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != RUST_PANIC:
                raise
            raise _refusal_for(error, what) from None  # a traceback would print the error's text


def _refusal_for(error: BaseException, what: str) -> Refusal:
    """What the first cause of an error means; pydicom raises another error over any that it meets in a sequence."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 32:
        chain.append(before)
    for link in chain:
        if isinstance(link, Refusal):
            return Refusal(link.code, link.reason, link.where)
        if isinstance(link, RecursionError):
            return Refusal(RefusalCode.TOO_DEEP, "sequences hundreds deep in each other; a mammogram has few")
        if isinstance(link, MemoryError):
            return Refusal(RefusalCode.OUT_OF_MEMORY, "reading takes more memory than this process may use")
        if isinstance(link, InvalidDicomError):
            return Refusal(RefusalCode.UNREADABLE, "neither DICOM (no DICM marker) nor PNG")
    return Refusal(RefusalCode.UNREADABLE, f"the {what} is damaged ({type(error).__name__})")


class _Metered:
    """A stream that counts the reads of a parser, so that a header of millions of elements ends early."""

    def __init__(self, raw: Any, *, size: int, limits: Limits) -> None:
        self._stream = io.BufferedReader(raw)
        self._size = size
        self._elements = limits.elements
        self._left = limits.elements * READS_PER_ELEMENT
        self.seek, self.tell, self.close = self._stream.seek, self._stream.tell, self._stream.close

    def read(self, size: int = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Refusal(
                RefusalCode.TOO_LARGE,
                f"the header holds more than {self._elements:,} data elements; a mammogram has some hundred",
            )
        if size < 0:  # pydicom asks for all only to inflate it, which is done here, by pieces
            raise Refusal(RefusalCode.UNREADABLE, "the file meta information names two transfer syntaxes")
        if size > MEBI:  # a length beyond the end of the file must not claim its memory
            size = min(size, max(self._size - self.tell(), 0))
        return self._stream.read(size)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self._stream.read()


def open_dataset(
    path: str | PathLike[str],
    *,
    limits: Limits | None = None,
    header_only: bool = False,
    tags: Sequence[str] | None = None,
) -> Dataset:
    """Parse a DICOM file of any content, in bounded time and memory, in place of ``pydicom.dcmread``.

    A deflated data set (PS3.5 A.5) is inflated by pieces first, and only then as a whole. The number of data elements,
    the depth of sequences and the size are bounded.

    Args:
        path: the file.
        limits: what the file may cost; None for the defaults.
        header_only: stop before the pixels; the size of the file does not count then.
        tags: keep only these keywords.

    Returns:
        The data set with ``file_meta``; values are still raw, and fail where they are asked for.

    Raises:
        Refusal: ``unreadable``, ``too_large``, ``too_deep``, ``out_of_memory``, or ``missing_file`` for what is no
            regular file.
    """
    limits = limits or Limits()
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe waits for ever
        raise Refusal(RefusalCode.MISSING_FILE, "no regular file, but a folder, pipe, socket or device; leave it out")
    with refusing("DICOM file"), open(path, "rb", buffering=0) as raw:
        size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        if size > limits.file_bytes and not header_only:
            raise Refusal(
                RefusalCode.TOO_LARGE,
                f"the file has {size / MEBI:,.0f} MiB; at most {limits.file_bytes / MEBI:,.0f} MiB are read",
            )
        stream = _Metered(raw, size=size, limits=limits)
        dataset = _parsed(stream, limits, _at_pixels if header_only else None, tags)
        _check_sequences(dataset, limits)
    if not header_only and tags is None and (show := _shown_to.get()) is not None:
        show(dataset)
    return dataset


@contextmanager
def showing(show: Callable[[Dataset], None]) -> Iterator[None]:
    """Within, every whole data set that is parsed is shown to a function, so that no file need be parsed twice."""
    token = _shown_to.set(show)
    try:
        yield
    finally:
        _shown_to.reset(token)


def _at_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) in (0x7FE00008, 0x7FE00009, 0x7FE00010)


def _parsed(stream: _Metered, limits: Limits, stop: Any, tags: Sequence[str] | None) -> Dataset:
    file = cast(BinaryIO, stream)
    read_preamble(file, False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        dataset = pydicom.dcmread(
            file,
            stop_before_pixels=stop is not None,
            specific_tags=None if tags is None else list(tags),
        )
        return dataset
    content = _inflated(stream.rest(), limits)
    inner = cast(BinaryIO, _Metered(io.BytesIO(content), size=len(content), limits=limits))
    keep = None if tags is None else [pydicom.datadict.tag_for_keyword(name) or 0 for name in tags]
    found = read_dataset(inner, False, True, stop_when=stop, specific_tags=cast(Any, keep))
    found.file_meta = pydicom.dataset.FileMetaDataset(meta)
    found.set_original_encoding(False, True, found.original_character_set)
    return found


def _inflated(content: bytes, limits: Limits) -> bytes:
    """Inflate raw deflate data; it is counted piece by piece before it is kept."""
    counter, length, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, content
    while not counter.eof:
        piece = len(counter.decompress(rest, MEBI))
        rest = counter.unconsumed_tail
        length += piece
        if length > limits.file_bytes:
            raise Refusal(
                RefusalCode.TOO_LARGE,
                f"the deflated data set grows beyond {limits.file_bytes / MEBI:,.0f} MiB, from {len(content):,} bytes",
            )
        if not piece and not rest:
            raise Refusal(RefusalCode.UNREADABLE, "the deflated data set ends early; fetch the file again")
    return zlib.decompress(content, -zlib.MAX_WBITS)


def _check_sequences(dataset: Dataset, limits: Limits) -> None:
    """Count what lies in long sequences of known length, which pydicom parses only when they are asked for."""
    waiting = [dataset]
    while waiting:
        for element in waiting.pop().values():
            if isinstance(element, RawDataElement):
                value = element.value
                if not isinstance(value, bytes) or len(value) <= CHECKED_SEQUENCE or not _is_sequence(element):
                    continue
                stream = cast(BinaryIO, _Metered(io.BytesIO(value), size=len(value), limits=limits))
                items: Any = read_sequence(
                    stream, element.is_implicit_VR, element.is_little_endian, len(value), "iso8859"
                )
            else:
                items = element.value if element.VR == "SQ" else ()
            waiting.extend(items or ())


def _is_sequence(element: RawDataElement) -> bool:
    if element.VR not in (None, "UN"):
        return element.VR == "SQ"
    return pydicom.datadict.dictionary_has_tag(element.tag) and pydicom.datadict.dictionary_VR(element.tag) == "SQ"
