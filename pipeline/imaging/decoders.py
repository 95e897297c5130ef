"""Which decoders read which transfer syntax, the fastest correct one first; all of them have permissive licences."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import MappingProxyType
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from pipeline.imaging.codestream import rle_segments

IMAGECODECS = "imagecodecs"

PACKAGES = {
    IMAGECODECS: "imagecodecs",
    "gdcm": "python-gdcm",
    "pylibjpeg": "pylibjpeg-openjpeg, pylibjpeg-rle",
    "pillow": "pillow",
    "pydicom": "pydicom",
}
"""Name of a decoder -> what to install. pylibjpeg-libjpeg is GPL: never needed, and never tried."""

_JPEG = (IMAGECODECS, "gdcm")
_JPEG_LS = (IMAGECODECS, "gdcm")
_JPEG_2000 = (IMAGECODECS, "pylibjpeg", "pillow", "gdcm")
_HTJ2K = (IMAGECODECS, "pylibjpeg")

ORDER: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        uid.JPEGBaseline8Bit: _JPEG,
        uid.JPEGExtended12Bit: _JPEG,
        uid.JPEGLossless: _JPEG,
        uid.JPEGLosslessSV1: _JPEG,
        uid.JPEGLSLossless: _JPEG_LS,
        uid.JPEGLSNearLossless: _JPEG_LS,
        uid.JPEG2000Lossless: _JPEG_2000,
        uid.JPEG2000: _JPEG_2000,
        uid.HTJ2KLossless: _HTJ2K,
        uid.HTJ2KLosslessRPCL: _HTJ2K,
        uid.HTJ2K: _HTJ2K,
        uid.RLELossless: (IMAGECODECS, "pylibjpeg", "pydicom"),
    }
)
"""Transfer syntax -> its decoders, the fastest first, by seconds of one core for one real file:

* JPEG Lossless, GE, 3062 x 2394: imagecodecs (libjpeg-turbo) 0.03, gdcm 0.11;
* JPEG 2000, WG-04, 4664 x 3064: imagecodecs (OpenJPEG) 0.41, pylibjpeg 0.46, pillow 0.51, gdcm 0.69;
* RLE, CBIS-DDSM, 4432 x 2864: imagecodecs 0.02, pylibjpeg 0.03, pydicom 0.14.

JPEG 2000 is always decoded in full, though its lower resolutions cost less (WG-04: a half 0.17 s, a quarter 0.05 s).
Its low-pass filter is not the resize's: with the shift of the wavelet's grid undone, the WG-04 image prepared at 224
rows differs by up to 0.5 of 255 grey levels from a half and by up to 2.5 from a quarter, at 512 rows by 2.1 and 9.2.
A preparation that is replayed on the stored pixels, as attacks do, would no longer give the prepared image.
"""

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
"""Transfer syntaxes whose pixels are not compressed; deflate is undone where the data set is parsed."""

_CODECS = {
    **dict.fromkeys(
        (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), "jpeg8_decode"
    ),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "jpegls_decode"),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), "jpeg2k_decode"),
    **dict.fromkeys((uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), "htj2k_decode"),
    uid.RLELossless: "dicomrle_decode",
}

AS_STORED: Any = {"raw": True, "correct_unused_bits": False}
"""Options of pydicom's decoders: nothing is converted; what it does to unused bits overlooks High Bit."""

END_OF_IMAGE = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS, EOC of JPEG 2000 (ISO/IEC 10918-1, table B.1; 14495-1, C.1; 15444-1, A.4.4)."""


@functools.cache
def decoders_for(syntax: str) -> tuple[str, ...]:
    """Installed decoders of a transfer syntax, the fastest first; empty where there is none."""
    if syntax not in ORDER:
        return ()
    available = set(get_decoder(uid.UID(syntax)).available_plugins)
    codec = _CODECS.get(uid.UID(syntax))
    installed = codec is not None and importlib.util.find_spec(IMAGECODECS) is not None
    if installed and hasattr(importlib.import_module(IMAGECODECS), str(codec)):  # older ones lack HTJ2K
        available.add(IMAGECODECS)
    return tuple(name for name in ORDER[syntax] if name in available)


def load_decoders(syntax: str) -> None:
    """Import what decodes a transfer syntax: done before a process is forked for it, it is done once."""
    if IMAGECODECS in decoders_for(syntax):
        _codec(syntax)


def missing_packages(syntax: str) -> str:
    """Packages that would decode a transfer syntax; empty where none does."""
    return " or ".join(PACKAGES[name] for name in ORDER.get(syntax, ()))


def decode_frame(dataset: Dataset, decoder: str, frame: int = 0) -> np.ndarray:
    """Decode one frame with one decoder.

    Args:
        dataset: with compressed Pixel Data.
        decoder: one of :func:`decoders_for`.
        frame: index of the frame.

    Returns:
        Stored values (H, W), unsigned or signed as Pixel Representation says.

    Raises:
        Exception: whatever the decoder raises on damaged data, ``ValueError`` for a frame that is cut off.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax != uid.RLELossless or decoder == IMAGECODECS:
        whole = get_frame(dataset.PixelData, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        if syntax == uid.RLELossless:
            return _as_represented(_from_runs(whole, dataset), dataset)
        if END_OF_IMAGE not in whole[-64:]:  # libjpeg paints what is missing grey, and only warns
            raise ValueError("the codestream has no end")
        if decoder == IMAGECODECS:
            return _as_represented(_codec(syntax)(whole), dataset)
    pixels, _ = get_decoder(syntax).as_array(dataset, index=frame, decoding_plugin=decoder, **AS_STORED)
    return np.asarray(pixels)


@functools.cache
def _codec(syntax: str) -> Any:
    return getattr(importlib.import_module(IMAGECODECS), _CODECS[uid.UID(syntax)])


def _from_runs(whole: bytes, dataset: Dataset) -> np.ndarray:
    """Decode an RLE frame (PS3.5 annex G); imagecodecs trusts the offsets of its header, so they are checked here."""
    size = int(dataset.BitsAllocated) // 8
    if rle_segments(whole) != size:
        raise ValueError("the segments of the RLE frame are not those of the bits")
    shape = int(dataset.Rows), int(dataset.Columns)
    room = np.empty(shape[0] * shape[1] * size, dtype=np.uint8)
    filled = _codec(uid.RLELossless)(whole, dtype=f"<u{size}", out=room)  # no segment can be longer than its share
    if len(filled) != len(room):
        raise ValueError("a segment of the RLE frame is too short")
    return room.view(f"<u{size}").reshape(shape)


def _as_represented(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Give the codec's numbers the type of Pixel Representation; JPEG's are unsigned whatever they stand for."""
    allocated, signed = int(dataset.BitsAllocated), int(dataset.get("PixelRepresentation") or 0) == 1
    wide = pixels.astype(f"{pixels.dtype.kind}{max(allocated // 8, pixels.dtype.itemsize)}", copy=False)
    return wide.view(f"{'i' if signed else 'u'}{wide.dtype.itemsize}")
