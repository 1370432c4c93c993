"""A hospital's own configuration: where its store, secret, policy and socket are. Read by every ``fedcxr-site`` command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from client.ingest.export import ExportConfig
from client.ingest.reading import ReadConfig
from client.ingest.reports import ReportsConfig
from client.policy import Policy
from models.config import ConfigError, build, config, read_yaml
from models.studies.pairing import PairingRules

_PATHS = ("store", "secret", "state", "socket")
_SERVER_PATHS = ("ca", "node_key")


@config
class ServerAddress:
    """How this site's Flower SuperNode reaches the coordinator. The connection is always TLS.

    Attributes:
        address: ``host:port``; an IPv6 address stands in brackets.
        ca: PEM file with the certificate that the server's must be issued by (``--root-certificates``); ``None``: the
            system's.
        node_key: private key in OpenSSH format by which the server knows this site
            (``--auth-supernode-private-key``); ``None``: the server does not ask for one. There is no client
            certificate: Flower signs its requests instead.
    """

    address: str
    ca: Path | None = None
    node_key: Path | None = None

    def check(self) -> None:
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", self.address)
        if not found or not 1 <= int(found[2]) <= 65535:
            raise ConfigError(
                f"address {self.address!r}: give host:port such as hub.example.org:8443, without https://"
            )

    @property
    def host(self) -> str:
        """Name or number, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@config
class SiteConfig:
    """See configs/sites/example.yaml for every key with its meaning.

    Relative paths are relative to the YAML's own folder.
    """

    name: str
    store: Path
    secret: Path
    state: Path
    """Ledgers, what the site keeps of models, logs."""
    socket: Path | None = None
    device: Literal["cpu", "cuda", "auto"] = "auto"
    fractions: dict[Literal["train", "validation", "test"], float] | None = None
    policy: Policy = Policy()
    server: ServerAddress | None = None
    lora_rank: int | None = None
    """Rank of the low-rank adapters trained here, at most the plan's, for a machine with less memory; only some rules
    combine different ranks. None: the plan's."""
    workers: int = 0
    """Processes that read files; 0: one a core."""
    reading: ReadConfig = ReadConfig()
    reports: ReportsConfig = ReportsConfig()
    pairing: PairingRules = PairingRules()
    export: ExportConfig = ExportConfig()

    def check(self) -> None:
        wrong = contradictions(self.name, self.store, self.secret, self.workers)
        if self.lora_rank is not None and self.lora_rank < 1:
            wrong.append(f"lora_rank {self.lora_rank}: at least 1, or leave it away for the plan's")
        if wrong:
            raise ConfigError("\n".join(wrong))

    @property
    def index(self) -> Path:
        """The site's private index (:mod:`client.ingest.siteindex`), beside its secret."""
        return index_beside(self.secret)


def index_beside(secret: Path) -> Path:
    """Where the private index of the site with this secret lies."""
    return secret.with_name(f"{secret.name}.index")


def contradictions(name: str | None, store: Path | None, secret: Path | None, workers: int | None) -> list[str]:
    """What is wrong with values that are each of the right type; ``None`` for one that is not known."""
    wrong = []
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
        wrong.append(f"name {name!r}: small letters, digits and hyphens, at most 32")
    if secret is not None and store is not None and secret.resolve().is_relative_to(store.resolve()):
        wrong.append(f"secret {secret} and store {store}: the secret must lie outside the store")
    if workers is not None and workers < 0:
        wrong.append(f"workers {workers}: a number of processes, or 0 for one a core")
    return wrong


def load_site(path: Path) -> SiteConfig:
    """Read a site YAML.

    Raises:
        ConfigError: naming every mistake.
    """
    return build(SiteConfig, site_values(path), where=path.name)


def site_values(path: Path) -> dict[str, Any]:
    """The plain values of a site YAML, its paths made absolute.

    Raises:
        ConfigError: the file cannot be read.
    """
    values = read_yaml(path)
    _anchor(values, _PATHS, path.resolve().parent)
    if isinstance(values.get("server"), dict):
        _anchor(values["server"], _SERVER_PATHS, path.resolve().parent)
    return values


def _anchor(values: dict[str, Any], keys: tuple[str, ...], folder: Path) -> None:
    for key in keys:
        if isinstance(values.get(key), str):
            values[key] = folder / Path(values[key]).expanduser()
