"""``fedcxr-site serve``: the site trainer on its socket."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from client.commands.common import unusable
from models.config import ConfigError


def serve_command(site: Annotated[Path, typer.Argument(help="The site's YAML.")]) -> None:
    """Run the site trainer on its socket until it is stopped."""
    from client.service import serve
    from client.site_config import load_site
    from client.trainer import Site, SiteTrainer, pick_device
    from models.studies.store import Store, StoreError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        cfg = load_site(site)
        if cfg.socket is None:
            raise ConfigError("socket: missing; the trainer needs a path to listen on")
        store = Store.open(cfg.store)
        splits = store.split(cfg.fractions)
        rows = {name: (splits == name).nonzero()[0] for name in ("train", "validation", "test")}
        device = pick_device(cfg.device)
        trainer = SiteTrainer(Site(cfg.name, store, rows, cfg.state, cfg.policy, device, cfg.lora_rank))
        server = serve(trainer, cfg.socket)
    except (ConfigError, StoreError, OSError) as error:
        unusable(str(error), False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    server.stop(grace=5).wait()
