"""Writes small DICOM radiographs for tests: any transfer syntax that has an encoder, any header."""

from __future__ import annotations

import tempfile
from io import BytesIO
from typing import Any

import cv2
import gdcm
import jpeg_ls
import numpy as np
from openjpeg.utils import encode_array
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filewriter import dcmwrite

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


def chest(height: int = 300, width: int = 280, top: int = 4095) -> np.ndarray:
    """A crude frontal chest, 0..top as uint16: dark lungs, bright spine, heart and abdomen, some grain."""
    y, x = (np.mgrid[0:height, 0:width] + 0.5) / np.array([height, width]).reshape(2, 1, 1)
    image = np.full((height, width), 0.62)
    for side in (-1, 1):
        lung = ((x - 0.5 - side * 0.21) / 0.15) ** 2 + ((y - 0.44) / 0.3) ** 2
        image -= 0.45 / (1 + np.exp(12 * (lung - 1)))
    image += 0.2 * np.exp(-(((x - 0.5) / 0.07) ** 2))
    image += 0.25 / (1 + np.exp(-30 * (y - 0.78)))
    image += 0.2 * np.exp(-(((x - 0.58) / 0.12) ** 2) - ((y - 0.6) / 0.14) ** 2)
    image += 0.02 * np.random.default_rng(0).normal(size=image.shape)
    return (np.clip(image, 0.01, 1) * top).astype(np.uint16)


def header(**changes: Any) -> Dataset:
    """A complete frontal chest header without pixels; ``changes`` by keyword, None deletes."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyDate = "20200131"
    ds.AccessionNumber = "A1"
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.StudyDescription = "Chest PA"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P1"
    ds.PatientSex = "F"
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = "PA"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.1"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    _apply(ds, changes)
    return ds


def _apply(ds: Dataset, changes: dict[str, Any]) -> None:
    for keyword, value in changes.items():
        if value is None:
            if keyword in ds:
                del ds[keyword]
        else:
            setattr(ds, keyword, value)


def dataset(pixels: np.ndarray, bits: int = 12, *, signed: bool = False, **changes: Any) -> Dataset:
    """Header and native little-endian pixels. ``pixels`` are the values; unsigned 8 or any 16-bit
    integers.
    """
    ds = header()
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(signed)
    kind = f"<{'i' if signed else 'u'}{ds.BitsAllocated // 8}"
    ds.PixelData = pixels.astype(kind).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    _apply(ds, changes)
    return ds


def write(ds: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """The file's bytes, pixels compressed if the syntax asks for it."""
    ds = Dataset(ds)
    syntax = uid.UID(syntax)
    if syntax.is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
        dtype = np.dtype(f"{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}")
        values = np.frombuffer(ds.PixelData, dtype, count=ds.Rows * ds.Columns).reshape(ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([encode(values, ds.BitsStored, syntax)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    elif "PixelData" in ds:
        ds["PixelData"].VR = "OW" if ds.get("BitsAllocated") == 16 else "OB"
        if syntax == uid.ExplicitVRBigEndian and ds.BitsAllocated == 16:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2") or "1.2"
    out = BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def encode(values: np.ndarray, bits: int, syntax: str) -> bytes:
    """One compressed frame. Lossy syntaxes are encoded at their best quality."""
    if syntax == uid.RLELossless:
        return _rle(values)
    if syntax == uid.JPEGBaseline8Bit:
        return cv2.imencode(".jpg", values, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        raw = values.astype("<u2" if values.dtype.itemsize == 2 else "u1") & ((1 << bits) - 1)
        near = 0 if syntax == uid.JPEGLSLossless else 2
        return bytes(jpeg_ls.encode_array(raw, lossy_error=near))
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        options = {} if syntax == uid.JPEG2000Lossless else {"compression_ratios": [4]}
        return bytes(
            encode_array(
                values,
                bits_stored=bits,
                photometric_interpretation=2,
                use_mct=False,
                codec_format=0,
                **options,
            )
        )
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return _with_gdcm(values, bits, syntax)
    raise NotImplementedError(syntax)


def _rle(values: np.ndarray) -> bytes:
    """PS3.5 Annex G, written out: one segment a byte plane, the most significant first."""
    planes = values.astype(values.dtype.newbyteorder(">")).view(np.uint8).reshape(*values.shape, -1)
    segments = []
    for plane in range(planes.shape[2]):
        segment = bytearray()
        for row in planes[:, :, plane]:
            row, at = row.tobytes(), 0
            while at < len(row):
                run = 1
                while run < 128 and at + run < len(row) and row[at + run] == row[at]:
                    run += 1
                if run > 2:
                    segment += bytes([257 - run, row[at]])
                    at += run
                    continue
                end = at + 1
                while end < len(row) and end - at < 128 and row[end : end + 3] != row[end : end + 1] * 3:
                    end += 1
                segment += bytes([end - at - 1]) + row[at:end]
                at = end
        segments.append(bytes(segment) + b"\0" * (len(segment) % 2))
    offsets = 64 + np.cumsum([0, *[len(s) for s in segments[:-1]]])
    head = np.zeros(16, "<u4")
    head[0], head[1 : 1 + len(segments)] = len(segments), offsets
    return head.tobytes() + b"".join(segments)


def _with_gdcm(values: np.ndarray, bits: int, syntax: str) -> bytes:
    """GDCM transcodes files: an image object made in Python and handed to it would be freed twice."""
    plain = dataset(values, bits, signed=values.dtype.kind == "i")
    with tempfile.NamedTemporaryFile(suffix=".dcm") as before, tempfile.NamedTemporaryFile() as after:
        before.write(write(plain))
        before.flush()
        reader = gdcm.ImageReader()
        reader.SetFileName(before.name)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change(), "gdcm cannot encode"
        writer = gdcm.ImageWriter()
        writer.SetFileName(after.name)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return next(generate_frames(dcmread(after.name).PixelData, number_of_frames=1))
