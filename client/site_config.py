"""A hospital's own configuration: where its store, secret, policy and socket are. Read by every ``fedcxr-site`` command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from client.policy import Policy
from models.config import ConfigError, build, config, read_yaml


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

    def check(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", self.name):
            raise ConfigError(f"name {self.name!r}: small letters, digits and hyphens, at most 32")
        if self.secret.resolve().is_relative_to(self.store.resolve()):
            raise ConfigError(f"secret {self.secret} and store {self.store}: the secret must lie outside the store")


def load_site(path: Path) -> SiteConfig:
    """Read a site YAML.

    Raises:
        ConfigError: naming every mistake.
    """
    values = read_yaml(path)
    for key in ("store", "secret", "state", "socket"):
        if isinstance(values.get(key), str):
            values[key] = path.resolve().parent / Path(values[key]).expanduser()
    return build(SiteConfig, values, where=path.name)
