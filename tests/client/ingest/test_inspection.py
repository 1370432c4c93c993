"""Counts against a literal recount of the rows, and sheets that show what they say."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.ingest import inspection
from client.ingest.inspection import count, doubt, draw_flagged, draw_random, flagged, quarantined, worst_first
from client.ingest.keys import keyed
from client.ingest.writer import StoreWriter
from models.studies.schema import AGE_BANDS, CHEXPERT, SEXES, VIEWS
from models.studies.store import Store

KEY = bytes(range(32))


def make(path: Path, rows: list[dict[str, Any]], shape: tuple[int, int] = (80, 64)) -> Store:
    """A store with an image of one grey, i + 1, for row i."""
    with StoreWriter(path, findings=("Old Tuberculosis",), secret=KEY) as writer:
        for i, row in enumerate(rows):
            given = {"patient": f"p{i}", "study": f"s{i}", **row}
            for name in ("patient", "study"):
                given[name] = keyed(KEY, name, str(given[name]))
            given |= {name: keyed(KEY, name, str(i)) for name in ("image", "digest")}
            writer.add({"source": "here", "view": "PA", **given}, np.full(shape, i + 1, np.uint8))
        writer.finish()
    return Store.open(path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Store, list[dict[str, Any]]]:
    """60 images of 20 patients with three studies each, all else at random."""
    rng = random.Random(4)
    rows: list[dict[str, Any]] = []
    for i in range(60):
        row: dict[str, Any] = {"patient": i // 3, "study": f"{i // 3}.{i % 3}", "view": rng.choice(VIEWS)}
        row |= {"sex": rng.choice(SEXES), "age_band": rng.choice(AGE_BANDS), "source": rng.choice(("a", "b"))}
        if i // 3 != 7:  # one patient without days
            row["day"] = (i % 3) * 364 + (1 if i % 3 == 2 else 0)  # days 0, 364, 729: years 0, 0, 1
        row |= {name: "text" for name in ("findings", "impression") if rng.random() < 0.5}
        row |= {f"label:{name}": rng.choice((1, 0, -1, -2)) for name in (*CHEXPERT, "Old Tuberculosis")}
        if rng.random() < 0.4:
            row["flags"] = rng.choice(("inverted:0.30", "not-chest:0.10,inverted:0.20", "polarity-contradicts-shape"))
        rows.append(row)
    return make(tmp_path_factory.mktemp("inspection") / "store", rows), rows


def test_every_count_is_a_recount_of_the_rows(mixed):
    store, rows = mixed
    found = count(store)
    assert (found.images, found.studies, found.patients, found.short_side) == (60, 60, 20, 512)
    assert found.views == Counter(row["view"] for row in rows)
    assert found.sexes == Counter(row["sex"] for row in rows)
    assert found.ages == Counter(row["age_band"] for row in rows)
    assert found.sources == Counter(row["source"] for row in rows)
    assert found.years == {"0": 38, "1": 19, "unknown": 3}
    assert found.pairs == sum(prior is not None for prior in store.table["prior"].to_pylist()) > 0
    for finding in (*CHEXPERT, "Old Tuberculosis"):
        said = Counter(row[f"label:{finding}"] for row in rows)
        assert found.labels[finding] == {"present": said[1], "absent": said[0], "uncertain": said[-1]}, finding


def test_report_sections_are_counted_apart(mixed):
    store, rows = mixed
    kinds = Counter(("findings" in row, "impression" in row) for row in rows)
    assert count(store).text == {
        "both": kinds[True, True],
        "findings only": kinds[True, False],
        "impression only": kinds[False, True],
        "none": kinds[False, False],
    }


def test_the_order_of_the_schema_is_kept(mixed):
    found = count(mixed[0])
    for values, order in ((found.views, VIEWS), (found.sexes, SEXES), (found.ages, AGE_BANDS)):
        assert list(values) == [name for name in order if name in values]


def test_flags_are_counted_each(mixed):
    store, rows = mixed
    words = [flag.split(":")[0] for row in rows if "flags" in row for flag in row["flags"].split(",")]
    assert count(store).flags == Counter(words)
    assert [row for row, _ in flagged(store)] == [i for i, row in enumerate(rows) if "flags" in row]


def test_worse_is_worse():
    """A larger score is worse, but for the likeness to a chest; a flag without score comes last."""
    assert doubt("inverted", 0.9) > doubt("inverted", 0.2) > 0
    assert doubt("not-chest", -0.5) > doubt("not_chest", 0.4) > 0
    assert doubt("text", 12) > doubt("text", 5) == 0 == doubt("orientation-mirrored", None)
    assert doubt("sideways", 0.3) == pytest.approx(0.25)


def test_the_worst_of_an_images_flags_decides():
    rows = [
        (0, [("orientation", None)]),
        (1, [("inverted", 0.3)]),
        (2, [("inverted", 0.15), ("not-chest", 0.1)]),
        (3, [("inverted", 0.3)]),
    ]
    ranked = worst_first(rows)
    assert [row for row, _ in ranked] == [2, 1, 3, 0]
    assert dict(ranked)[2] == ["inverted 0.15", "not chest 0.10"] and dict(ranked)[0] == ["orientation"]


@pytest.mark.parametrize("text", ["inverted:", "inverted:x", "a:b:c", "inverted:nan"])
def test_a_flag_that_is_odd_is_still_a_flag(text):
    name, score = inspection._flag(text)
    assert name in ("inverted", "a") and score is None and doubt(name, score) == 0


def grey_of_tiles(path: Path, tiles: int) -> list[int]:
    """The grey in the middle of each tile of a sheet, read back from the picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    wide, tall = inspection.TILE + 2 * inspection._PAD, inspection.TILE + inspection._PAD + inspection._CAPTION
    across = (pixels.shape[1] - inspection._GAP) // (wide + inspection._GAP)
    centres = []
    for place in range(tiles):
        y = inspection._GAP + place // across * (tall + inspection._GAP) + inspection._PAD + inspection.TILE // 2
        x = inspection._GAP + place % across * (wide + inspection._GAP) + wide // 2
        centres.append(int(pixels[y, x, 0]))
    return centres


def test_the_random_sheet_shows_different_images_in_the_stores_order(mixed, tmp_path):
    store, _ = mixed
    assert draw_random(store, tmp_path / "a.png", seed=1, tiles=12) == 12
    greys = grey_of_tiles(tmp_path / "a.png", 12)
    assert greys == sorted(set(greys)) and set(greys) <= set(range(1, 61))
    draw_random(store, tmp_path / "b.png", seed=2, tiles=12)
    assert grey_of_tiles(tmp_path / "b.png", 12) != greys
    assert draw_random(store, tmp_path / "c.png", tiles=400) == 60
    assert grey_of_tiles(tmp_path / "c.png", 60) == list(range(1, 61))


def test_the_flagged_sheet_shows_the_worst_first(mixed, tmp_path):
    store, _ = mixed
    ranked = [row for row, _ in worst_first(flagged(store))]
    shown = draw_flagged(store, tmp_path / "f.png", tiles=9)
    assert shown == 9 and grey_of_tiles(tmp_path / "f.png", 9) == [row + 1 for row in ranked[:9]]


def test_a_caption_names_row_view_and_flags_and_no_key(tmp_path, monkeypatch):
    store = make(tmp_path / "store", [{"view": "LATERAL", "flags": "inverted:0.40"}, {"view": "UNKNOWN"}])
    said: list[str] = []
    monkeypatch.setattr(inspection.ImageDraw.ImageDraw, "text", lambda _, place, text, *more: said.append(text))
    draw_random(store, tmp_path / "r.png")
    assert said == ["0   lateral", "inverted 0.40", "1   view unknown", ""]


@pytest.mark.parametrize("shape", [(40, 32), (32, 300), (900, 400)])
def test_images_of_any_size_and_shape_fill_their_tile(shape, tmp_path):
    store = make(tmp_path / "store", [{}] * 1, shape)
    draw_random(store, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as image:
        inside = np.asarray(image.convert("RGB"))[:, :, 0] == 1
    assert max(inside.any(axis=1).sum(), inside.any(axis=0).sum()) == inspection.TILE


def test_a_long_caption_is_cut(tmp_path):
    flags = ",".join(f"flag-number-{i}" for i in range(12))
    draw_flagged(make(tmp_path / "store", [{"flags": flags}] + [{}] * 2), tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        right = np.asarray(image)[:, -inspection._GAP :]
    assert (right == inspection._BACKGROUND).all()


def test_a_sheet_is_its_owners_and_whole_or_not_there(mixed, tmp_path, monkeypatch):
    draw_random(mixed[0], tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "r.png").read_bytes()

    def broken(*_):
        raise OSError("no room")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="no room"):
        draw_random(mixed[0], tmp_path / "r.png", seed=9)
    assert (tmp_path / "r.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_quarantine_is_counted_line_by_line(tmp_path):
    assert quarantined(tmp_path) == {}
    lines = b'{"code":"colour","item":"a"}\n{"code":"not_dicom","item":"b"}\n{"code":"colour","item":"c"}\n'
    (tmp_path / "quarantine.jsonl").write_bytes(lines + b'[1]\n{"code":"col')
    assert list(quarantined(tmp_path).items()) == [("colour", 2), ("not_dicom", 1)]
