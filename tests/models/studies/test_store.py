from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.studies.schema import Label
from models.studies.store import Store, StoreError


def pictures(count: int) -> list[dict]:
    generator = np.random.default_rng(0)
    return [
        {"pixels": generator.integers(0, 256, (60 + i, 90 - i), dtype=np.uint8), "patient": f"p{i % 3}"}
        for i in range(count)
    ]


def test_pixels_and_labels_come_back_as_written(make_store: Callable[..., Store]) -> None:
    rows = pictures(5)
    rows[1]["label:Edema"] = 1
    rows[2]["label:Edema"] = -1
    rows[3]["label:Own Label"] = 0
    store = make_store(rows, free=("Own Label",))
    assert len(store) == 5
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(store.pixels(i), row["pixels"])
    labels = store.labels(["Own Label", "Edema", "Not In The Store"])
    assert labels.dtype == np.int8
    unmentioned = int(Label.UNMENTIONED)
    assert labels.tolist() == [
        [unmentioned, unmentioned, unmentioned],
        [unmentioned, 1, unmentioned],
        [unmentioned, -1, unmentioned],
        [0, unmentioned, unmentioned],
        [unmentioned, unmentioned, unmentioned],
    ]
    assert store.findings[-1] == "Own Label"
    codes, keys = store.patients
    assert len(keys) == 3 and list(keys) == sorted(keys)
    assert list(keys[codes]) == list(store.strings("patient"))


def test_pixels_cannot_be_written(make_store: Callable[..., Store]) -> None:
    store = make_store(pictures(1))
    with pytest.raises(ValueError):
        store.pixels(0)[0, 0] = 1
    with pytest.raises(ValueError):
        store.resized(32)[0, 0, 0] = 1


def test_where_selects_rows(make_store: Callable[..., Store]) -> None:
    rows = pictures(4)
    for row, view, sex in zip(rows, ("PA", "AP", "LATERAL", "PA"), "FFMM"):
        row.update(view=view, sex=sex)
    store = make_store(rows)
    assert store.where(view=("PA", "AP")).tolist() == [0, 1, 3]
    assert store.where(view="PA", sex="M").tolist() == [3]
    with pytest.raises(StoreError, match="no column 'colour'"):
        store.where(colour="red")


@pytest.mark.parametrize("size", [32, 60, 128])
def test_resized_equals_a_direct_computation(make_store: Callable[..., Store], size: int) -> None:
    rows = pictures(3)
    store = make_store(rows)
    for fit in ("crop", "pad", "squash"):
        got = store.resized(size, fit)
        assert got.shape == (3, size, size) and got.dtype == np.uint8
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(got[i], expected(row["pixels"], size, fit), err_msg=fit)


def expected(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
    height, width = pixels.shape
    if fit == "crop":
        side = min(height, width)
        pixels = pixels[(height - side) // 2 :][:side, (width - side) // 2 :][:, :side]
    if fit == "pad":
        side = max(height, width)
        h, w = round(height * size / side), round(width * size / side)
    else:
        h = w = size
    if pixels.shape != (h, w):
        method = cv2.INTER_AREA if h <= pixels.shape[0] and w <= pixels.shape[1] else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (w, h), interpolation=method)
    out = np.zeros((size, size), dtype=np.uint8)
    top, left = (size - h) // 2, (size - w) // 2
    out[top : top + h, left : left + w] = pixels
    return out


def test_area_resize_keeps_the_mean_of_blocks(make_store: Callable[..., Store]) -> None:
    """A factor of two: every pixel is the mean of its block of four, whatever OpenCV calls its method."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    got = make_store([{"pixels": pixels}]).resized(32)[0]
    blocks = pixels.reshape(32, 2, 32, 2).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(got - blocks).max() <= 0.5


def test_resized_is_made_once_and_kept(make_store: Callable[..., Store]) -> None:
    store = make_store(pictures(5))
    calls: list[tuple[int, int]] = []
    store.resized(32, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)
    [made] = (store.path / "derived").glob("*.u8")
    stamp = made.stat().st_mtime_ns
    calls.clear()
    again = Store.open(store.path)
    again.resized(32, progress=lambda done, total: calls.append((done, total)))
    assert not calls and made.stat().st_mtime_ns == stamp


def test_a_half_made_resized_file_is_made_again(make_store: Callable[..., Store]) -> None:
    store = make_store(pictures(2))
    good = np.array(store.resized(32))
    [made] = (store.path / "derived").glob("*.u8")
    made.write_bytes(made.read_bytes()[:100])
    np.testing.assert_array_equal(Store.open(store.path).resized(32), good)


def test_resized_files_of_a_store_that_grew_are_removed(make_store: Callable[..., Store]) -> None:
    store = make_store(pictures(2))
    before = store.resized(32)
    store.resized(16)
    about = json.loads((store.path / "store.json").read_text())
    (store.path / "store.json").write_text(json.dumps({**about, "note": 1}))
    grown = Store.open(store.path)
    np.testing.assert_array_equal(grown.resized(32), before)
    names = sorted(file.name for file in (store.path / "derived").glob("*.u8"))
    assert names == [f"16-crop-{store.digest[:16]}.u8", f"32-crop-{grown.digest[:16]}.u8"]


def test_resized_goes_to_another_cache(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(pictures(2))
    Store.open(path, cache=tmp_path / "cache").resized(16)
    assert not (path / "derived").exists()
    assert len(list((tmp_path / "cache").glob("16-crop-*.u8"))) == 1


def test_unwritable_cache_is_said(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(pictures(2))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="resized images cannot be written"):
        Store.open(path, cache=tmp_path / "file").resized(16)


def _resize(path: Path) -> int:
    return int(Store.open(path).resized(64).sum())


def test_two_processes_make_the_same_resized_file(write: Callable[..., Path]) -> None:
    path = write(pictures(40))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_resize, [path, path])
    assert first == second == _resize(path)


@pytest.mark.parametrize(("size", "fit", "text"), [(4, "crop", "8 to 2048"), (224, "stretch", "crop, pad, squash")])
def test_bad_size_and_fit(make_store: Callable[..., Store], size: int, fit: str, text: str) -> None:
    with pytest.raises(StoreError, match=text):
        make_store(pictures(1)).resized(size, fit)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        Store.open(tmp_path / "nothing")


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a study store"):
        Store.open(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(StoreError, match="did not finish"):
        Store.open(tmp_path)


def test_empty_store(write: Callable[..., Path]) -> None:
    with pytest.raises(StoreError, match="holds no image"):
        Store.open(write([]))


def test_other_schema_version(write: Callable[..., Path]) -> None:
    with pytest.raises(StoreError, match="schema version 99"):
        Store.open(write(pictures(1), schema_version=99))


def test_truncated_shard(write: Callable[..., Path]) -> None:
    path = write(pictures(2))
    shard = path / "images" / "shard-00000.u8"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match="cut short"):
        Store.open(path)
    shard.unlink()
    with pytest.raises(StoreError, match="0 bytes"):
        Store.open(path)


def test_table_and_description_must_belong_together(write: Callable[..., Path]) -> None:
    path = write(pictures(2))
    table = path / "studies.parquet"
    table.write_bytes(table.read_bytes() + b" ")
    with pytest.raises(StoreError, match=r"not the one that store.json describes"):
        Store.open(path)
    table.unlink()
    with pytest.raises(StoreError, match=r"no studies.parquet"):
        Store.open(path)
    (path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="not valid JSON"):
        Store.open(path)


def test_digest_follows_the_description(write: Callable[..., Path]) -> None:
    path = write(pictures(1))
    before = Store.open(path).digest
    assert Store.open(path).digest == before
    about = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**about, "note": 1}))
    assert Store.open(path).digest != before


def test_split_of_rows_is_by_patient(make_store: Callable[..., Store]) -> None:
    store = make_store([{"patient": f"p{i % 20}"} for i in range(60)])
    names = store.split({"train": 0.5, "test": 0.5})
    for code in range(20):
        assert len(set(names[store.patients.codes == code])) == 1
    assert set(names) == {"train", "test"}
