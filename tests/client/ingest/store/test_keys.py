from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.ingest.writer import SecretError, blinded_day, keyed, public_secret, site_secret

SECRET = b"k" * 32


def test_keyed_is_hmac_sha256_cut_to_32_digits() -> None:
    message = (2).to_bytes(8, "big") + b"ab" + (1).to_bytes(8, "big") + b"c"
    assert keyed(SECRET, "ab", "c") == hmac.new(SECRET, message, hashlib.sha256).hexdigest()[:32]


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_different_parts_give_different_keys(a: list[str], b: list[str]) -> None:
    assert (keyed(SECRET, *a) == keyed(SECRET, *b)) == (a == b)


def test_another_secret_gives_other_keys() -> None:
    assert keyed(SECRET, "a") != keyed(b"j" * 32, "a")
    with pytest.raises(SecretError, match="at least 16"):
        keyed(b"short", "a")


def test_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = site_secret(path)
    assert len(first) == 32 and site_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert site_secret(tmp_path / "other") != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_exposed_secret_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    value = site_secret(path).hex()
    os.chmod(path, mode)
    with pytest.raises(SecretError, match="chmod 600") as caught:
        site_secret(path)
    assert value not in str(caught.value)


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31])
def test_damaged_secret_is_refused_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SecretError, match="restore it from its backup"):
        site_secret(path)
    assert path.read_text() == text


def test_secret_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="make its folder"):
        site_secret(tmp_path / "nowhere" / "secret")


def test_public_secret_is_the_same_everywhere() -> None:
    assert public_secret("a") == public_secret("a") != public_secret("b")
    assert len(public_secret("a")) == 32


@given(st.dates(), st.dates(), st.text(max_size=8))
def test_blinded_days_keep_differences_only(a: datetime.date, b: datetime.date, patient: str) -> None:
    assert blinded_day(SECRET, patient, b) - blinded_day(SECRET, patient, a) == (b - a).days
    assert abs(blinded_day(SECRET, patient, a)) < 2**30


def test_blinded_days_of_two_patients_do_not_line_up() -> None:
    day = datetime.date(2020, 1, 1)
    assert len({blinded_day(SECRET, str(i), day) for i in range(50)}) == 50
