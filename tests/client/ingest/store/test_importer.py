from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.ingest.importer import Limits, import_folder
from client.ingest.keys import keyed, public_secret
from client.ingest.layouts import load_layout
from client.ingest.writer import StoreWriteError, StoreWriter
from models.studies.schema import Label
from models.studies.store import Store, StoreError
from models.studies.views import Labelled, Pairs

Folder = Callable[..., Path]
Pixels = Callable[..., np.ndarray]
Files = Callable[[Path], dict[str, bytes]]
GENERIC = load_layout("image-folder")


def rows(count: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "image": f"{i}.png",
            "patient": f"Jane Doe {i // 2}",
            "day": 10 + i,
            "view": "PA",
            "sex": "F",
            "Edema": i % 2,
        }
        for i in range(count)
    ]


def test_a_folder_becomes_a_store(folder: Folder, tmp_path: Path, secret: bytes, pixels: Pixels) -> None:
    steps: list[tuple[int, int]] = []
    summary = import_folder(
        folder(rows()),
        GENERIC,
        tmp_path / "store",
        secret,
        2,
        lambda done, total: steps.append((done, total)),
    )
    assert (summary.accepted, summary.duplicate, summary.quarantined) == (6, 0, {}) and summary.seconds > 0
    assert steps == [(i, 6) for i in range(1, 7)]
    store = Store.open(tmp_path / "store")
    for i in range(6):
        np.testing.assert_array_equal(store.pixels(i), pixels(i))
    assert store.labels(["Edema"])[:, 0].tolist() == [0, 1] * 3
    assert store.integers("day", -1).tolist() == [0, 1] * 3
    assert len(store.patients.keys) == 3 and set(store.strings("source")) == {"local"}
    assert len(Labelled(store, findings=("Edema",), size=32)) == 6
    assert Pairs(store, size=32).gap_days.tolist() == [1, 1, 1]
    assert store.patients.keys[store.patients.codes[0]] == keyed(secret, "patient", "image-folder", "Jane Doe 0")


def test_no_identifier_enters_the_store(folder: Folder, tmp_path: Path, secret: bytes, files: Files) -> None:
    bad = {**rows(7)[6], "image": "doe-jane-missing.png", "absent": True}
    import_folder(folder([*rows(), bad]), GENERIC, tmp_path / "store", secret, 1)
    for name, data in files(tmp_path / "store").items():
        if not name.endswith(".u8"):
            for word in (b"Jane", b"Doe", b"doe-jane", b".png", secret, secret.hex().encode()):
                assert word not in data, name


def test_number_of_workers_and_repetition_change_nothing(
    folder: Folder, tmp_path: Path, secret: bytes, files: Files
) -> None:
    path = folder(rows(20))
    for name, workers in (("one", 1), ("three", 3)):
        import_folder(path, GENERIC, tmp_path / name, secret, workers)
    assert files(tmp_path / "one") == files(tmp_path / "three")
    again = import_folder(path, GENERIC, tmp_path / "one", secret, 2)
    assert (again.accepted, again.duplicate, again.changed) == (0, 20, 0)
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_new_rows_are_added_and_edits_are_counted(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    import_folder(folder(rows(4)), GENERIC, tmp_path / "store", secret, 1)
    more = rows(6)
    more[0]["Edema"] = 1
    summary = import_folder(folder(more), GENERIC, tmp_path / "store", secret, 1)
    assert (summary.accepted, summary.duplicate, summary.changed) == (2, 4, 1)
    assert len(Store.open(tmp_path / "store")) == 6


def test_every_bad_item_has_its_reason_and_stops_nobody(
    folder: Folder, tmp_path: Path, secret: bytes, pixels: Pixels
) -> None:
    table = rows(14)
    path = folder(table)
    (path / "0.png").unlink()
    (path / "1.png").write_bytes(b"not an image")
    (path / "2.png").write_bytes((path / "2.png").read_bytes()[:500])
    red = np.zeros((40, 48, 3), np.uint8)
    red[..., 0] = pixels(3)
    Image.fromarray(red).save(path / "3.png")
    Image.fromarray(pixels(4, 20, 20)).save(path / "4.png")
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(path / "5.png")
    Image.fromarray(pixels(6, 300, 300)).save(path / "6.png")
    table[7]["view"] = "sideways"
    table[8]["day"] = "yesterday"
    table[9]["patient"] = ""
    table[10]["image"] = "../outside.png"
    (path / "12.png").write_bytes((path / "11.png").read_bytes())  # the same image of another patient
    with open(path / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    strict = load_layout("image-folder")
    limits = Limits(max_pixels=80_000)
    summary = import_folder(path, strict, tmp_path / "store", secret, 2, limits=limits)
    assert summary.quarantined == {
        "bad_row": 4,
        "blank_image": 1,
        "conflicting_duplicate": 1,
        "missing_file": 1,
        "not_grey": 1,
        "too_large": 1,
        "too_small": 1,
        "unreadable_image": 2,
    }
    assert summary.accepted == 2
    notes = [json.loads(line) for line in (tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()]
    assert len(notes) == 12
    again = import_folder(path, strict, tmp_path / "store", secret, 2, limits=limits)
    assert again.quarantined == summary.quarantined and again.accepted == 0
    assert len((tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()) == 12


def test_a_mended_item_leaves_the_quarantine(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    path = folder(rows(3))
    good = (path / "1.png").read_bytes()
    (path / "1.png").write_bytes(b"broken")
    assert import_folder(path, GENERIC, tmp_path / "store", secret, 1).quarantined == {"unreadable_image": 1}
    (path / "1.png").write_bytes(good)
    summary = import_folder(path, GENERIC, tmp_path / "store", secret, 1)
    assert summary.accepted == 1 and summary.quarantined == {}
    assert (tmp_path / "store" / "quarantine.jsonl").read_text() == ""


def test_changed_files_conflict_and_repeated_ones_do_not(
    folder: Folder, tmp_path: Path, secret: bytes, pixels: Pixels
) -> None:
    table = rows(4)
    table[1]["patient"] = table[0]["patient"]
    path = folder(table)
    (path / "1.png").write_bytes((path / "0.png").read_bytes())  # twice the same image of one patient
    summary = import_folder(path, GENERIC, tmp_path / "store", secret, 1)
    assert (summary.accepted, summary.duplicate) == (3, 1)
    Image.fromarray(pixels(99)).save(path / "2.png")
    summary = import_folder(path, GENERIC, tmp_path / "store", secret, 1)
    assert summary.quarantined == {"conflicting_duplicate": 1} and summary.accepted == 0


def test_nothing_good_is_an_empty_store(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    path = folder([{"image": "a.png", "patient": "1", "absent": True}])
    assert import_folder(path, GENERIC, tmp_path / "store", secret, 2).quarantined == {"missing_file": 1}
    with pytest.raises(StoreError, match="holds no image"):
        Store.open(tmp_path / "store")


def test_a_single_patient(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    import_folder(folder([{"image": "a.png", "patient": "1"}]), GENERIC, tmp_path / "store", secret)
    store = Store.open(tmp_path / "store")
    assert len(store) == 1 and len(set(store.split())) == 1


def test_dates_never_enter_the_store(folder: Folder, tmp_path: Path, secret: bytes, files: Files) -> None:
    layout = tmp_path / "dated.yaml"
    layout.write_text(
        "name: dated\ncsv: [manifest.csv]\nimage: ['{image}']\npatient: '{patient}'\nsource: {value: x}\n"
        "day: {column: date, kind: date}\n"
    )
    dates = ["2019-12-30", "2020-01-02", "2020-03-01"]
    path = folder([{"image": f"{i}.png", "patient": "1", "date": date} for i, date in enumerate(dates)])
    import_folder(path, load_layout(layout), tmp_path / "store", secret, 1)
    assert Store.open(tmp_path / "store").integers("day", -1).tolist() == [0, 3, 62]
    import datetime

    journal = files(tmp_path / "store")["journal.jsonl"].decode()
    for date in dates:
        assert date not in journal and f'"day":{datetime.date.fromisoformat(date).toordinal()}' not in journal


def test_two_sets_in_one_store_share_no_patient(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(
        "name: other\ncsv: [manifest.csv]\nimage: ['{image}']\npatient: '{patient}'\nsource: {value: other}\n"
    )
    first = folder([{"image": "a.png", "patient": "1"}], "first")
    second = folder([{"image": "b.png", "patient": "1"}, {"image": "c.png", "patient": "2"}], "second")
    import_folder(first, GENERIC, tmp_path / "store", secret, 1)
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(second / "b.png")
    import_folder(second, load_layout(other), tmp_path / "store", secret, 1)
    store = Store.open(tmp_path / "store")
    assert len(store.patients.keys) == 3 and store.about["sources"] == {"local": 1, "other": 2}


def test_other_preprocessing_is_refused(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    path = folder(rows(1))
    import_folder(path, GENERIC, tmp_path / "store", secret, 1)
    with pytest.raises(StoreWriteError, match="short_side"):
        import_folder(path, GENERIC, tmp_path / "store", secret, 1, short_side=256)


def test_two_imports_at_once(folder: Folder, tmp_path: Path, secret: bytes) -> None:
    with (
        StoreWriter(tmp_path / "store", secret=secret),
        pytest.raises(StoreWriteError, match="another process"),
    ):
        import_folder(folder(rows(1)), GENERIC, tmp_path / "store", secret, 1)


IMPORT = """
import os, sys
from pathlib import Path
from client.ingest.importer import import_folder
from client.ingest.layouts import load_layout

def progress(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), 9)

if __name__ == "__main__":
    folder, store = Path(sys.argv[1]), Path(sys.argv[2])
    import_folder(folder, load_layout("image-folder"), store, bytes(range(32)), 2, progress)
"""


def start(tmp_path: Path, path: Path, store: Path, kill_at: int) -> subprocess.Popen[bytes]:
    (tmp_path / "run.py").write_text(IMPORT)
    command = [sys.executable, str(tmp_path / "run.py"), str(path), str(store), str(kill_at)]
    return subprocess.Popen(command, env=_here())


def test_killed_in_mid_import_and_run_again_is_the_same_store(
    folder: Folder, tmp_path: Path, secret: bytes, files: Files
) -> None:
    path = folder(rows(40))
    (path / "17.png").write_bytes(b"broken")
    import_folder(path, GENERIC, tmp_path / "whole", secret, 2)
    store = tmp_path / "killed"
    for kill_at in (7, 30):
        assert start(tmp_path, path, store, kill_at).wait(timeout=60) == -9
        assert not (store / "store.json").exists()
    summary = import_folder(path, GENERIC, store, secret, 2)
    assert (summary.accepted, summary.duplicate) == (10, 29)
    assert files(store) == files(tmp_path / "whole")


@pytest.mark.slow
def test_killed_from_outside_at_any_moment(
    folder: Folder, tmp_path: Path, secret: bytes, pixels: Pixels, files: Files
) -> None:
    count = 120
    path = folder(rows(count))
    for i in range(count):
        Image.fromarray(pixels(i, 520, 700)).save(path / f"{i}.png", compress_level=1)
    import_folder(path, GENERIC, tmp_path / "whole", secret, 2)
    store = tmp_path / "killed"
    for lines in (10, 40, 80):
        process = start(tmp_path, path, store, -1)
        deadline = time.monotonic() + 60
        journal = store / "journal.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.002)
        assert process.poll() is None, "the import ended before it could be killed"
        process.kill()
        process.wait()
        assert journal.read_bytes().count(b"\n") >= lines
    summary = import_folder(path, GENERIC, store, secret, 2)
    assert summary.duplicate >= 79 and summary.accepted + summary.duplicate == count
    assert files(store) == files(tmp_path / "whole")


def _here() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "folder_name", "images", "patients", "sources"),
    [
        ("nih64", "nih64", 683, 185, {"nih64": 683}),
        ("covid-cxr", "covid-cxr", 227, 93, {"hannover": 154, "covid-chestxray": 73}),
    ],
)
def test_real_sets(
    dev_data: Path,
    tmp_path: Path,
    name: str,
    folder_name: str,
    images: int,
    patients: int,
    sources: dict[str, int],
) -> None:
    summary = import_folder(dev_data / folder_name, load_layout(name), tmp_path / "store", public_secret(name))
    assert summary.accepted == images and not summary.quarantined
    store = Store.open(tmp_path / "store")
    assert store.about["counts"]["patients"] == patients and store.about["sources"] == sources
    with open(dev_data / folder_name / "metadata.csv", newline="") as file:
        table = [row for row in csv.DictReader(file) if row["view"] != "L"]
    assert len(table) == images
    term, finding = {"nih64": ("Effusion", "Pleural Effusion"), "covid-cxr": ("COVID-19", "COVID-19")}[name]
    expected = [term in row["finding"].split("|") for row in table]
    assert (store.labels([finding])[:, 0] == Label.PRESENT).tolist() == expected


@pytest.mark.real
def test_real_pairs_are_those_of_the_set(dev_data: Path, tmp_path: Path) -> None:
    """The set's own list of consecutive frontal pairs, found again from the days alone."""
    secret = public_secret("covid-cxr")
    import_folder(dev_data / "covid-cxr", load_layout("covid-cxr"), tmp_path / "store", secret)
    store = Store.open(tmp_path / "store")
    view = Pairs(store, size=32)
    with open(dev_data / "covid-cxr" / "pairs.csv", newline="") as file:
        table = list(csv.DictReader(file))

    def key(image: str) -> str:
        return keyed(secret, "image", "covid-cxr", image)

    images = store.strings("image")
    found = {(images[b], images[a], int(gap)) for b, a, gap in zip(view.pairs.prior, view.pairs.current, view.gap_days)}
    assert found == {(key(r["prior"]), key(r["current"]), int(r["delta_days"])) for r in table}


@pytest.mark.real
def test_real_kermany_labels(dev_data: Path, tmp_path: Path) -> None:
    source = dev_data / "kermany224"
    small = tmp_path / "small"
    small.mkdir()
    (small / "images").symlink_to(source / "images")
    with open(source / "metadata.csv", newline="") as file:
        table = list(csv.DictReader(file))[::40]
    with open(small / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    import_folder(small, load_layout("kermany"), tmp_path / "store", public_secret("kermany"))
    store = Store.open(tmp_path / "store")
    codes = {"normal": [1, 0, -2, -2], "bacteria": [0, 1, 1, 0], "virus": [0, 1, 0, 1]}
    labels = store.labels(["No Finding", "Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia"])
    assert labels.tolist() == [codes[row["label"]] for row in table]
    assert Pairs.missing(store) is not None
