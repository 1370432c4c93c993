"""Which decoder reads which transfer syntax, best first; none of them is under the GPL.

pydicom reaches the OpenJPEG and RLE extensions only through the ``pylibjpeg`` registry, which would also
load any other plug-in that happens to be installed. They are registered here directly, so that what decodes
an image is fixed by this table and not by the site's environment.
"""

from __future__ import annotations

import openjpeg
import rle
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder, DecodeRunner

PREFERENCE: dict[str, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: ("gdcm", "pillow"),
    uid.JPEGExtended12Bit: ("gdcm", "pillow"),  # 8 bits only: no permissive decoder reads the 12-bit process
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGLSLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    uid.JPEG2000Lossless: ("openjpeg", "gdcm"),
    uid.JPEG2000: ("openjpeg", "gdcm"),
    uid.HTJ2KLossless: ("openjpeg",),
    uid.HTJ2KLosslessRPCL: ("openjpeg",),
    uid.HTJ2K: ("openjpeg",),
    uid.RLELossless: ("rle", "pydicom"),
}

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)

DECODER_DEPENDENCIES = {
    syntax: (plugin,) for syntax, plugins in PREFERENCE.items() for plugin in plugins[:1] if plugin != "pydicom"
}
"""Asked for by pydicom's plug-in interface."""


def is_available(syntax: str) -> bool:
    """Asked for by pydicom's plug-in interface: both extensions were imported above."""
    return PREFERENCE.get(syntax, ("",))[0] in ("openjpeg", "rle")


def decode_openjpeg(code: bytes, runner: DecodeRunner) -> bytearray:
    """JPEG 2000 and HTJ2K, one grey frame."""
    frame = openjpeg.decode_pixel_data(code, version=2)
    # The container follows the precision of the codestream, not Bits Allocated.
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return frame


def decode_rle(code: bytes, runner: DecodeRunner) -> bytearray:
    """RLE Lossless, one grey frame."""
    return rle.decode_pixel_data(
        code, version=2, rows=runner.rows, columns=runner.columns, bits_allocated=runner.bits_allocated
    )


def decoder_for(syntax: str) -> Decoder:
    """pydicom's decoder with the plug-ins of :data:`PREFERENCE` at hand.

    Raises:
        NotImplementedError: for a syntax that pydicom does not know.
    """
    decoder = get_decoder(uid.UID(syntax))
    own = PREFERENCE.get(syntax, ("",))[0]
    if own in ("openjpeg", "rle") and own not in decoder.available_plugins:
        decoder.add_plugin(own, (__name__, f"decode_{own}"))
    return decoder
