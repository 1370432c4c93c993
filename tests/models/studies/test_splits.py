from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.studies.splits import DEFAULT_FRACTIONS, split

KEYS = st.lists(st.text(alphabet="0123456789abcdef", min_size=1, max_size=32), max_size=60)


@given(keys=KEYS, others=KEYS, salt=st.text(max_size=8))
def test_a_patient_stays_whoever_else_is_there(keys: list[str], others: list[str], salt: str) -> None:
    alone = split(keys, salt=salt)
    together = split([*others, *keys], salt=salt)
    assert list(alone) == list(together[len(others) :])
    assert len(alone) == len(keys)


@given(keys=KEYS, weights=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any))
def test_every_patient_is_in_one_split_and_empty_fractions_stay_empty(keys: list[str], weights: list[int]) -> None:
    fractions = {f"s{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    names = split(keys, fractions)
    assert {name for name in names} <= {name for name, share in fractions.items() if share > 0}


@settings(max_examples=20)
@given(salt=st.text(max_size=8))
def test_sizes_are_near_the_fractions(salt: str) -> None:
    keys = [hashlib.sha256(f"{salt}{i}".encode()).hexdigest() for i in range(4000)]
    names = split(keys, salt=salt)
    for name, share in DEFAULT_FRACTIONS.items():
        deviation = abs((names == name).mean() - share)
        assert deviation < 5 * np.sqrt(share * (1 - share) / len(keys))


def test_known_answers() -> None:
    """The rule from its definition: a change would move patients between splits of existing stores."""
    for key in ("a", "b", "0f" * 16):
        position = int(hashlib.sha256(f"fedcxr\0{key}".encode()).hexdigest()[:12], 16) / 16**12
        expected = "train" if position < 0.70 else "validation" if position < 0.85 else "test"
        assert split([key]).tolist() == [expected]


def test_same_in_another_process() -> None:
    keys = [str(i) for i in range(50)]
    code = f"from models.studies.splits import split; print(*split({keys!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.split() == split(keys).tolist()


def test_another_salt_is_another_split() -> None:
    keys = [str(i) for i in range(200)]
    assert (split(keys, salt="a") != split(keys, salt="b")).any()


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_bad_fractions(fractions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        split(["a"], fractions)
