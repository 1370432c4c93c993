"""The real files beside the checkout: DICOM of every kind, and the image checks on real chests."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from client.ingest.codes import Reason
from client.ingest.decode import DecodeConfig, decode_source
from client.ingest.framing import Framing, crop
from client.ingest.grey import levels_of
from client.ingest.header import read_header
from client.ingest.limits import Limits
from client.ingest.margin import text_length
from client.ingest.part10 import open_source
from client.ingest.pixels import read_layout, read_stored
from client.ingest.quality import QualityConfig, chest_scores, coarse
from client.ingest.reading import ReadConfig, Reading, Refused
from client.ingest.refusal import Refusal
from client.ingest.sandbox import Sandbox
from models.config import build

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def manifest(dev_data: Path) -> list[dict[str, str]]:
    path = dev_data / "dicom" / "manifest.csv"
    if not path.is_file():
        pytest.skip("the real DICOM files are not beside this checkout")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fits(row: dict[str, str], result: Reading | Refused) -> bool:
    """Whether an outcome is the one that the manifest suggests; rows without a suggestion take any known
    code.
    """
    wish, accepted = row["suggested_outcome"], isinstance(result, Reading)
    if isinstance(result, Refused) and result.reason in (Reason.UNEXPECTED, Reason.CRASHED):
        return False
    if not wish:
        return not accepted or row["modality"] in ("CR", "DX")
    if wish.startswith("filter out"):  # by modality it is refused, by view it is recorded as what it is
        return not accepted or result.view == "LATERAL"
    if "detect polarity" in wish:
        return accepted and any(flag.startswith("inverted") for flag in result.flags)
    if wish.startswith("quarantine"):
        return not accepted
    if wish.startswith("reject") and "assume" not in wish:
        return not accepted
    if wish.startswith("accept") and "reject" not in wish:
        return accepted
    return True


def test_every_file_ends_as_the_manifest_suggests(
    manifest: list[dict[str, str]], dev_data: Path, sandbox: Sandbox
) -> None:
    replaced = sandbox.replaced
    wrong = []
    for row in manifest:
        result = sandbox.read(dev_data / "dicom" / row["file"])
        outcome = "accepted" if isinstance(result, Reading) else f"{result.reason} ({result.note})"
        print(f"{row['file'][-44:]:44s} {row['suggested_outcome'][:34]:34s} {outcome}")
        if not fits(row, result):
            wrong.append((row["file"], outcome))
    resident, space = sandbox.peak_memory()
    print(f"peak of the child: {resident >> 20} MiB resident, {space >> 20} MiB address space")
    assert not wrong
    assert sandbox.replaced == replaced  # nothing crashed, nothing hung
    assert space <= ReadConfig().limits.memory_bytes


def test_headers_are_those_that_pydicom_reads(manifest: list[dict[str, str]], dev_data: Path) -> None:
    """The walk and its slices lose nothing against a full parse."""
    compared = 0
    for row in manifest:
        data = (dev_data / "dicom" / row["file"]).read_bytes()
        try:
            source = open_source(data, Limits())
        except Refusal:
            continue
        whole = pydicom.dcmread(dev_data / "dicom" / row["file"], force=True)
        if row["dcmread"] == "ok" and len(whole) > 3:  # else pydicom itself lost its way
            assert read_header(source.dataset) == read_header(whole), row["file"]
            compared += 1
    assert compared > 150


@pytest.mark.slow
def test_stored_values_are_those_that_pydicom_decodes(manifest: list[dict[str, str]], dev_data: Path) -> None:
    compared = set()
    for row in manifest:
        try:
            source = open_source((dev_data / "dicom" / row["file"]).read_bytes(), Limits())
            layout, _ = read_layout(source, Limits())
            words, _ = read_stored(source, layout)
        except Refusal:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reference = pydicom.dcmread(dev_data / "dicom" / row["file"]).pixel_array
        except Exception:
            continue
        if layout.shift:
            continue  # pydicom leaves left-aligned values where they are
        levels = levels_of(shift=0, bits=layout.stored, signed=layout.signed)
        np.testing.assert_array_equal(levels[words & (len(levels) - 1)], reference, err_msg=row["file"])
        compared.add(source.syntax)
    assert len(compared) >= 9


def test_the_whole_path_on_everything_that_decodes(manifest: list[dict[str, str]], dev_data: Path) -> None:
    """Without the gate, CT, MR and ultrasound exercise signs, tables and padding that chests seldom have."""
    config = build(DecodeConfig, {"framing": {"min_side": 1, "max_aspect": 16}})
    done = 0
    for row in manifest:
        try:
            source = open_source((dev_data / "dicom" / row["file"]).read_bytes(), Limits())
            decoded = decode_source(source, config, Limits())
        except Refusal as refusal:
            assert refusal.reason is not Reason.UNEXPECTED
            continue
        assert decoded.pixels.dtype == np.uint8 and min(decoded.pixels.shape) == 512
        assert np.ptp(decoded.pixels) > 60, row["file"]
        done += 1
    assert done > 70


def test_htj2k_codestream_decodes(manifest: list[dict[str, str]], dev_data: Path) -> None:
    """The only real sample is in colour, which is refused; its stream proves the decoder."""
    from pydicom.encaps import generate_frames

    rows = [row for row in manifest if row["transfer_syntax"].startswith("High-Throughput")]
    assert rows
    for row in rows:
        ds = pydicom.dcmread(dev_data / "dicom" / row["file"])
        import openjpeg

        code = next(generate_frames(ds.PixelData, number_of_frames=1))
        values = np.frombuffer(openjpeg.decode_pixel_data(code, version=2), np.uint8)
        assert values.size == ds.Rows * ds.Columns * ds.SamplesPerPixel
        assert (float(values.min()), float(values.max())) == (
            float(row["pixel_min"]),
            float(row["pixel_max"]),
        )


def images(dev_data: Path, name: str, most: int, *, lateral: bool = False) -> list[np.ndarray]:
    folder = dev_data / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not beside this checkout")
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["image"].startswith("lateral") == lateral]
    order = np.random.default_rng(0).permutation(len(rows))[:most]
    return [cv2.imread(str(folder / rows[i]["image"]), cv2.IMREAD_GRAYSCALE) for i in order]


_SETS = {"kermany224": 120, "nih64": 120, "covid-cxr": 230}
_CHECKS = ("inverted", "sideways", "upside_down")


def rates(pictures: list[np.ndarray]) -> dict[str, float]:
    """Share of the images on which each check strikes."""
    config = QualityConfig()
    scores = [chest_scores(coarse(np.ascontiguousarray(picture))) for picture in pictures]
    struck = {name: [s[name] > getattr(config, name) for s in scores] for name in _CHECKS}
    struck["not_chest"] = [
        s["chest"] < config.chest and not any(s[name] > getattr(config, name) for name in _CHECKS) for s in scores
    ]
    return {name: float(np.mean(hits)) for name, hits in struck.items()}


@pytest.mark.parametrize(
    ("name", "most"), [*_SETS.items(), *[pytest.param(name, 5000, marks=pytest.mark.slow) for name in _SETS]]
)
def test_checks_on_real_frontal_chests(name: str, most: int, dev_data: Path) -> None:
    """False flags on the images as they are, detection on turned and inverted copies."""
    pictures = [crop(image, Framing())[0] for image in images(dev_data, name, most)]
    false = rates(pictures)
    found = {
        "inverted": rates([255 - p for p in pictures])["inverted"],
        "sideways": min(rates([np.rot90(p, k) for p in pictures])["sideways"] for k in (1, 3)),
        "upside_down": rates([p[::-1, ::-1] for p in pictures])["upside_down"],
    }
    print(name, len(pictures), "false", false, "found", found)
    assert all(false[check] <= 0.01 for check in _CHECKS) and false["not_chest"] <= 0.03
    assert found["inverted"] >= 0.98 and found["sideways"] >= 0.98 and found["upside_down"] >= 0.8


def test_text_on_real_chests(dev_data: Path) -> None:
    """Names written into real margins are found; paediatric images without writing are left alone."""
    least = QualityConfig().text
    clean = images(dev_data, "kermany224", 150)
    assert np.mean([text_length(image) >= least for image in clean]) <= 0.02
    real = [image for image in images(dev_data, "covid-cxr", 80) if text_length(image) == 0]
    rng, hits = np.random.default_rng(0), []
    for image in real:
        height = int(rng.integers(10, 24))
        base = int(rng.choice([height + 6, image.shape[0] - 8]))
        ink = 255 if np.median(image[base - height : base, 8:200]) < 128 else 0
        cv2.putText(
            image,
            "DOE JANE 12.03.1950",
            (8, base),
            cv2.FONT_HERSHEY_SIMPLEX,
            height / 22,
            ink,
            1,
            cv2.LINE_AA,
        )
        hits.append(text_length(image) >= least)
    print(f"text found on {np.mean(hits):.3f} of {len(hits)}")
    assert np.mean(hits) >= 0.9
