"""Virtual sites: the site trainers of a simulation, warm in this process, and the store they share.

Stores made here hold public or generated images, so their keys are derived from a fixed word: two machines make the
same store, and the same split. A hospital's store is made by ``fedcxr-site`` with a secret of its own.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.ingest.keys import public_secret
from client.ingest.layouts import LayoutError, load_layout
from client.ingest.pool import PoolError
from client.ingest.writer import StoreWriteError
from client.policy import Policy
from client.trainer import Site, SiteTrainer, pick_device
from models.config import ConfigError
from models.studies.partition import PartitionError
from models.studies.store import Store, StoreError
from strategies.code import ROOT, code_hash
from strategies.launch import Launch, launch
from strategies.messages import Answer, Ask, Code, Refusal
from strategies.virtual import (
    POOLED,
    corrupted_rows,
    open_store,
    pooled_rows,
    server_rows,
    site_rows,
    store_path,
    unlabelled_rows,
)

log = logging.getLogger("fedcxr.virtual")

_warm: dict[tuple[str, str], SiteTrainer] = {}
_opened: dict[str, tuple[Launch, Store, dict[str, Any]]] = {}
_lock = threading.Lock()
_one_at_a_time = threading.Lock()
"""Models begin from torch's global generator, of which a process has one: two sites at once would disturb each other's."""


def handle(ask: Ask, run_config: dict[str, Any]) -> Answer:
    """Answer for the virtual site that ``ask`` names."""
    if ask.code_hash != code_hash():
        text = (
            f"this process imported other source than the server ships (here: {ROOT.name}); "
            f"stop the local Flower daemon and start the run from another folder"
        )
        return Answer(site=ask.site, refusal=Refusal(Code.STALE_CODE, text))
    try:
        launched = launch(run_config)
        _log_beside(launched.out / ask.run / "sites" / "sites.log")
        trainer = _trainer(ask, run_config)
    except (ConfigError, LayoutError, PartitionError, PoolError, StoreError, StoreWriteError) as error:
        return Answer(site=ask.site, refusal=Refusal(Code.NO_DATA, str(error)))
    with _one_at_a_time:
        return trainer.handle(ask)


def _log_beside(path: Path) -> None:
    """The virtual sites' own log: what an error code leaves out is found there, and nowhere else."""
    root = logging.getLogger("fedcxr")
    if any(getattr(handler, "baseFilename", None) == str(path) for handler in root.handlers):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s %(levelname)s %(message)s"))
    handler.setLevel(logging.WARNING)
    root.addHandler(handler)


def _trainer(ask: Ask, run_config: dict[str, Any]) -> SiteTrainer:
    key = (ask.run, ask.site)
    with _lock:
        if key not in _warm:
            launched, store, rows = _open(ask.run, run_config)
            store = store.without_labels(unlabelled_rows(launched, store, rows))
            if launched.plan.simulation.corrupt_labels:
                store = store.with_wrong_labels(corrupted_rows(launched, store, rows))
            if ask.site == POOLED:
                mine = pooled_rows(rows, server_rows(launched, store))
            elif ask.site in rows:
                mine = rows[ask.site]
            else:
                raise ConfigError(f"site {ask.site!r}: this plan's sites are {', '.join(rows)}")
            folder = launched.out / ask.run / "sites" / ask.site
            policy = Policy(min_cell=launched.plan.evaluation.min_cell)
            rank = launched.plan.simulation.lora_ranks.get(ask.site)
            _warm[key] = SiteTrainer(Site(ask.site, store, mine, folder, policy, pick_device(), rank))
        return _warm[key]


def _open(run: str, run_config: dict[str, Any]) -> tuple[Launch, Store, dict[str, Any]]:
    if run not in _opened:
        launched = launch(run_config)
        store = ensure_store(launched)
        _opened[run] = (launched, store, site_rows(launched, store))
    return _opened[run]


def ensure_store(launched: Launch) -> Store:
    """Open the shared store, making it first if it is not there. Of several processes one makes it, the rest wait.

    Raises:
        ConfigError, LayoutError, StoreError, StoreWriteError: the images cannot be read; the text says what to do.
    """
    simulation, path = launched.plan.simulation, store_path(launched)
    if simulation.store:
        return open_store(launched)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = path.parent / f".{path.name}.ready"  # an interrupted store has none, and is resumed
        if not ready.exists():
            _make(launched, path)
            ready.touch()
    return open_store(launched)


def _make(launched: Launch, path: Path) -> None:
    # Imported here: most processes of a simulation find the store made, and start faster without these.
    from client.ingest.importer import import_folder
    from client.ingest.phantom.site import write_store
    from client.ingest.phantom.style import style

    simulation, secret = launched.plan.simulation, public_secret("simulation")
    if simulation.phantom:
        made = simulation.phantom
        for name in made.styles:
            hospital = replace(style(name), mildest=made.mildest)
            write_store(path, hospital, made.patients, launched.plan.seed, made.short_side, secret)
    for item in simulation.imports:
        folder = launched.data / item.folder
        import_folder(folder, load_layout(item.layout), path, secret, short_side=simulation.short_side)
