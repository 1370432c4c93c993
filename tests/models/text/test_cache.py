from __future__ import annotations

import pytest
import torch

from models.text.cache import StaleCache, VectorCache
from tests.models.text.towers import REPORTS, make, stir


def counted(tower):
    seen = []
    real = tower.embed_rows
    tower.embed_rows = lambda rows: seen.append(len(rows)) or real(rows)
    return seen


def test_each_text_is_encoded_once_over_processes(tmp_path):
    tower = make()
    expected = tower.encode(REPORTS, "Sum")
    seen = counted(tower)
    cache = VectorCache(tmp_path / "c", tower)
    assert torch.allclose(cache.encode(REPORTS[:4], "Sum"), expected[:4], atol=1e-6)
    kept = cache.encode(list(reversed(REPORTS)), "Sum")
    assert torch.allclose(kept, expected.flip(0), atol=1e-6)
    again = VectorCache(tmp_path / "c", make())  # another process has the same tower
    fresh = counted(again.encoder)
    assert torch.equal(again.encode(REPORTS, "Sum"), kept.flip(0))
    assert seen == [4, 3] and fresh == [] and len(again) == len(REPORTS)


def test_the_instruction_counts(tmp_path):
    tower = make()
    cache = VectorCache(tmp_path, tower)
    plain, told = cache.encode(REPORTS), cache.encode(REPORTS, ["Sum"] * len(REPORTS))
    assert torch.allclose(plain, tower.encode(REPORTS)) and torch.allclose(told, tower.encode(REPORTS, "Sum"))
    assert len(cache) == 2 * len(REPORTS) and cache.encode([]).shape == (0, 32)


def test_a_training_step_makes_it_stale(tmp_path):
    tower = make(lora={"rank": 4})
    cache = VectorCache(tmp_path, tower)
    cache.encode(REPORTS)
    stir(tower)
    with pytest.raises(StaleCache, match="other weights"):
        cache.encode(REPORTS[:1])
    with pytest.raises(StaleCache, match="other weights"):
        VectorCache(tmp_path, tower)


def test_a_change_behind_autograd_s_back_is_seen(tmp_path):
    tower = make()
    cache = VectorCache(tmp_path, tower)
    tower.trunk.norm.weight.data[0] += 1e-3
    with pytest.raises(StaleCache):
        cache.encode(REPORTS[:1])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 1}, "other weights"),
        ({"pooling": "last"}, "other config"),
        ({"max_tokens": 64}, "other tokenizer, config"),
        ({"scratch": {"vocabulary": 1100}}, "other weights, tokenizer, config"),
        ({"project": 8}, "other weights, config"),
    ],
)
def test_another_tower_is_refused(tmp_path, other, says):
    VectorCache(tmp_path, make()).encode(REPORTS[:1])
    with pytest.raises(StaleCache, match=says):
        VectorCache(tmp_path, make(**other))


@pytest.mark.parametrize("same", [{"batch_tokens": 256}, {"checkpoint": True}, {"language_head": True}])
def test_what_changes_no_vector_is_no_reason(tmp_path, same):
    expected = VectorCache(tmp_path, make()).encode(REPORTS)
    assert torch.allclose(VectorCache(tmp_path, make(**same)).encode(REPORTS), expected)


def test_no_text_is_written(tmp_path):
    VectorCache(tmp_path, make()).encode(["zebra zebra"])
    assert all(b"zebra" not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_broken_cache_is_refused(tmp_path):
    VectorCache(tmp_path, make()).encode(REPORTS)
    (tmp_path / "cache.json").write_text("[]")
    with pytest.raises(StaleCache):
        VectorCache(tmp_path, make())
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(StaleCache, match="cannot be read"):
        VectorCache(tmp_path, make())
