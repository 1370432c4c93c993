"""The coordinator's address and certificate, as Flower's SuperNode will meet them, and the site's own key.

A refused certificate is looked at from several sides, since OpenSSL names only the first thing that is wrong: the chain
without dates and name, the name without the chain, the dates by themselves.
"""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from client.preflight.outcome import Check, error, ok, warning

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from client.site_config import ServerAddress

WARN_DAYS = 30
SECONDS = 5.0

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which ssl has no name for
_MISMATCHES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)


class _Peer(NamedTuple):
    certificate: bytes
    protocol: str


def check_server(server: ServerAddress | None) -> Iterator[Check]:
    """Reach the server, and hold its certificate against the authority, the host name and the calendar."""
    if server is None:
        yield warning("server", "not set; needed before this site can take part in a federation")
        return
    authority = yield from _check_authority(server.ca)
    yield from _check_node_key(server.node_key)
    if _proxied(server):
        yield warning(
            "server",
            f"a proxy is set in the environment, and Flower will use it for {server.host}; this check goes directly. "
            f"Add {server.host} to NO_PROXY unless that is meant",
        )
    try:
        socket.create_connection((server.host, server.port), SECONDS).close()
    except OSError as failure:
        yield error("server", f"{server.address}: {_unreachable(failure, server)}")
        return
    try:
        peer = _shake_hands(server, _unverified())
    except OSError as failure:
        yield error("server", f"{server.address}: {_no_tls(failure)}")
        return
    yield ok("server", f"{server.address}: reached, {peer.protocol}")
    yield from _check_certificate(server, peer, authority)


def _check_authority(ca: Path | None):
    """The context that trusts the site's authority; ``None`` where there is none to trust."""
    if ca is None:
        yield ok("ca", "not set; the authorities of this system are trusted")
        return ssl.create_default_context()
    from cryptography import x509

    try:
        data = ca.read_bytes()
        certificates = x509.load_pem_x509_certificates(data)
        context = ssl.create_default_context(cafile=str(ca))
    except FileNotFoundError:
        yield error("ca", f"{ca}: no such file; the coordinator's start-up kit holds it")
        return None
    except ssl.SSLError as failure:
        yield error("ca", f"{ca}: cannot be used as an authority ({failure.reason})")
        return None
    except OSError as failure:
        yield error("ca", f"{ca}: cannot be read ({failure.strerror})")
        return None
    except ValueError:
        yield error("ca", f"{ca}: holds no certificate in PEM form; the coordinator's start-up kit holds it")
        return None
    if b"PRIVATE KEY" in data:
        yield warning(
            "ca", f"{ca}: holds a private key as well; only the coordinator may have it. Tell them, ask for a new one"
        )
    troubles = [found for certificate in certificates if (found := _dates("ca", str(ca), certificate))]
    yield from troubles or [ok("ca", f"{ca}: valid until {min(c.not_valid_after_utc for c in certificates):%Y-%m-%d}")]
    return context


def _check_node_key(path: Path | None) -> Iterator[Check]:
    if path is None:
        yield warning("node key", "not set; a server that asks sites to prove who they are will turn this one away")
        return
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    advice = "make one with: ssh-keygen -t ecdsa -b 384 -N '' -f node"
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        yield error("node key", f"{path}: no such file; {advice}, and let the coordinator register node.pub")
        return
    except OSError as failure:
        yield error("node key", f"{path}: cannot be read ({failure.strerror})")
        return
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield error("node key", f"{path}: not a private key in OpenSSH form without a passphrase; {advice}")
        return
    if not isinstance(key, EllipticCurvePrivateKey):
        yield error("node key", f"{path}: not an elliptic-curve key, and Flower takes no other; {advice}")
    elif path.stat().st_mode & 0o077:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield error("node key", f"{path}: mode {mode:04o}; others could pose as this site: chmod 600 {path}")
    else:
        yield ok("node key", f"{path}: {key.curve.name}")


def _proxied(server: ServerAddress) -> bool:
    proxies = urllib.request.getproxies()
    named = "https" in proxies or "all" in proxies
    return named and not urllib.request.proxy_bypass(f"{server.host}:{server.port}")


def _unreachable(failure: OSError, server: ServerAddress) -> str:
    if isinstance(failure, socket.gaierror):
        return f"the name {server.host} is not known here; check its spelling, and this machine's DNS"
    if isinstance(failure, ConnectionRefusedError):
        return f"nobody listens on port {server.port} there; check the port, and that the server runs"
    if isinstance(failure, TimeoutError):
        return f"no answer within {SECONDS:g} s; a firewall may be in the way"
    return f"cannot be reached ({failure.strerror or type(failure).__name__})"


def _no_tls(failure: OSError) -> str:
    plain = (
        "takes connections, but does not speak TLS; check the port, and that the server was started with a certificate"
    )
    if isinstance(failure, ssl.SSLEOFError | ConnectionError | TimeoutError):
        return plain
    if isinstance(failure, ssl.SSLError):
        return plain if failure.reason in _NOT_TLS else f"TLS cannot be set up with it ({failure.reason})"
    return f"cannot be reached ({failure.strerror or type(failure).__name__})"


def _unverified() -> ssl.SSLContext:
    """Only to look at what the server shows; nothing is sent over such a connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _shake_hands(server: ServerAddress, context: ssl.SSLContext) -> _Peer:
    """
    Raises:
        OSError: also ssl.SSLCertVerificationError.
    """
    with (
        socket.create_connection((server.host, server.port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as secured,
    ):
        return _Peer(secured.getpeercert(True) or b"", secured.version() or "")


def _check_certificate(server: ServerAddress, peer: _Peer, authority: ssl.SSLContext | None) -> Iterator[Check]:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(peer.certificate)
    refused = _refusal(server, authority) if authority else None
    troubles = [] if (found := _dates("certificate", server.address, certificate)) is None else [found]
    if authority is None or refused:
        troubles += [
            found for found in (_wrong_host(server, certificate, peer), _wrong_chain(server, certificate)) if found
        ]
    if refused and not any(found.level == "error" for found in troubles):
        troubles.append(
            error("certificate", f"{server.address}: refused, {refused.verify_message}; tell the coordinator")
        )
    yield from troubles
    if authority and not refused and not troubles:
        until = certificate.not_valid_after_utc
        yield ok("certificate", f"for {_names(certificate)}, issued by the authority, valid until {until:%Y-%m-%d}")


def _refusal(server: ServerAddress, context: ssl.SSLContext) -> ssl.SSLCertVerificationError | None:
    try:
        _shake_hands(server, context)
    except ssl.SSLCertVerificationError as refused:
        return refused
    return None


def _dates(name: str, what: str, certificate: Certificate) -> Check | None:
    """What is wrong with the dates of a certificate, if anything."""
    now = datetime.datetime.now(datetime.UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        return error(
            name, f"{what}: valid from {start:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} here; check the clock"
        )
    if now > end:
        return error(name, f"{what}: expired on {end:%Y-%m-%d}; the coordinator must renew it")
    if (end - now).days < WARN_DAYS:
        return warning(
            name, f"{what}: expires on {end:%Y-%m-%d}, in {(end - now).days} days; the coordinator must renew it"
        )
    return None


def _wrong_host(server: ServerAddress, certificate: Certificate, peer: _Peer) -> Check | None:
    """Whether the certificate is for another host: it is trusted by itself, so that only the name can fail."""
    context = ssl.create_default_context(cadata=peer.certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    refused = _refusal(server, context)
    if refused is None or refused.verify_code not in _MISMATCHES:
        return None
    return error(
        "certificate",
        f"{server.address}: it is for {_names(certificate)}, not for {server.host}; use the name it is for, or have it renewed",
    )


def _wrong_chain(server: ServerAddress, certificate: Certificate) -> Check | None:
    """Whether the authority did not issue the certificate, dates and name aside."""
    try:
        context = ssl.create_default_context(cafile=str(server.ca) if server.ca else None)
    except OSError:
        return None  # said already
    context.check_hostname = False
    context.verify_flags |= _NO_CHECK_TIME
    refused = _refusal(server, context)
    if refused is None:
        return None
    authority = (
        f"the certificate in {server.ca}" if server.ca else "an authority of this system; name the coordinator's: ca"
    )
    return error(
        "certificate",
        f"{server.address}: issued by {_common_name(certificate.issuer)}, not by {authority} ({refused.verify_message}). "
        "Compare the two with the coordinator: this may be another server",
    )


def _names(certificate: Certificate) -> str:
    """Hosts that a certificate is for."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "no host at all (it has no subject alternative name)"
    hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return ", ".join(hosts[:4]) + (", ..." if len(hosts) > 4 else "")


def _common_name(name) -> str:
    from cryptography.x509.oid import NameOID

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return repr(str(found[0].value)) if found else "an authority without a name"
