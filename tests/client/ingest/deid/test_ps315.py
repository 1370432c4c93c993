"""The confidentiality table: whole, of the stated edition, looked up rightly, refused when old or damaged."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from client.ingest.ps315 import FILE, TableAge, TableError, load_table
from models.config import ConfigError, build

FOLDER = "dicomanonymizer/dicom_anonymization_databases"
ROOT = Path(__file__).resolve().parents[4]


def test_the_table_is_that_of_2026c() -> None:
    table = load_table()
    assert table.edition == "2026c"
    assert Counter(row.action for row in table.rows) == {
        "X": 415,
        "D": 93,
        "U": 55,
        "Z": 42,
        "X/D": 23,
        "X/Z": 11,
        "X/Z/D": 8,
        "Z/D": 6,
        "X/Z/U*": 2,
    }
    assert len(table.rows) == 655
    assert all(row.name for row in table.rows)


def test_the_licence_stands_in_the_file() -> None:
    notice = " ".join(json.loads(FILE.read_text())["notice"])
    assert "Copyright 2020, Kitware Europe" in notice
    assert "retain the above copyright notice" in notice and "AS IS" in notice


@pytest.mark.parametrize(
    ("tag", "action"),
    [
        (0x00100010, "Z"),
        (0x00080018, "U"),
        (0x00101010, "X"),
        (0x50003000, "X"),  # a curve, by pattern
        (0x50FE0010, "X"),
        (0x60003000, "X"),  # overlay data of two groups
        (0x60103000, "X"),
        (0x60004000, "X"),
        (0x60000010, None),  # overlay rows: no row of its own
        (0x00091001, "X"),  # private
        (0x60013000, "X"),  # odd: private, not an overlay
        (0x00080060, None),
        (0x7FE00010, None),
    ],
)
def test_lookup(tag: int, action: str | None) -> None:
    assert load_table().action(tag) == action


def test_an_old_table_is_warned_of_and_then_refused() -> None:
    table = load_table()
    limits = TableAge(warn_days=100, max_days=200)
    day = datetime.timedelta(days=1)
    assert table.check_age(limits, table.as_of + 100 * day) is None
    assert "101 days old" in (table.check_age(limits, table.as_of + 101 * day) or "")
    assert table.check_age(limits, table.as_of + 200 * day)
    with pytest.raises(TableError, match=r"201 days old, 200 are allowed \(max_days\)"):
        table.check_age(limits, table.as_of + 201 * day)


def test_ages_that_contradict_name_both_keys() -> None:
    with pytest.raises(ConfigError, match=r"warn_days \(9\) and max_days \(3\)"):
        build(TableAge, {"warn_days": 9, "max_days": 3})


@pytest.mark.parametrize("harm", ["row gone", "row changed", "row twice", "no json", "no rows"])
def test_a_damaged_table_is_refused(tmp_path: Path, harm: str) -> None:
    held = json.loads(FILE.read_text())
    if harm == "row gone":
        held["rows"].pop(7)
    elif harm == "row changed":
        held["rows"][7][1] = "U"
    elif harm == "row twice":
        held["rows"].append(held["rows"][7])
        held["row_count"] += 1
        held["rows_sha256"] = hashlib.sha256(json.dumps(held["rows"], separators=(",", ":")).encode()).hexdigest()
    elif harm == "no rows":
        del held["rows"]
    path = tmp_path / f"{harm}.json"
    path.write_text("{" if harm == "no json" else json.dumps(held))
    with pytest.raises(TableError, match="install the software again"):
        load_table(path)


def test_the_generator_makes_a_table_that_loads(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_ps315", ROOT / "tests" / "tools" / "make_ps315.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    wheel = tmp_path / "table.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            zipfile.ZipInfo(f"{FOLDER}/dicomfields_2030a.py", (2030, 2, 3, 0, 0, 0)),
            "X_TAGS = [\n    (0x0018, 0x4000),  # Some Comments\n"
            "    (0x6000, 0x3000, 0xFF00, 0xFFFF),  # Overlay\n]\n"
            "Z_TAGS = [\n    (0x0010, 0x0010),  # A Name\n]\nALL_TAGS = []\nimport os\nos.abort()\n",
        )
        archive.writestr("d-1.dist-info/METADATA", "Name: d\nVersion: 1\n")
        archive.writestr("d-1.dist-info/licenses/LICENSE", "Copyright Somebody\n")
    out = tmp_path / "table.json"
    maker.main(wheel, "2030a", out)
    table = load_table(out)
    assert [tuple(row) for row in table.rows] == [
        ("00100010", "Z", "A Name"),
        ("00184000", "X", "Some Comments"),
        ("60xx3000", "X", "Overlay"),
    ]
    assert (table.edition, table.as_of) == ("2030a", datetime.date(2030, 2, 3))
