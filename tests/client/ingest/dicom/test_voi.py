"""VOI and modality transformations against PS3.3 C.11, written out value by value."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.ingest.codes import Reason
from client.ingest.refusal import Refusal
from client.ingest.voi import Lut, Rescale, Window, read_modality, read_voi
from tests.client.ingest.dicom.maker import dataset

VALUES = [
    -5000.0,
    -1.0,
    0.0,
    0.49,
    0.5,
    1.0,
    99.5,
    100.0,
    127.0,
    128.0,
    150.25,
    151.0,
    2047.0,
    4095.0,
    65535.0,
]
WINDOWS = [
    (128.0, 256.0),
    (2048.0, 4096.0),
    (100.0, 1.0),
    (100.0, 2.0),
    (0.0, 100.0),
    (-300.5, 777.7),
    (40.0, 1e6),
]


def linear(x: float, c: float, w: float) -> float:
    """C.11.2.1.2.1 with an output of 0 to 1."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


def linear_exact(x: float, c: float, w: float) -> float:
    """C.11.2.1.3.2"""
    if x <= c - w / 2:
        return 0.0
    if x > c + w / 2:
        return 1.0
    return (x - c) / w + 0.5


def sigmoid(x: float, c: float, w: float) -> float:
    """C.11.2.1.3.1"""
    try:
        return 1.0 / (1.0 + math.exp(-4 * (x - c) / w))
    except OverflowError:
        return 0.0


@pytest.mark.parametrize(("centre", "width"), WINDOWS)
@pytest.mark.parametrize(
    ("kind", "reference"), [("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)]
)
def test_windows(kind, reference, centre: float, width: float) -> None:
    got = Window(centre, width, kind).apply(np.array(VALUES))
    want = [reference(x, centre, width) for x in VALUES]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_the_three_kinds_differ() -> None:
    x = np.array([100.0])
    results = {float(Window(128, 256, kind).apply(x)[0]) for kind in ("LINEAR", "LINEAR_EXACT", "SIGMOID")}
    assert len(results) == 3


@pytest.mark.parametrize(
    ("window", "usable"),
    [
        (Window(1, 1), True),
        (Window(1, 0.99), False),
        (Window(1, 0), False),
        (Window(1, -5), False),
        (Window(1, 0.5, "SIGMOID"), True),
        (Window(1, 0, "LINEAR_EXACT"), False),
        (Window(math.nan, 10), False),
        (Window(1, math.inf), False),
    ],
)
def test_unusable_windows(window: Window, usable: bool) -> None:
    assert window.usable is usable


def lut_reference(x: float, first: int, entries: list[int]) -> int:
    """C.11.1.1: below the first value mapped the first entry, beyond the last the last."""
    if x < first:
        return entries[0]
    if x >= first + len(entries):
        return entries[-1]
    return entries[int(x) - first]


@pytest.mark.parametrize("first", [-10, 0, 100])
def test_lut(first: int) -> None:
    entries = [3, 1, 4, 1, 5, 92, 65, 35]
    x = np.arange(first - 5, first + 15).astype(np.float64)
    got = Lut(first, np.array(entries, np.uint16), 8).apply(x)
    assert got.tolist() == [lut_reference(v, first, entries) for v in x]


def test_lut_display_range_is_that_of_the_bits_in_use() -> None:
    twelve_in_sixteen = Lut(0, np.array([0, 4095], np.uint16), 16)
    assert twelve_in_sixteen.display(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
    half = Lut(0, np.array([0, 40000], np.uint16), 16)
    assert half.display(np.array([1.0]))[0] == pytest.approx(40000 / 65535)


def lut_item(entries: list[int], first: int = 0, bits: int = 12, count: int | None = None) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) if count is None else count, first & 0xFFFF, bits])
    item.add_new("LUTData", "OW", struct.pack(f"<{len(entries)}H", *entries))
    return item


def test_reads_tables_first_then_windows_in_their_order() -> None:
    ds = Dataset()
    ds.VOILUTSequence = Sequence([lut_item([0, 10, 20])])
    ds.WindowCenter, ds.WindowWidth = [10, 20, 30], [0, 5, 6]
    ds.VOILUTFunction = "SIGMOID"
    found, notes = read_voi(ds, signed=False, little=True)
    assert isinstance(found[0], Lut)
    assert found[1:] == [Window(10, 0, "SIGMOID"), Window(20, 5, "SIGMOID"), Window(30, 6, "SIGMOID")][1:]
    assert notes == ["window_ignored"]


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        (struct.pack("<4H", 1, 2, 3, 4), "OW"),
        (struct.pack("<4B", 1, 2, 3, 4), "OW"),  # 8-bit entries, packed
        ([1, 2, 3, 4], "US"),
    ],
)
def test_lut_data_in_every_form(entries, kind: str) -> None:
    ds, item = Dataset(), Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 8])
    item.add_new("LUTData", kind, entries)
    ds.VOILUTSequence = Sequence([item])
    found, _ = read_voi(ds, signed=False, little=True)
    assert isinstance(found[0], Lut) and found[0].entries.tolist() == [1, 2, 3, 4]


def test_lut_of_65536_entries_is_stated_as_zero() -> None:
    ds = Dataset()
    ds.VOILUTSequence = Sequence([lut_item(list(range(65536)), bits=16, count=0)])
    found, _ = read_voi(ds, signed=False, little=True)
    assert isinstance(found[0], Lut) and len(found[0].entries) == 65536


def test_first_value_mapped_is_signed_with_the_pixels() -> None:
    ds = Dataset()
    ds.ModalityLUTSequence = Sequence([lut_item([5, 6, 7], first=-2048)])
    lut, _ = read_modality(ds, signed=True, little=True)
    assert isinstance(lut, Lut) and lut.first == -2048
    lut, _ = read_modality(ds, signed=False, little=True)
    assert isinstance(lut, Lut) and lut.first == 65536 - 2048


@pytest.mark.parametrize("item", [lut_item([1, 2], count=9), lut_item([7, 7]), lut_item([1, 2], bits=4), Dataset()])
def test_bad_tables(item: Dataset) -> None:
    ds = Dataset()
    ds.VOILUTSequence = Sequence([item])
    assert read_voi(ds, signed=False, little=True) == ([], ["voi_lut_ignored"])
    ds.ModalityLUTSequence = Sequence([item])
    with pytest.raises(Refusal) as caught:
        read_modality(ds, signed=False, little=True)
    assert caught.value.reason is Reason.BAD_HEADER


@pytest.mark.parametrize(
    ("slope", "intercept", "expected", "notes"),
    [
        (None, None, Rescale(1, 0), []),
        ("2.5", "-1024", Rescale(2.5, -1024), []),
        ("-1", "4095", Rescale(-1, 4095), []),
        ("0", "5", Rescale(), ["rescale_ignored"]),
        ("nan", "5", Rescale(), ["rescale_ignored"]),
    ],
)
def test_rescale(slope, intercept, expected: Rescale, notes: list[str]) -> None:
    ds = dataset(np.ones((2, 2)))
    if slope is not None:
        ds.add_new("RescaleSlope", "DS", slope)
        ds.add_new("RescaleIntercept", "DS", intercept)
    assert read_modality(ds, signed=False, little=True) == (expected, notes)
