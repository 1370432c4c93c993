"""Image checks on drawn images: every check strikes on its fault, and only there."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from client.ingest.codes import Reason
from client.ingest.margin import text_length
from client.ingest.quality import QualityConfig, assess, chest_scores, coarse, symmetry, trim
from client.ingest.refusal import Refusal
from models.config import ConfigError, build
from tests.client.ingest.dicom.maker import chest


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return (chest(600, 520) >> 4).astype(np.uint8)


def flags(image: np.ndarray, view: str = "PA", **config: Any) -> set[str]:
    found = assess(np.ascontiguousarray(image), view, build(QualityConfig, config)).flags
    return {flag.split(":")[0] for flag in found}


def test_a_good_image_has_scores_and_no_flag(drawn: np.ndarray) -> None:
    quality = assess(drawn, "PA", QualityConfig())
    assert quality.flags == ()
    assert set(quality.scores) == {"contrast", "inverted", "sideways", "upside_down", "chest", "text"}


@pytest.mark.parametrize("gamma", [0.4, 1.0, 2.5])
def test_faults_are_named_whatever_the_window(drawn: np.ndarray, gamma: float) -> None:
    image = ((drawn / 255) ** gamma * 255).astype(np.uint8)
    assert flags(image) == set()
    assert "inverted" in flags(255 - image)
    assert "sideways" in flags(np.rot90(image)) and "sideways" in flags(np.rot90(image, 3))
    assert "upside_down" in flags(image[::-1])


def test_borders_do_not_matter(drawn: np.ndarray) -> None:
    for grey in (0, 255):
        assert flags(np.pad(drawn, ((60, 90), (40, 120)), constant_values=grey)) == set()


def test_other_pictures_are_no_chest() -> None:
    rng = np.random.default_rng(0)
    struck = []
    for _ in range(40):
        blobs = cv2.GaussianBlur(rng.normal(size=(200, 200)).astype(np.float32), (0, 0), rng.uniform(4, 30))
        struck.append(bool(flags(cv2.normalize(blobs, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8))))
    assert np.mean(struck) > 0.8


def test_a_declared_lateral_is_scored_and_not_flagged(drawn: np.ndarray) -> None:
    quality = assess(255 - drawn, "LATERAL", QualityConfig())
    assert quality.flags == () and quality.scores["inverted"] > 0.1


@pytest.mark.parametrize(
    ("change", "check", "reason"),
    [
        (lambda image: 255 - image, "inverted", Reason.INVERTED),
        (np.rot90, "sideways", Reason.SIDEWAYS),
        (lambda image: image[::-1], "upside_down", Reason.SIDEWAYS),
    ],
)
def test_checks_refuse_where_configured(drawn: np.ndarray, change, check: str, reason: Reason) -> None:
    with pytest.raises(Refusal) as caught:
        flags(change(drawn), refuse=(check,))
    assert caught.value.reason is reason
    assert flags(drawn, refuse=("inverted", "sideways", "upside_down", "not_chest")) == set()


@pytest.mark.parametrize(
    "image",
    [
        np.full((512, 512), 90, np.uint8),
        np.random.default_rng(0).integers(100, 140, (512, 512)).astype(np.uint8),  # noise, no structure
    ],
)
def test_blank(image: np.ndarray) -> None:
    with pytest.raises(Refusal) as caught:
        flags(image)
    assert caught.value.reason is Reason.BLANK_IMAGE


def test_scores_mirror_each_other(drawn: np.ndarray) -> None:
    """Inverting twice, turning round: what is gained one way is lost the other."""
    plain, inverted = chest_scores(coarse(drawn)), chest_scores(coarse(255 - drawn))
    assert plain["inverted"] == pytest.approx(-inverted["inverted"], abs=0.05)
    turned = chest_scores(coarse(np.ascontiguousarray(drawn[::-1, ::-1])))
    assert plain["upside_down"] == pytest.approx(-turned["upside_down"], abs=0.05)


def test_symmetry() -> None:
    half = np.random.default_rng(0).normal(size=(32, 16))
    assert symmetry(np.hstack([half, half[:, ::-1]])) == pytest.approx(1)
    assert symmetry(np.random.default_rng(1).normal(size=(32, 32))) < 0.5
    assert symmetry(np.zeros((32, 32))) <= 0


def test_trim_treats_black_and_white_alike() -> None:
    inner = np.random.default_rng(0).normal(128, 40, (30, 40)).astype(np.float32)
    for grey in (0, 255):
        assert trim(np.pad(inner, 8, constant_values=grey)).shape == inner.shape
    assert min(trim(np.zeros((64, 64), np.float32)).shape) >= 20


NAMES = ("DOE JANE 12.03.1950", "Mustermann Max", "ID 4455667 M 64Y", "Nguyen V.A. 1971-05-06")


@pytest.mark.parametrize("height", [10, 14, 20])
@pytest.mark.parametrize("text", NAMES)
@pytest.mark.parametrize("ink", [255, 0])
def test_text_in_the_margin_is_found(drawn: np.ndarray, text: str, height: int, ink: int) -> None:
    for position in ((8, height + 10), (8, drawn.shape[0] - 12)):
        image = drawn.copy()
        base = position[1]
        image[base - height - 6 : base + 6] = 110  # so that either ink can be read
        cv2.putText(image, text, position, cv2.FONT_HERSHEY_SIMPLEX, height / 22, ink, 1, cv2.LINE_AA)
        assert text_length(image) >= 5
        with pytest.raises(Refusal) as caught:
            flags(image)
        assert caught.value.reason is Reason.BURNED_IN_TEXT
        assert "text" in flags(image, text_action="flag")
        assert flags(image, text_action="ignore") == set()


@pytest.mark.parametrize("mark", ["R", "L", "PA", "AP", "R PA"])
def test_side_markers_are_no_text(drawn: np.ndarray, mark: str) -> None:
    image = drawn.copy()
    cv2.putText(image, mark, (20, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2, cv2.LINE_AA)
    assert text_length(image) < 5 and flags(image) == set()


def test_text_at_any_image_size(drawn: np.ndarray) -> None:
    image = drawn.copy()
    cv2.putText(image, "DOE JANE 1950", (8, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 1, cv2.LINE_AA)
    for factor in (0.75, 1.0, 2.0, 3.0):
        scaled = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        assert text_length(scaled) >= 5


def test_wires_and_grain_are_no_text(drawn: np.ndarray) -> None:
    image = drawn.copy()
    for start in range(0, 500, 40):
        cv2.line(image, (start, 0), (start + 60, 120), 255, 2, cv2.LINE_AA)
    assert text_length(image) < 5
    grain = np.clip(drawn + np.random.default_rng(0).normal(0, 40, drawn.shape), 0, 255).astype(np.uint8)
    assert text_length(grain) < 5


@pytest.mark.parametrize("values", [{"text": 0}, {"contrast": 300}, {"refuse": ["ugly"]}, {"text_action": "ocr"}])
def test_bad_configuration(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(QualityConfig, values)
