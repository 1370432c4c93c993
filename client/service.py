"""The site trainer as a gRPC service on a UNIX socket, in a process of its own.

In a hospital the trainer's process holds data, model and device and has no network; the Flower client's process has
network and no data. Between them lies this socket, which only the site's user can open (folder 0700, socket 0600).
Messages are ``strategies.messages.pack``ed and streamed in chunks, so their size is bounded by memory alone.

What it does not do: it does not encrypt, and it trusts whoever may open the socket.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import grpc

from strategies.messages import Answer, Ask, Code, ProtocolError, Refusal, pack, unpack

log = logging.getLogger("fedcxr.service")

METHOD = "/fedcxr.Trainer/Handle"
CHUNK = 1 << 20
MAX_BYTES = 16 << 30


class Handler(Protocol):
    """What can be served: the site trainer."""

    def handle(self, ask: Ask) -> Answer: ...


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def _joined(chunks: Iterable[bytes]) -> bytes:
    parts, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_BYTES:
            raise ProtocolError(f"message over {MAX_BYTES} bytes")
        parts.append(chunk)
    return b"".join(parts)


def serve(trainer: Handler, socket: Path) -> grpc.Server:
    """Start serving ``trainer`` on ``socket`` and return the running server (``server.stop(grace)`` ends it).

    Raises:
        OSError: the folder of the socket belongs to somebody else or is open to others.
    """
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stat = socket.parent.stat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        raise OSError(f"{socket.parent}: must belong to this user with mode 0700, or others could ask the trainer")
    one_at_a_time = threading.Lock()  # one model, one device

    def handle(request: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            ask = unpack(Ask, _joined(request))
        except ProtocolError as error:
            answer = Answer(site="", refusal=Refusal(Code.BAD_REQUEST, str(error)))
        else:
            with one_at_a_time:
                answer = trainer.handle(ask)
        yield from _chunks(pack(answer))

    class Route(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.stream_stream_rpc_method_handler(handle) if details.method == METHOD else None

    server = grpc.server(ThreadPoolExecutor(max_workers=4), handlers=(Route(),))
    if server.add_insecure_port(f"unix:{socket}") == 0:
        raise OSError(f"{socket}: cannot listen there")
    server.start()
    socket.chmod(0o600)
    log.info("trainer listens on its socket")
    return server


def ask_service(socket: str, ask: Ask, timeout: float | None = None) -> Answer:
    """Send ``ask`` to the trainer behind ``socket``; a trainer that is not there is a refusal, not an exception."""
    try:
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            call = channel.stream_stream(METHOD)
            return unpack(Answer, _joined(call(_chunks(pack(ask)), timeout=timeout)))
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else "unknown"
        return Answer(site=ask.site, refusal=Refusal(Code.UNREACHABLE, f"the site's trainer did not answer ({code})"))
    except ProtocolError as error:
        return Answer(site=ask.site, refusal=Refusal(Code.BAD_REQUEST, str(error)))
