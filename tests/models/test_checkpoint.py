"""Safetensors only, whole or not at all."""

from __future__ import annotations

import os
import pickle

import pytest
import safetensors
import torch

import models.checkpoint as checkpoint
from models.checkpoint import load, save, write_atomically

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    made = {f"vision/{d}": torch.randint(0, 2, (3, 4), generator=g).to(d) for d in DTYPES}
    made["head.x/0-dim"] = torch.tensor(2.5)
    made["head.x/empty"] = torch.zeros(0, 3)
    made["head.x/transposed"] = torch.randn(4, 5, generator=g).t()
    made["head.x/grad"] = torch.randn(3, generator=g).requires_grad_()
    return made


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    path, given = tmp_path / "model.safetensors", tensors()
    save(path, given)
    found = load(path)
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        assert torch.equal(found[name], value.detach())
    with safetensors.safe_open(path, "pt") as file:  # an independent reader of the format
        assert set(file.keys()) == set(given)


def test_nothing_is_left_beside_the_file(tmp_path):
    save(tmp_path / "model.safetensors", tensors())
    write_atomically(tmp_path / "state.json", b"{}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "state.json"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save(path, {"a": torch.ones(2)})
    write_atomically(tmp_path / "state.json", b"old")

    def power_cut(*_):
        raise OSError("no power")

    monkeypatch.setattr(checkpoint.os, "replace", power_cut)
    with pytest.raises(OSError, match="no power"):
        save(path, {"a": torch.zeros(2)})
    with pytest.raises(OSError, match="no power"):
        write_atomically(tmp_path / "state.json", b"new")
    assert torch.equal(load(path)["a"], torch.ones(2))
    assert (tmp_path / "state.json").read_bytes() == b"old"
    monkeypatch.undo()
    save(path, {"a": torch.zeros(2)})  # and what the cut left behind is in nobody's way
    assert torch.equal(load(path)["a"], torch.zeros(2))


@pytest.mark.parametrize("kind", ["tensors", "bytes"])
def test_the_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch, kind):
    happened = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda fd: (happened.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(checkpoint.os, "replace", lambda *a: (happened.append("rename"), real_replace(*a))[1])
    if kind == "tensors":
        save(tmp_path / "x", {"a": torch.ones(2)})
    else:
        write_atomically(tmp_path / "x", b"data")
    assert happened == ["sync", "rename"]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.999])
def test_a_torn_file_is_refused(tmp_path, share):
    path = tmp_path / "model.safetensors"
    save(path, {"a": torch.randn(100)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(path)


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["FEDCXR_TEST_BOMB"],))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch, writer):
    bomb = tmp_path / "exploded"
    monkeypatch.setenv("FEDCXR_TEST_BOMB", str(bomb))
    path = tmp_path / "model.safetensors"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(_Bomb()))
    else:
        torch.save({"a": _Bomb()}, path)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(path)
    assert not bomb.exists()
    pickle.loads(pickle.dumps(_Bomb()))  # the control: unpickling it does run it
    assert bomb.exists()


def test_a_missing_file_or_a_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="no such checkpoint"):
        load(tmp_path / "absent")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(tmp_path)
