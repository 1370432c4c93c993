"""From a DICOM file to the model's input: reference vector, polarity, syntaxes, bits, padding."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from client.ingest.codecs import NATIVE, PREFERENCE
from client.ingest.codes import Reason
from client.ingest.decode import DecodeConfig, Decoded, decode
from client.ingest.framing import Framing, crop, resize
from client.ingest.grey import Intensity, grey_table, levels_of
from client.ingest.limits import Limits
from client.ingest.part10 import open_source
from client.ingest.pixels import read_layout, read_stored
from client.ingest.polarity import Polarity
from client.ingest.refusal import Refusal
from client.ingest.voi import Rescale
from models.config import build
from tests.client.ingest.dicom.maker import chest, dataset, write

LOSSLESS = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
)
LOSSY = {uid.JPEGBaseline8Bit: 3, uid.JPEGLSNearLossless: 2, uid.JPEG2000: 100}
"""With the largest error that their settings here may make, in stored values."""


def config(intensity: dict[str, Any] | None = None, **framing: Any) -> DecodeConfig:
    return build(DecodeConfig, {"intensity": intensity or {}, "framing": framing})


def as_is(**intensity: Any) -> DecodeConfig:
    """No crop; the images of these tests are 512 pixels short, so that they are not resized either."""
    return config(intensity, crop=False)


def run(ds: Dataset, options: DecodeConfig | None = None, syntax: str = uid.ExplicitVRLittleEndian) -> Decoded:
    return decode(write(ds, syntax), options)


def ramp(values: np.ndarray) -> np.ndarray:
    """A 512 x 512 image that holds ``values`` in its columns."""
    return np.tile(np.resize(values, 512), (512, 1))


@pytest.mark.parametrize(
    ("window", "mean", "resized_mean"), [("statistics", 94.5652, 135.128), ("none", 94.4781, 134.962)]
)
def test_reference_vector(window: str, mean: float, resized_mean: float) -> None:
    """The published pre-processing (tests of a second implementation agree to all digits given)."""
    image = np.zeros((1200, 1000))
    rows, columns = np.mgrid[0:1000, 0:840]
    image[100:1100, 80:920] = 200 + 3000 * (rows + columns) / 1838
    levels, place, counts = np.unique(image, return_inverse=True, return_counts=True)
    greys = grey_table(
        levels,
        counts,
        padding=np.zeros(len(levels), bool),
        modality=Rescale(),
        vois=[],
        polarity=Polarity(False, ()),
        intensity=build(Intensity, {"window": window}),
    )
    grey = greys.table[place].reshape(image.shape)
    assert grey.mean() == pytest.approx(mean, abs=5e-5)
    cropped, record = crop(grey, Framing())
    assert cropped.shape == (1000, 840) and record["crop_box"] == [100, 80, 1100, 920]
    small, _ = resize(cropped, 1.0, Framing())
    assert small.shape == (609, 512)
    assert small.mean() == pytest.approx(resized_mean, abs=5e-4)


def test_reference_vector_through_a_file() -> None:
    """The same in whole numbers, as a 12-bit file: the whole path within the error of rounding the input."""
    image = np.zeros((1200, 1000))
    rows, columns = np.mgrid[0:1000, 0:840]
    image[100:1100, 80:920] = np.round(200 + 3000 * (rows + columns) / 1838)
    result = run(dataset(image), config({"window": "statistics"}))
    assert result.pixels.shape == (609, 512)
    assert result.pixels.mean() == pytest.approx(135.128, abs=0.05)


@pytest.mark.parametrize(
    ("photometric", "shape", "slope"),
    list(itertools.product(("MONOCHROME1", "MONOCHROME2"), (None, "IDENTITY", "INVERSE"), (1, -1))),
)
def test_twelve_polarities(photometric: str, shape: str | None, slope: int) -> None:
    """One decision, from the photometric interpretation; a negative slope turns values before it."""
    stored = ramp(np.arange(0, 4096, 8))
    intercept = 0 if slope > 0 else 4095
    ds = dataset(
        stored,
        PhotometricInterpretation=photometric,
        PresentationLUTShape=shape,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    result = run(ds, as_is())
    rises = bool(result.pixels[0, -1] > result.pixels[0, 0])
    assert rises == ((photometric == "MONOCHROME2") == (slope > 0))
    contradiction = (photometric, shape) in [("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")]
    assert ("polarity_contradicts_shape" in result.flags) == contradiction
    assert ("negative_slope" in result.flags) == (slope < 0)
    assert result.applied["inverted"] == (photometric == "MONOCHROME1")


def test_voi_comes_before_inversion() -> None:
    """An off-centre window: inverted first, it would cut at the other end."""
    stored = ramp(np.arange(0, 4096, 8))
    window = {"WindowCenter": 512, "WindowWidth": 1024}
    plain = run(dataset(stored, **window), as_is()).pixels
    turned = run(dataset(stored, PhotometricInterpretation="MONOCHROME1", **window), as_is()).pixels
    assert np.abs(plain.astype(int) + turned - 255).max() <= 1
    assert (turned[0] > 0).sum() == pytest.approx(128, abs=2)  # the window covers a quarter of the ramp


def stored_values(data: bytes) -> np.ndarray:
    source = open_source(data, Limits())
    layout, _ = read_layout(source, Limits())
    words, _ = read_stored(source, layout)
    levels = levels_of(shift=layout.shift, bits=layout.stored, signed=layout.signed)
    return levels[words & (len(levels) - 1)]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_every_value_back(syntax: str, bits: int, signed: bool) -> None:
    values = chest(top=(1 << bits) - 1).astype(np.int64)
    values[0, :2] = 0, (1 << bits) - 1
    if signed:
        values -= 1 << (bits - 1)
    np.testing.assert_array_equal(stored_values(write(dataset(values, bits, signed=signed), syntax)), values)


@pytest.mark.parametrize("syntax", LOSSY)
def test_lossy_syntaxes_stay_close(syntax: str) -> None:
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    values = chest(top=(1 << bits) - 1)
    got = stored_values(write(dataset(values, bits), syntax))
    assert 0 < np.abs(got - values.astype(int)).max() <= LOSSY[syntax]


def test_jpeg_extended_with_8_bits() -> None:
    values = chest(top=255)
    data = write(dataset(values, 8), uid.JPEGBaseline8Bit)
    data = data.replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.51")
    assert np.abs(stored_values(data) - values.astype(int)).max() <= LOSSY[uid.JPEGBaseline8Bit]


def test_every_syntax_has_a_permissive_decoder() -> None:
    for plugins in PREFERENCE.values():
        assert set(plugins) <= {"gdcm", "pyjpegls", "openjpeg", "rle", "pillow", "pydicom"}
    untested = set(PREFERENCE) - set(LOSSLESS) - set(LOSSY) - {uid.JPEGExtended12Bit}
    # No encoder of these exists among the test's libraries; a real file is read in test_real.py.
    assert untested == {uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K}
    assert set(NATIVE) <= set(LOSSLESS)


def test_a_stream_over_several_fragments() -> None:
    from tests.client.ingest.dicom.maker import encode
    from tests.faults.hostile_dicom import compressed, fragments

    code = encode(chest(), 12, uid.JPEG2000Lossless)
    cut = [code[at : at + 5000] for at in range(0, len(code), 5000)]
    assert len(cut) > 3
    data = compressed(uid.JPEG2000Lossless, fragments(*cut, table=b"\0\0\0\0"))
    np.testing.assert_array_equal(stored_values(data), chest())
    without_end = compressed(uid.JPEG2000Lossless, fragments(*cut, end=False))
    np.testing.assert_array_equal(stored_values(without_end), chest())


def test_left_aligned_bits() -> None:
    values = chest()
    ds = dataset(values.astype(np.uint16) << 4, 12, HighBit=15)
    np.testing.assert_array_equal(stored_values(write(ds)), values)


def test_high_bit_of_a_codestream_is_ignored() -> None:
    plain = decode(write(dataset(chest()), uid.JPEGLSLossless))
    odd = decode(write(dataset(chest(), HighBit=15), uid.JPEGLSLossless))
    np.testing.assert_array_equal(odd.pixels, plain.pixels)
    assert "high_bit_ignored" in odd.applied["notes"]


def test_bits_beyond_the_stored_ones_are_dropped_and_reported() -> None:
    values = chest()
    plain = run(dataset(values))
    dirty = values.astype(np.uint16)
    dirty[::4, 50:60] |= 0xF000
    result = run(dataset(dirty))
    np.testing.assert_array_equal(result.pixels, plain.pixels)
    assert "unused_bits_set" in result.flags and not plain.flags
    overlay = dataset(dirty)
    overlay.add_new(0x60000102, "US", 12)
    assert run(overlay).flags == ()  # explained


def test_sign_extension_is_not_dirt() -> None:
    values = chest().astype(np.int64) - 2048
    result = run(dataset(values, 12, signed=True))
    assert result.flags == ()
    np.testing.assert_array_equal(result.pixels, run(dataset(chest())).pixels)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_bit_depth_does_not_change_the_picture(bits: int) -> None:
    fine = chest(600, 560, 65535)
    expected = run(dataset(fine, 16)).pixels
    got = run(dataset(fine >> (16 - bits), bits)).pixels
    assert np.abs(got.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_value_and_range(photometric: str, signed: bool) -> None:
    offset = 2048 if signed else 0
    values = np.clip(chest(600, 560), 300, 3000).astype(np.int64)
    values = (3300 - values if photometric == "MONOCHROME1" else values) - offset
    values[:, :30], values[:, -20:] = 4000 - offset, 4090 - offset
    ds = dataset(
        values,
        signed=signed,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=4000 - offset,
        PixelPaddingRangeLimit=4095 - offset,
    )
    result = run(ds)
    alone = run(dataset(values[:, 30:-20], signed=signed, PhotometricInterpretation=photometric))
    assert result.applied["padding_share"] == pytest.approx(50 / 560, abs=1e-4)
    # Cropped by its blackness: what is left is the picture without its padding, give or take the darkest
    # grey.
    assert result.pixels.shape == alone.pixels.shape
    assert np.abs(result.pixels.astype(int) - alone.pixels).max() <= 1


def test_padding_written_with_the_wrong_sign() -> None:
    values = chest().astype(np.int64) - 2048
    values[:, :20] = -2000
    ds = dataset(values, signed=True)
    ds.add_new("PixelPaddingValue", "US", 0x10000 - 2000)
    assert run(ds).applied["padding_share"] == pytest.approx(20 / 280, abs=1e-4)


def test_window_of_the_header_needs_no_exact_counts_but_falls_back_to_them() -> None:
    """Rows that the quick count skips must not be lost when the window turns out to be useless."""
    values = np.tile(np.arange(512) % 64 + 1000, (512, 1))
    values[1, 0], values[2, 0] = 0, 4095  # only in rows that sampling skips
    useless = run(dataset(values, WindowCenter=60000, WindowWidth=10), as_is())
    none = run(dataset(values), as_is())
    np.testing.assert_array_equal(useless.pixels, none.pixels)
    assert useless.pixels.min() == 0 and useless.pixels.max() >= 254
    blank_in_sample = np.full((512, 512), 1000)
    blank_in_sample[1::4] = 1200
    assert np.ptp(run(dataset(blank_in_sample, WindowCenter=1100, WindowWidth=400), as_is()).pixels) > 50


def test_orientation_is_flagged_or_applied() -> None:
    values = chest(512, 512)
    standard = run(dataset(values)).pixels
    mirrored = dataset(values[:, ::-1], PatientOrientation=["R", "F"])
    flagged = run(mirrored)
    assert flagged.flags == ("orientation_mirror",) and flagged.applied["turned"] == "none"
    turned = run(mirrored, config(orientation="apply"))
    assert turned.flags == () and turned.applied["turned"] == "mirror"
    np.testing.assert_array_equal(turned.pixels, standard)
    sideways = dataset(np.rot90(values), PatientOrientation=["F", "R"], PixelSpacing=[0.1, 0.2])
    upright = run(sideways, config(orientation="apply"))
    reference = run(dataset(values, PixelSpacing=[0.2, 0.1]))
    assert upright.pixels.shape == reference.pixels.shape == (1024, 512)
    assert np.abs(upright.pixels.astype(int) - reference.pixels).max() <= 2


def test_modality_table_and_voi_table_through_a_file() -> None:
    import struct

    from pydicom.sequence import Sequence

    def table(entries: np.ndarray, bits: int) -> Sequence:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [len(entries), 0, bits])
        item.add_new("LUTData", "OW", struct.pack(f"<{len(entries)}H", *entries.tolist()))
        return Sequence([item])

    stored = ramp(np.arange(0, 256))
    square = (np.arange(256) ** 2 // 16).astype(np.uint16)  # 0..4064
    root = np.sqrt(np.arange(4096) * 4095).astype(np.uint16)
    ds = dataset(stored, 8)
    ds.ModalityLUTSequence, ds.VOILUTSequence = table(square, 12), table(root, 12)
    result = run(ds, as_is())
    want = [int(root[square[v]] / 4095 * 255) for v in range(256)]
    assert result.pixels[0, :256].tolist() == want
    assert (result.applied["modality"], result.applied["voi"]) == ("lut", "lut")
    for syntax in (uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian):
        if syntax == uid.ExplicitVRBigEndian:
            for sequence in (ds.ModalityLUTSequence, ds.VOILUTSequence):
                sequence[0].LUTData = np.frombuffer(sequence[0].LUTData, "<u2").astype(">u2").tobytes()
        else:
            for sequence in (ds.ModalityLUTSequence, ds.VOILUTSequence):
                sequence[0].LUTData = np.frombuffer(sequence[0].LUTData, ">u2").astype("<u2").tobytes()
        assert decode(write(ds, syntax), as_is()).pixels[0, :256].tolist() == want


def test_big_endian_bytes_in_words() -> None:
    """8-bit pixels may be written as OW: then every two change places. pydicom is the reference."""
    from io import BytesIO

    import pydicom

    values = chest(300, 281, 255)
    data = write(dataset(values, 8), uid.ExplicitVRBigEndian)
    np.testing.assert_array_equal(stored_values(data), values)
    at = data.rindex(b"\x7f\xe0\x00\x10OB")
    words = data[: at + 4] + b"OW" + data[at + 6 :]
    reference = pydicom.dcmread(BytesIO(words)).pixel_array
    assert not np.array_equal(reference, values)
    np.testing.assert_array_equal(stored_values(words), reference)


def test_same_picture_by_path(tmp_path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(write(dataset(chest())))
    np.testing.assert_array_equal(decode(path).pixels, decode(path.read_bytes()).pixels)
    with pytest.raises(Refusal) as caught:
        decode(path, limits=build(Limits, {"file_bytes": 1000}))
    assert caught.value.reason is Reason.TOO_LARGE


def test_options_change_the_picture() -> None:
    """A negative control: every option really reaches the pixels."""
    ds = dataset(np.pad(chest(700, 600), 40), WindowCenter=1500, WindowWidth=2500, PixelSpacing=[0.12, 0.1])
    plain = run(ds).pixels
    for options in (
        config({"voi": "ignore"}),
        config({"window": "statistics"}),
        config({"window": "statistics", "width": 2.0}),
        config({"voi": "ignore", "percentiles": (5, 95)}),
        config(crop=False),
        config(square_pixels=False),
        config(short_side=256),
    ):
        other = run(ds, options).pixels
        assert other.shape != plain.shape or np.abs(other.astype(int) - plain).mean() > 1


def test_resizing_matches_opencv_area_on_the_cropped_image() -> None:
    values = chest(1100, 900)
    result = run(dataset(values), config({"voi": "ignore"}))
    grey = ((values - values.min()) / (np.ptp(values) + 1e-6) * 255).astype(np.uint8)
    top, left, bottom, right = result.applied["crop_box"]
    size = (
        int((right - left) * 512 / min(bottom - top, right - left)),
        int((bottom - top) * 512 / (right - left)),
    )
    expected = cv2.resize(grey[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(result.pixels, expected)
