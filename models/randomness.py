"""One seed a run, one stream a purpose.

A stream is named by what it is for, e.g. ``stream(7, "diagnosis", 3, "north", "order")``. Streams are independent
of each other and of the order in which they are drawn, so a site's numbers do not depend on which process,
actor or machine runs it, nor on the other sites. Privacy noise never comes from here: it must not be reproducible.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """63-bit seed of the stream called ``names``."""
    text = "\x1f".join(f"{type(n).__name__}:{n}" for n in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> torch.Generator:
    """CPU generator of the stream called ``names``. Torch uses the low 32 bits of its seed."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))
