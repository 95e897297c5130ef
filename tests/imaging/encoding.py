"""Compressed test images: any stored picture in any transfer syntax in which mammograms occur."""

from __future__ import annotations

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder

from .scenes import mammogram_dataset

LOSSLESS = (
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
)
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


def codestream(stored: np.ndarray, syntax: str, *, bits: int) -> bytes:
    """One frame of stored values (H, W) in a compressed syntax; the lossy ones as good as they get."""
    unsigned = stored.view(f"u{stored.dtype.itemsize}") & (2**bits - 1)  # JPEG's numbers have no sign
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        predictor = 1 if syntax == uid.JPEGLosslessSV1 else 4
        return imagecodecs.jpeg8_encode(unsigned, lossless=True, bitspersample=bits, predictor=predictor)
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        return imagecodecs.jpeg8_encode(unsigned, level=100, bitspersample=bits)
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        return imagecodecs.jpegls_encode(unsigned, level=0 if syntax == uid.JPEGLSLossless else 1)
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        exact = {"reversible": True, "level": 0} if syntax == uid.JPEG2000Lossless else {"level": 90}
        return imagecodecs.jpeg2k_encode(stored, codecformat="j2k", bitspersample=bits, **exact)
    if syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K):
        exact = {"reversible": True} if syntax != uid.HTJ2K else {"reversible": False, "level": 2**-16}
        return imagecodecs.htj2k_encode(stored, **exact)
    settings = {
        "rows": stored.shape[0],
        "columns": stored.shape[1],
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": 8 * stored.dtype.itemsize,
        "bits_stored": bits,
        "pixel_representation": int(stored.dtype.kind == "i"),
        "photometric_interpretation": "MONOCHROME2",
    }
    return get_encoder(uid.UID(syntax)).encode(stored.tobytes(), encoding_plugin="pydicom", **settings)


def encoded_dataset(stored: np.ndarray, syntax: str, *, bits: int, fragments: int = 1, **tags: object) -> Dataset:
    """A For Presentation object of stored values (H, W) in any syntax."""
    allocated = 8 * stored.dtype.itemsize
    depth = {"BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1}
    dataset = mammogram_dataset(stored, PixelRepresentation=int(stored.dtype.kind == "i"), **depth, **tags)
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    if syntax in NATIVE:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    else:
        dataset.PixelData = encapsulate([codestream(stored, syntax, bits=bits)], fragments_per_frame=fragments)
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset
