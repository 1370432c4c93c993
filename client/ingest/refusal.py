"""The one exception of reading: a reason code, and at most a fixed word about it."""

from __future__ import annotations

from client.ingest.codes import Reason


class Refusal(Exception):
    """An item that is not ingested.

    ``note`` is a word chosen in the code (``"rows"``, ``"ValueError"``), never a value of the item: it is
    stored.
    """

    def __init__(self, reason: Reason, note: str = "") -> None:
        super().__init__(reason.value if not note else f"{reason.value}: {note}")
        self.reason = reason
        self.note = note
