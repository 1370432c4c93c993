"""What a site keeps between rounds: the right state for a round that is asked for again, and no more than a few."""

from __future__ import annotations

import torch

from client.keeping import HELD, Kept


def state(value: float) -> dict[str, torch.Tensor]:
    return {"site.teacher/w": torch.full((3,), value)}


def value(found) -> float | None:
    return float(found["site.teacher/w"][0]) if found else None


def test_a_round_begins_with_what_the_one_before_left(tmp_path):
    kept = Kept(tmp_path / "run")
    assert kept.last() == {} and kept.before("one", 1) == {}
    for number in range(1, 4):
        assert value(kept.before("one", number)) == (number - 1 or None)
        kept.put("one", number, state(number))
    assert value(kept.before("two", 1)) == 3  # over the border of phases
    kept.put("two", 1, state(10))
    assert value(kept.last()) == 10
    assert value(Kept(tmp_path / "run").before("two", 2)) == 10  # another process


def test_a_round_asked_for_again_begins_where_it_began(tmp_path):
    """The server fell back to its last checkpoint: what was kept of later rounds is forgotten."""
    kept = Kept(tmp_path / "run")
    for number in range(1, 4):
        kept.put("one", number, state(number))
    assert value(kept.before("one", 3)) == 2
    assert value(kept.last()) == 2
    kept.put("one", 3, state(33))
    assert value(kept.before("one", 4)) == 33
    assert value(kept.before("one", 2)) == 1
    assert value(kept.last()) == 1


def test_a_round_that_was_missed_goes_on_from_the_last_one_done(tmp_path):
    kept = Kept(tmp_path / "run")
    kept.put("one", 1, state(1))
    assert value(kept.before("one", 5)) == 1


def test_only_the_last_states_stay_on_disk_and_nothing_is_written_for_nothing(tmp_path):
    kept = Kept(tmp_path / "run")
    kept.put("one", 1, {})
    assert not (tmp_path / "run").exists()
    for number in range(1, 10):
        kept.put("one", number, state(number))
    assert len(list((tmp_path / "run").glob("*.safetensors"))) == HELD
    assert value(kept.before("one", 9)) == 8
    assert len(list((tmp_path / "run").glob("*.safetensors"))) == HELD - 1
    kept.put("one", 9, state(90))
    assert value(kept.last()) == 90


def test_a_run_asked_for_from_its_start_forgets_everything(tmp_path):
    kept = Kept(tmp_path / "run")
    for number in range(1, 3):
        kept.put("one", number, state(number))
    assert kept.before("one", 1) == {} and kept.last() == {}
