from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.ingest.codes import Reason
from client.ingest.raster import Rejected, decode_raster, read_bytes, serve


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def decode(raw: bytes, short_side: int = 512) -> np.ndarray:
    return decode_raster(raw, short_side, min_side=16, max_pixels=1_000_000)


def code_of(raw: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        decode(raw)
    return caught.value.code


def test_grey_png_is_lossless() -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(noise()))), noise())


def test_grey_in_colour_channels_is_grey() -> None:
    for mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(decode(encode(Image.fromarray(noise()).convert(mode))), noise())
    palette = Image.fromarray(noise()).convert("P")
    np.testing.assert_array_equal(decode(encode(palette)), noise())
    smooth = Image.fromarray(np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)).convert("RGB")
    from_jpeg = decode(encode(smooth, "JPEG", quality=90))
    assert np.abs(from_jpeg.astype(int) - np.asarray(smooth)[..., 0]).max() < 6


def test_colour_is_refused_but_small_differences_are_not() -> None:
    grey = np.repeat(noise()[..., None], 3, axis=2)
    tinted = np.clip(grey.astype(int) + np.array([0, 8, -8]), 0, 255).astype(np.uint8)
    decode(encode(Image.fromarray(tinted)))
    marked = grey.copy()
    marked[:8, :8] = (255, 0, 0)
    assert code_of(encode(Image.fromarray(marked))) == Reason.NOT_GREY
    clear = np.dstack([grey, np.full(grey.shape[:2], 128, np.uint8)])
    assert code_of(encode(Image.fromarray(clear))) == Reason.NOT_GREY
    assert code_of(encode(Image.fromarray(grey).convert("CMYK"), "JPEG")) == Reason.NOT_GREY


def test_16_bit_is_windowed_linearly() -> None:
    values = np.linspace(500, 4000, 60 * 80).reshape(60, 80).astype(np.uint16)
    values[0, 0] = 65535  # one hot pixel must not darken the rest
    got = decode(encode(Image.fromarray(values)))
    low, high = np.percentile(values, (0.1, 99.9))
    expected = np.clip((values - low) / (high - low) * 255, 0, 255)
    assert np.abs(got - expected).max() <= 0.51
    assert got.dtype == np.uint8 and got.min() == 0 and got.max() == 255


def test_short_side_shrinks_and_never_grows() -> None:
    raw = encode(Image.fromarray(noise(300, 450)))
    assert decode(raw, 100).shape == (100, 150)
    assert decode(raw, 300).shape == (300, 450)
    assert decode(raw, 400).shape == (300, 450)
    assert decode(encode(Image.fromarray(noise(1000, 33))), 32).shape == (970, 32)


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encode(Image.fromarray(noise()), exif=exif)
    np.testing.assert_array_equal(decode(raw), np.rot90(noise(), -1))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.UNREADABLE_IMAGE),
        (b"not an image", Reason.UNREADABLE_IMAGE),
        (encode(Image.fromarray(noise()))[:-40], Reason.UNREADABLE_IMAGE),
        (encode(Image.fromarray(noise(600, 800)), "JPEG")[:5000], Reason.UNREADABLE_IMAGE),
        (encode(Image.fromarray(noise()), "BMP"), Reason.UNREADABLE_IMAGE),
        (encode(Image.fromarray(noise(15, 100))), Reason.TOO_SMALL),
        (encode(Image.fromarray(np.full((60, 60), 9, np.uint8))), Reason.BLANK_IMAGE),
        (encode(Image.fromarray(np.full((60, 60), 900, np.uint16))), Reason.BLANK_IMAGE),
    ],
)
def test_bad_files_have_their_reasons(raw: bytes, reason: Reason) -> None:
    assert code_of(raw) == reason


def test_size_is_checked_in_the_header_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode(Image.fromarray(np.zeros((1001, 1000), np.uint8)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"), raising=False)
    assert code_of(raw) == Reason.TOO_LARGE


def test_a_bomb_that_pillow_itself_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert code_of(encode(Image.fromarray(noise()))) == Reason.TOO_LARGE


def test_files_are_capped_and_named_by_reason(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(bytes(100))
    assert read_bytes(str(file), 100) == bytes(100)
    for path, limit, reason in (
        (file, 99, Reason.TOO_LARGE),
        (tmp_path / "b.png", 99, Reason.MISSING_FILE),
        (tmp_path, 99, Reason.UNREADABLE_IMAGE),
    ):
        with pytest.raises(Rejected) as caught:
            read_bytes(str(path), limit)
        assert caught.value.code == reason


def test_serve_answers_and_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encode(Image.fromarray(noise())))
    task = {
        "path": str(file),
        "hash_only": False,
        "short_side": 32,
        "min_side": 16,
        "max_pixels": 10**6,
        "max_bytes": 10**6,
    }
    answer, pixels = serve(task)
    assert pixels is not None and pixels.shape == tuple(answer["shape"])
    assert serve({**task, "hash_only": True}) == ({"sha256": answer["sha256"]}, None)
    for error, code in ((MemoryError, "memory_limit"), (RuntimeError, "unexpected")):

        def fail(*_: object, error: type[Exception] = error) -> None:
            raise error("jane-doe.png")

        monkeypatch.setattr("client.ingest.raster.decode_raster", fail)
        got, nothing = serve(task)
        assert got == {"sha256": answer["sha256"], "code": code} and nothing is None
