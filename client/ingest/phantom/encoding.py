"""Stored values of one film into a transfer syntax."""

from __future__ import annotations

import cv2
import gdcm
import numpy as np
from openjpeg.utils import encode_pixel_data
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from client.ingest.phantom.habits import Syntax

UIDS: dict[Syntax, uid.UID] = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG": uid.JPEGBaseline8Bit,
    "JPEG lossless": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
    "JPEG 2000 lossy": uid.JPEG2000,
}
LOSSY = ("JPEG", "JPEG 2000 lossy")


def put_pixels(dataset: Dataset, stored: np.ndarray, syntax: Syntax) -> None:
    """Set PixelData from ``stored`` (uint8, uint16 or int16 [H, W]) for ``syntax``.

    The other image attributes must stand in ``dataset`` already. JPEG takes 8 bits only.
    """
    if syntax in ("implicit", "explicit", "big endian", "deflated"):
        order = ">" if syntax == "big endian" else "<"
        raw = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 or syntax == "implicit" else "OB"
        return
    if syntax == "JPEG":
        code = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    elif syntax.startswith("JPEG 2000"):
        code = encode_pixel_data(
            stored.astype(stored.dtype.newbyteorder("<")).tobytes(),
            rows=dataset.Rows,
            columns=dataset.Columns,
            samples_per_pixel=1,
            bits_stored=dataset.BitsStored,
            photometric_interpretation=dataset.PhotometricInterpretation,
            pixel_representation=dataset.PixelRepresentation,
            **({"compression_ratios": [8.0]} if syntax == "JPEG 2000 lossy" else {}),
        )
    else:
        code = _by_gdcm(dataset, stored, UIDS[syntax])
    dataset.PixelData = encapsulate([code])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"


def _by_gdcm(dataset: Dataset, stored: np.ndarray, syntax: uid.UID) -> bytes:
    """One frame as RLE, JPEG lossless or JPEG-LS."""
    writer = gdcm.ImageWriter()  # owns the image: must outlive it
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    kind = gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    bits = (dataset.BitsAllocated, dataset.BitsStored, dataset.BitsStored - 1, dataset.PixelRepresentation)
    image.SetPixelFormat(gdcm.PixelFormat(1, *bits))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(stored.astype(stored.dtype.newbyteorder("<")).tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"GDCM could not encode {dataset.Rows} x {dataset.Columns} as {syntax.name}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    parts = [fragments.GetFragment(k) for k in range(fragments.GetNumberOfFragments())]
    return b"".join(p.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape") for p in parts)
