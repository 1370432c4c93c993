"""Pseudonyms that only the site can make: keys, unique identifiers and one secret date shift per patient.

All are keyed hashes under the site's secret (:func:`client.ingest.keys.site_secret`), so they are the same
in every ingest and every export of a site, need no table that could be stolen, and cannot be turned round
without the secret. Every purpose has its own domain: an exported patient cannot be joined to a row of the
store by comparing keys.

**Days.** The store's ``day`` counts from the patient's first study. The first study is only known when all
are in, and an earlier one may arrive years later. So nothing is anchored at ingest: :meth:`Pseudonyms.day`
gives days from a secret origin of the patient, which is what the store's journal and the private index
keep, and the writer subtracts the patient's smallest when it folds the journal. The result depends on the
set of studies, not on their order of arrival.
"""

from __future__ import annotations

import datetime
import uuid

from client.ingest.keys import blinded_day, keyed

SHIFT_DAYS = (366, 3652)
"""Least and greatest number of days by which an exported date moves into the past: one to ten years."""

EARLIEST = datetime.date(1850, 1, 1)
"""A date before the first radiograph is a typing error, and is treated as missing."""


class Pseudonyms:
    """All pseudonyms of one site.

    Args:
        secret: the site's secret, 16 bytes or more.

    Raises:
        SecretError: for a short secret.
    """

    def __init__(self, secret: bytes) -> None:
        keyed(secret, "check")
        self._secret = secret

    def patient(self, patient_id: str, issuer: str = "") -> str:
        """Store key of a patient; two issuers may use one number for two people."""
        return keyed(self._secret, "patient", _plain(issuer), _plain(patient_id))

    def study(self, study_uid: str) -> str:
        """Store key of a study."""
        return keyed(self._secret, "study", _plain(study_uid))

    def image(self, instance_uid: str) -> str:
        """Store key of an image."""
        return keyed(self._secret, "image", _plain(instance_uid))

    def accession(self, number: str) -> str:
        """Key under which an accession number is matched."""
        return keyed(self._secret, "accession", _plain(number))

    def report(self, text: str) -> str:
        """Digest of a report's text, to tell a copy from a contradiction."""
        return keyed(self._secret, "report", text)

    def day(self, patient: str, date: datetime.date) -> int:
        """Days from the patient's secret origin to ``date``; ``patient`` is a store key."""
        return blinded_day(self._secret, patient, date)

    def exported_patient(self, patient_id: str, issuer: str = "") -> str:
        """Patient identifier in an export, 32 hexadecimal digits. Not the store key."""
        return keyed(self._secret, "exported patient", _plain(issuer), _plain(patient_id))

    def exported_uid(self, uid: str) -> str:
        """A unique identifier in place of ``uid``: ``2.25.`` and a UUID (version 8, 122 keyed bits) as an
        integer.

        Source: PS3.5 Annex B.2 for the root, RFC 9562 section 5.8 for the version.
        """
        bits = int(keyed(self._secret, "exported uid", _plain(uid)), 16)
        bits = bits & ~(0xF << 76) | 0x8 << 76  # version 8: custom
        bits = bits & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
        return f"2.25.{uuid.UUID(int=bits).int}"

    def shift(self, patient_id: str, issuer: str = "") -> datetime.timedelta:
        """How far the exported dates of a patient move: whole days into the past, within ``SHIFT_DAYS``,
        never zero.

        One shift per patient, so that intervals and order stay true.
        """
        low, high = SHIFT_DAYS
        bits = int(keyed(self._secret, "date shift", _plain(issuer), _plain(patient_id)), 16)
        return -datetime.timedelta(days=low + bits % (high - low + 1))


def parse_date(value: str) -> datetime.date | None:
    """Date of a DICOM DA or DT value, or of an ISO date with or without a time; ``None`` where there is none.

    Only the day is read. Dates before :data:`EARLIEST` count as missing.
    """
    text = _plain(value).replace("-", "").replace(".", "")[:8]
    if len(text) != 8 or not (text.isascii() and text.isdigit()):
        return None
    try:
        date = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
    return date if date >= EARLIEST else None


def _plain(value: str) -> str:
    """``value`` without the padding that DICOM and spreadsheets add: NUL and white space at the ends."""
    return value.strip("\0 \t\r\n")
