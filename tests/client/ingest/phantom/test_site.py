import numpy as np
import pytest

from client.ingest.keys import public_secret
from client.ingest.phantom.patients import patients
from client.ingest.phantom.site import write_store
from client.ingest.phantom.style import STYLES
from models.studies.schema import VIEWS, age_band
from models.studies.store import Store

SECRET = public_secret("test")


def write(path, name="north", n=3, seed=2, **more):
    return write_store(path, STYLES[name], n, seed, 48, SECRET, **more)


def test_store_holds_what_was_rendered(tmp_path):
    seen = []
    summary = write(tmp_path / "s", workers=2, progress=lambda done, total: seen.append((done, total)))
    films = list(patients(STYLES["north"], 3, 2, 48))
    assert summary.accepted == len(films)
    assert seen == [(k, 3) for k in range(1, 4)]
    store = Store.open(tmp_path / "s")
    assert len(store) == len(films)
    for row, film in enumerate(films):
        assert np.array_equal(store.pixels(row), film.pixels)
    table = store.table.to_pylist()
    codes = {}
    for line, film in zip(table, films):
        assert (line["day"], line["order"], line["view"], line["sex"]) == (
            film.day,
            film.study,
            film.view,
            film.sex,
        )
        assert line["age_band"] == age_band(film.age) and line["view"] in VIEWS and line["source"] == "north"
        assert {f: line[f"label:{f}"] for f in film.labels} == film.labels
        assert codes.setdefault(film.patient, line["patient"]) == line["patient"]
        assert film.patient not in "".join(map(str, line.values()))
    assert len(set(codes.values())) == 3


def test_one_or_two_workers_killed_or_not_same_bytes(tmp_path):
    write(tmp_path / "a", workers=1)
    write(tmp_path / "b", n=2, workers=1)
    write(tmp_path / "b", workers=2)
    for name in ("studies.parquet", "store.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_again_adds_nothing_and_sites_share_a_store(tmp_path):
    first = write(tmp_path / "s", workers=1)
    assert write(tmp_path / "s", workers=1).accepted == 0
    second = write(tmp_path / "s", "east", workers=1)
    store = Store.open(tmp_path / "s")
    assert len(store) == first.accepted + second.accepted
    patients_of = {line["source"]: set() for line in store.table.to_pylist()}
    for line in store.table.to_pylist():
        patients_of[line["source"]].add(line["patient"])
    assert not patients_of["north"] & patients_of["east"]


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 32"):
        write_store(tmp_path / "s", STYLES["north"], 1, 0, 8, SECRET)
    with pytest.raises(ValueError, match="one patient"):
        write_store(tmp_path / "s", STYLES["north"], 0, 0, 64, SECRET)
