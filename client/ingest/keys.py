"""Keyed hashes: the only form in which an identifier enters a study store.

The key (the site's secret) lies outside the store, so that the store alone cannot be searched for a
known patient.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

KEY_LENGTH = 32
"""Hexadecimal digits of a keyed hash (128 bits: no collision to fear below 10^15 items)."""

_SECRET_BYTES = 32
_ORIGIN_RANGE = 1 << 20


class SecretError(RuntimeError):
    """The site's secret is missing, exposed or damaged. The text never shows it."""


def keyed(secret: bytes, *parts: str) -> str:
    """HMAC-SHA256 of ``parts`` under ``secret``, as 32 hexadecimal digits.

    Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.

    Raises:
        SecretError: for a secret shorter than 16 bytes.
    """
    if len(secret) < 16:
        raise SecretError(f"the secret has {len(secret)} bytes; at least 16 are needed (site_secret makes 32)")
    message = bytearray()
    for part in parts:
        raw = part.encode()
        message += len(raw).to_bytes(8, "big")
        message += raw
    return hmac.digest(secret, message, "sha256").hex()[:KEY_LENGTH]


def site_secret(path: Path) -> bytes:
    """Read the site's secret, or make one (32 random bytes, mode 0600) where there is none.

    Back the file up: without it, new studies of known patients cannot be joined to the old ones.

    Raises:
        SecretError: when others may read the file, it is not a regular file, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        _create_secret(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SecretError(f"{path}: not a regular file; give the path of a file that holds the site's secret")
    if status.st_mode & 0o077:
        raise SecretError(
            f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others read the secret; run chmod 600 on it"
        )
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise SecretError(
            f"{path}: cannot be read as hexadecimal text ({type(error).__name__}); restore it from its backup"
        ) from None
    if len(secret) < _SECRET_BYTES:
        raise SecretError(f"{path}: holds {len(secret)} bytes, {_SECRET_BYTES} expected; restore it from its backup")
    return secret


def _create_secret(path: Path) -> None:
    """Make the secret under another name first, so that nobody reads half of it; the first maker wins."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(_SECRET_BYTES).hex().encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise SecretError(
            f"{path}: the secret cannot be created ({error.strerror}); make its folder and let this user write there"
        ) from None


def public_secret(name: str) -> bytes:
    """A key that is *not* secret, for public data sets: every machine gets the same keys and splits.

    Never use it for patients of a hospital: with it, anybody can test whether a known identifier is there.
    """
    return hashlib.sha256(b"fedcxr public data set\0" + name.encode()).digest()


def blinded_day(secret: bytes, patient: str, date: datetime.date) -> int:
    """Days from a secret origin of this patient to ``date``: differences are true, the date is not in it.

    The writer takes such numbers as ``day`` and makes them days since the patient's first study.
    """
    origin = int(keyed(secret, "day origin", patient)[:15], 16) % _ORIGIN_RANGE
    return date.toordinal() - origin
