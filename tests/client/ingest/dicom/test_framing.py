"""Crop, turning, square pixels, size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.ingest.codes import Reason
from client.ingest.framing import Framing, content_box, crop, pixel_aspect, resize, turn, turn_of
from client.ingest.refusal import Refusal
from models.config import ConfigError, build


def framing(**values: Any) -> Framing:
    return build(Framing, values)


@pytest.mark.parametrize("size", [(300, 200), (900, 1300), (2600, 2100), (4000, 3001)])
def test_box_of_a_block_is_exact_at_every_size(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        top, left = (int(rng.integers(0, s // 3)) for s in size)
        bottom, right = (int(rng.integers(2 * s // 3, s + 1)) for s in size)
        image = np.zeros(size, np.uint8)
        image[top:bottom, left:right] = rng.integers(1, 256)
        assert content_box(image) == (top, left, bottom, right)


def test_box_is_that_of_the_largest_region() -> None:
    image = np.zeros((400, 300), np.uint8)
    image[50:350, 40:260] = 100
    image[5:25, 5:25] = 255  # a marker in the border
    assert content_box(image) == (50, 40, 350, 260)


def test_ellipse_agrees_with_the_full_search_of_a_large_image() -> None:
    y, x = np.mgrid[0:2400, 0:2000]
    image = ((((y - 1200) / 1100) ** 2 + ((x - 1000) / 900) ** 2) < 1).astype(np.uint8) * 200
    contours, _ = cv2.findContours(image, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    left, top, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    box = content_box(image)
    assert box is not None
    assert np.abs(np.array(box) - (top, left, top + height, left + width)).max() <= 1


def test_crop_falls_back_when_implausible() -> None:
    image = np.zeros((400, 400), np.uint8)
    image[0:250, 0:250] = 9
    kept, record = crop(image, framing())
    assert kept.shape == (400, 400) and record["crop"] == "implausible" and record["crop_share"] == 0.3906
    cut, record = crop(image, framing(crop_keeps_at_least=0.3))
    assert cut.shape == (250, 250) and record == {
        "crop": "applied",
        "crop_box": [0, 0, 250, 250],
        "crop_share": 0.3906,
    }


def test_nothing_to_crop() -> None:
    black = np.zeros((200, 200), np.uint8)
    assert crop(black, framing())[1] == {"crop": "nothing"}
    assert crop(black + 1, framing(crop=False))[1] == {"crop": "off"}


_LETTERS = {
    "L": (0, 1),
    "R": (0, -1),
    "F": (1, 0),
    "H": (-1, 0),
}  # (rows down, columns right) in a standard image


@pytest.mark.parametrize("along_row", list("LRFH"))
@pytest.mark.parametrize("along_column", list("LRFH"))
def test_turning_brings_every_orientation_upright(along_row: str, along_column: str) -> None:
    """Lay a standard image down as the header says, turn it, and find it as it was."""
    how = turn_of(f"{along_row}\\{along_column}")
    row_step, column_step = np.array(_LETTERS[along_row]), np.array(_LETTERS[along_column])
    if abs(row_step @ column_step) == 1:
        assert how == "unknown"  # both axes along the same line
        return
    standard = np.arange(12).reshape(3, 4)
    # Stored pixel (i, j) shows what lies i steps along the column direction and j along the row direction.
    rows = 3 if column_step[0] else 4
    columns = 12 // rows
    start = np.where(row_step + column_step < 0, np.array(standard.shape) - 1, 0)
    stored = np.empty((rows, columns), int)
    for i in range(rows):
        for j in range(columns):
            stored[i, j] = standard[tuple(start + i * column_step + j * row_step)]
    np.testing.assert_array_equal(turn(stored, how), standard)


@pytest.mark.parametrize("text", ["", "L", "L\\P", "A\\F", "P\\F", "L\\F\\H", "x\\y"])
def test_other_orientations_are_unknown(text: str) -> None:
    assert turn_of(text) == "unknown"


def test_oblique_letters_count_by_their_first() -> None:
    assert turn_of("LA\\FP") == "none" and turn_of("RP\\F") == "mirror"


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PixelSpacing", [0.2, 0.1], 2.0),
        ("ImagerPixelSpacing", [0.1, 0.2], 0.5),
        ("PixelAspectRatio", [3, 2], 1.5),
        ("PixelSpacing", [0.143, 0.143], 1.0),
    ],
)
def test_pixel_aspect(keyword: str, value: list[float], expected: float) -> None:
    ds = Dataset()
    setattr(ds, keyword, value)
    assert pixel_aspect(ds) == (pytest.approx(expected), [])


@pytest.mark.parametrize("value", ["0\\1", "-1\\1", "1", "nan\\1", "1e300\\1e-300", "1\\2\\3", "9\\1"])
def test_implausible_aspect_counts_as_square(value: str) -> None:
    ds = Dataset()
    ds.add_new("PixelSpacing", "DS", value)
    assert pixel_aspect(ds)[0] == 1.0


def test_non_square_pixels_become_square() -> None:
    """A circle sampled with pixels twice as high as wide is a circle again."""
    y, x = np.mgrid[0:300, 0:600]
    squeezed = ((((y - 150) / 120) ** 2 + ((x - 300) / 240) ** 2) < 1).astype(np.uint8) * 255
    image, record = resize(squeezed, 2.0, framing())
    assert image.shape == (512, 512) and record["pixel_aspect"] == 2.0
    inside = image > 127
    assert abs(inside.any(0).sum() - inside.any(1).sum()) <= 2
    untouched, _ = resize(squeezed, 2.0, framing(square_pixels=False))
    assert untouched.shape == (512, 1024)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 840), (609, 512)),
        ((840, 1000), (512, 609)),
        ((512, 700), (512, 700)),
        ((200, 150), (682, 512)),
    ],
)
def test_short_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image, _ = resize(np.zeros(size, np.uint8), 1.0, framing())
    assert image.shape == expected and image.flags.c_contiguous


def test_area_interpolation_is_the_mean_of_the_area() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1024, 2048)).astype(np.uint8)
    got, _ = resize(image, 1.0, framing(short_side=256))
    mean = image.reshape(256, 4, 512, 4).mean(axis=(1, 3))
    assert np.abs(got - mean).max() <= 0.5 + 1e-6


def test_bounds() -> None:
    with pytest.raises(Refusal) as caught:
        resize(np.zeros((127, 400), np.uint8), 1.0, framing())
    assert caught.value.reason is Reason.TOO_SMALL
    with pytest.raises(Refusal) as caught:
        resize(np.zeros((200, 601), np.uint8), 1.0, framing())
    assert caught.value.reason is Reason.IMPLAUSIBLE_SHAPE


@pytest.mark.parametrize(
    "values", [{"short_side": 8}, {"max_aspect": 0.5}, {"crop_keeps_at_least": 2}, {"min_side": 0}]
)
def test_bad_configuration(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(Framing, values)
