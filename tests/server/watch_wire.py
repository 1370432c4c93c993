"""Run a command in this (new) network namespace and report every IP packet that tried to leave it, as one JSON line.

The namespace gets loopback and one wire (its far end is open) that carries the default route and the only name server, so that
whatever wants out, by name or by number, puts a packet on that wire.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading

WIRE, FAR = "wire0", "far0"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def main() -> None:
    ip("link", "set", "lo", "up")
    ip("link", "add", WIRE, "type", "veth", "peer", "name", FAR)
    ip("addr", "add", "10.99.0.2/24", "dev", WIRE)
    # Nobody is at the far end to answer "who has": without ARP the packets themselves go on the wire.
    ip("link", "set", WIRE, "arp", "off", "up")
    ip("link", "set", FAR, "up")
    ip("route", "add", "default", "via", "10.99.0.1", "dev", WIRE)
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as resolver:
        resolver.write("nameserver 10.99.0.53\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", resolver.name, "/etc/resolv.conf"], check=True)

    packets: list[str] = []
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))  # IPv4 only: IPv6 greets by itself
    tap.bind((FAR, 0x0800))  # what goes out arrives at the far end

    def watch() -> None:
        while True:
            data = tap.recv(2048)
            protocol, target = data[9], socket.inet_ntoa(data[16:20])
            port = int.from_bytes(data[22:24], "big") if protocol in (6, 17) else 0
            packets.append(f"{target}:{port} {data[28:100]!r}")

    threading.Thread(target=watch, daemon=True).start()

    done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
    seen = list(packets)
    packets.clear()
    with contextlib.suppress(OSError):
        socket.create_connection(("example.org", 80), timeout=2)
    print(done.stderr[-2000:], file=sys.stderr)
    print(json.dumps({"command_exit": done.returncode, "packets": seen, "control_packets": len(packets)}))


main()
