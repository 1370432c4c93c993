"""Bounded inflation of the deflated transfer syntax, before any DICOM library sees a byte of it."""

from __future__ import annotations

import zlib

from client.ingest.codes import Reason
from client.ingest.limits import MIB, Limits
from client.ingest.refusal import Refusal

_CHUNK = MIB


def inflate(data: bytes | memoryview, limits: Limits) -> bytes:
    """Inflate a raw deflate stream (RFC 1951, no zlib header: PS3.5 A.5) chunk by chunk.

    The ratio is judged only above 1 MiB: a small blank image may compress a thousandfold and do no harm.

    Raises:
        Refusal: INFLATE_LIMIT as soon as the output passes a cap, TRUNCATED if the stream does not end,
            BAD_CODESTREAM if it is not a deflate stream.
    """
    cap = min(limits.inflated_bytes, max(MIB, limits.inflate_ratio * len(data)))
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    size = 0
    pending: bytes | memoryview = data
    while not engine.eof:
        try:
            part = engine.decompress(pending, _CHUNK)
        except zlib.error:
            raise Refusal(Reason.BAD_CODESTREAM, "deflate") from None
        pending = engine.unconsumed_tail
        size += len(part)
        if size > cap:
            raise Refusal(Reason.INFLATE_LIMIT)
        if part:
            parts.append(part)
        elif not pending and not engine.eof:
            raise Refusal(Reason.TRUNCATED, "deflate")
    return b"".join(parts)
