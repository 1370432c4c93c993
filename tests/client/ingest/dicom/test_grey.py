"""The grey table: statistics from counts against numpy on the pixels, padding, quantisation, polarity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from client.ingest.codes import Reason
from client.ingest.grey import Intensity, grey_table, histogram, levels_of, look_up
from client.ingest.polarity import Polarity
from client.ingest.refusal import Refusal
from client.ingest.voi import Rescale, Window
from models.config import ConfigError, build


def greys(image: np.ndarray, *, invert: bool = False, vois=(), padding=None, modality=None, **intensity: Any):
    """8-bit image of any array of values, worked out through its distinct values."""
    levels, place, counts = np.unique(image, return_inverse=True, return_counts=True)
    made = grey_table(
        levels,
        counts,
        padding=np.isin(levels, [] if padding is None else padding),
        modality=modality or Rescale(),
        vois=list(vois),
        polarity=Polarity(invert, ()),
        intensity=build(Intensity, intensity),
    )
    return made.table[place].reshape(image.shape), made.applied


def reference(image: np.ndarray, *, window: bool, centre=np.median, width: float = 4.0) -> np.ndarray:
    """The published recipe, on pixels: clip around the centre, min-max with epsilon, cut the fraction."""
    if window:
        c, s = centre(image), image.std()
        image = np.clip(image, c - width / 2 * s, c + width / 2 * s)
    return ((image - image.min()) / (image.max() - image.min() + 1e-6) * 255).astype(np.uint8)


@pytest.fixture(params=range(4))
def image(request: pytest.FixtureRequest) -> np.ndarray:
    rng = np.random.default_rng(request.param)
    size = (31 + request.param, 40)  # even and odd numbers of pixels: the median differs
    return np.round(rng.gamma(2, 300, size)) - 100 * request.param


@pytest.mark.parametrize("centre", ["median", "mean"])
@pytest.mark.parametrize("width", [1.0, 4.0])
def test_statistical_window(image: np.ndarray, centre: str, width: float) -> None:
    got, applied = greys(image, window="statistics", centre=centre, width=width)
    want = reference(image, window=True, centre=getattr(np, centre), width=width)
    np.testing.assert_array_equal(got, want)
    assert applied["window"] == "statistics"


def test_range(image: np.ndarray) -> None:
    np.testing.assert_array_equal(greys(image)[0], reference(image, window=False))


def test_percentiles_ignore_a_hot_pixel() -> None:
    image = np.tile(np.arange(100.0), (100, 1))
    image[0, 0] = 60_000
    assert greys(image)[0].max() == 254 and np.median(greys(image)[0]) == 0
    trimmed, _ = greys(image, percentiles=(1.0, 99.0))
    assert trimmed[50].tolist() == sorted(trimmed[50].tolist()) and np.median(trimmed) > 100
    low, high = np.percentile(image, (1, 99), method="lower")
    np.testing.assert_array_equal(trimmed, (np.clip((image - low) / (high - low + 1e-6), 0, 1) * 255).astype(np.uint8))


def test_padding_is_black_and_takes_no_part(image: np.ndarray) -> None:
    padded = image.copy()
    padded[:10] = -30_000
    for options in ({}, {"window": "statistics"}):
        for invert in (False, True):
            got, _ = greys(padded, padding=[-30_000], invert=invert, **options)
            alone, _ = greys(image[10:], invert=invert, **options)
            assert not got[:10].any()
            np.testing.assert_array_equal(got[10:], alone)


def test_header_window_fills_the_display_range() -> None:
    image = np.arange(0, 4096.0).reshape(64, 64)
    got, applied = greys(image, vois=[Window(2048, 1024)])
    assert applied["voi"] == "linear"
    want = np.clip((image - 2047.5) / 1023 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(got, want.astype(np.uint8))
    assert got.min() == 0 and got.max() == 255
    ignored, applied = greys(image, vois=[Window(2048, 1024)], voi="ignore")
    assert applied["voi"] == "none"
    np.testing.assert_array_equal(ignored, reference(image, window=False))


def test_window_beside_the_values_gives_way() -> None:
    image = np.arange(0, 256.0).reshape(16, 16)
    got, applied = greys(image, vois=[Window(50_000, 100), Window(128, 256)])
    assert applied["voi"] == "linear" and applied["voi_outside_values"]
    np.testing.assert_array_equal(got, greys(image, vois=[Window(128, 256)])[0])
    got, applied = greys(image, vois=[Window(50_000, 100)])
    assert applied["voi"] == "none"
    np.testing.assert_array_equal(got, greys(image)[0])


def test_inversion_mirrors_the_display_range() -> None:
    image = np.arange(0, 256.0).reshape(16, 16)
    for vois in ([], [Window(128, 100)]):
        plain, _ = greys(image, vois=vois)
        turned, _ = greys(image, vois=vois, invert=True)
        assert np.abs(plain.astype(int) + turned - 255).max() <= 2  # two fractions are cut off


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_is_blank(value: float) -> None:
    with pytest.raises(Refusal) as caught:
        greys(np.full((5, 5), value))
    assert caught.value.reason is Reason.BLANK_IMAGE


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_histogram_and_look_up(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    image = rng.integers(0, top, (50, 60), dtype=dtype, endpoint=True)
    np.testing.assert_array_equal(histogram(image), np.bincount(image.ravel(), minlength=top + 1))
    np.testing.assert_array_equal(histogram(image, 4), np.bincount(image[::4].ravel(), minlength=top + 1))
    table = rng.integers(0, 256, top + 1).astype(np.uint8)
    np.testing.assert_array_equal(look_up(image, table), table[image])
    np.testing.assert_array_equal(look_up(image[:, ::2], table), table[image[:, ::2]])
    np.testing.assert_array_equal(look_up(image, table[:64]), table[image % 64])
    monkeypatch.setattr("client.ingest.grey._WIDE_LUT", False)  # OpenCV 4
    np.testing.assert_array_equal(look_up(image, table), table[image])


def test_histogram_counts_exactly_beyond_the_precision_of_float32() -> None:
    image = np.zeros((4200, 4100), np.uint8)  # 17.2 million equal pixels; float32 stops at 16.8
    image[0, 0] = 1
    counts = histogram(image)
    assert counts[0] == image.size - 1 and counts[1] == 1


@pytest.mark.parametrize(("shift", "bits"), [(0, 8), (0, 12), (4, 12), (0, 16), (2, 6)])
@pytest.mark.parametrize("signed", [False, True])
def test_levels(shift: int, bits: int, signed: bool) -> None:
    """Against shifting bits one by one."""
    levels = levels_of(shift=shift, bits=bits, signed=signed)
    for word in range(0, 1 << 16, 977):
        value = (word >> shift) % (1 << bits)
        if signed and value & 1 << (bits - 1):
            value -= 1 << bits
        assert levels[word % len(levels)] == value


@pytest.mark.parametrize(
    "values",
    [{"width": 0}, {"percentiles": (5, 5)}, {"percentiles": (-1, 99)}, {"voi": "some"}, {"windows": 1}],
)
def test_bad_configuration(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(Intensity, values)
