"""``fedcxr-site inspect``: counts that are right, pictures outside the store, no identifier."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from client.ingest.codes import ADVICE, Reason


@pytest.fixture
def small(store):
    return store(
        [
            {"patient": "a", "study": "a1", "day": 0, "view": "PA", "sex": "F", "age_band": "50-59"},
            {"patient": "a", "study": "a2", "day": 400, "view": "AP", "flags": "inverted:0.93", "label:Edema": 1},
            {"patient": "b", "view": "LATERAL", "findings": "clear", "impression": "normal"},
        ],
        (Reason.COLOUR, Reason.COLOUR, Reason.BURNED_IN_TEXT),
    )


def test_counts_and_sheets(run, small, one_object):
    done = run("inspect", small, "--json")
    assert done.exit_code == 0, done.output
    told = one_object(done.stdout)
    assert (told["images"], told["studies"], told["patients"], told["pairs"]) == (3, 3, 2, 1)
    assert told["quarantined"] == {"colour": 2, "burned_in_text": 1}
    assert told["flags"] == {"inverted": 1}
    for path in told["sheets"].values():
        assert small not in Path(path).parents
        with Image.open(path) as image:
            assert image.format == "PNG" and not image.info


def test_the_same_in_words(run, small):
    done = run("inspect", small)
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for word in ("3 images of 3 studies of 2 patients", "LATERAL 1", "Edema 1 0 0 2", "inverted 1", "colour 2"):
        assert word in text, word
    assert ADVICE[Reason.COLOUR] in text and "SENTINEL" not in text


def test_the_seed_decides_the_random_sheet(run, store, tmp_path):
    path = store([{} for _ in range(60)])
    sheets = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("inspect", path, "--out", tmp_path / folder, "--seed", seed, "--tiles", 6).exit_code == 0
        sheets.append((tmp_path / folder / "random.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_no_flagged_image_no_sheet_not_even_an_old_one(run, store, tmp_path, one_object):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "flagged.png").touch()
    done = run("inspect", store([{}]), "--out", tmp_path / "out", "--json")
    assert one_object(done.stdout)["sheets"]["flagged"] is None
    assert not (tmp_path / "out" / "flagged.png").exists()
    assert "No image has a label" in run("inspect", tmp_path / "store", "--out", tmp_path / "out").stdout


def test_nothing_is_written_into_the_store(run, store, one_object):
    path = store([{}])
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    done = run("inspect", path, "--out", path / "sheets", "--json")
    assert done.exit_code == 2 and "inside the store" in one_object(done.stdout)["error"]
    assert run("inspect", path).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
    assert (path.parent / "store-inspection").stat().st_mode & 0o077 == 0


def test_an_unfinished_store(run, store, one_object):
    path = store([{}], (Reason.NOT_DICOM,), finish=False)
    done = run("inspect", path, "--json")
    told = one_object(done.stdout)
    assert done.exit_code == 2 and "did not finish" in told["error"] and told["quarantined"] == {"not_dicom": 1}


def test_an_empty_store_says_why_it_is_empty(run, store):
    done = run("inspect", store([], (Reason.COLOUR,)))
    assert done.exit_code == 2 and "holds no image" in done.stderr and ADVICE[Reason.COLOUR] in done.stdout


def test_no_store(run, tmp_path):
    done = run("inspect", tmp_path)
    assert done.exit_code == 2 and "not a study store" in done.stderr
    assert run("inspect", tmp_path / "gone").exit_code == 2


def test_a_folder_that_cannot_be_written(run, store, one_object):
    done = run("inspect", store([{}]), "--out", "/proc/sheets", "--json")
    assert done.exit_code == 2 and "--out" in one_object(done.stdout)["error"]


def test_it_says_how_to_use_it(run):
    done = run("inspect", "--help")
    assert done.exit_code == 0 and "fedcxr-site inspect store" in " ".join(done.stdout.split())


def test_in_a_process_of_its_own(process, small, one_object):
    done = process("inspect", small, "--json")
    assert done.returncode == 0 and done.stderr == "" and one_object(done.stdout)["images"] == 3
