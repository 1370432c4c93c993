"""fedcxr-site: a hospital's commands. Exit codes: 0 done, 1 it failed, 2 what was asked cannot be done."""

from __future__ import annotations

import json
import logging
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from models.config import ConfigError

UNUSABLE = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A hospital's side: its studies, its policy, its trainer. Nothing leaves except through the trainer's outbox.",
    epilog="Example:  fedcxr-site import --layout image-folder --folder films --store store --secret site.secret",
)
console, errors = Console(), Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable object and nothing else.")]


@app.command("import", epilog="Example:  fedcxr-site import --layout chestxray14 --folder CXR14 --store store --secret key")
def import_command(
    folder: Annotated[Path, typer.Option("--folder", help="Folder with the images and their CSV.")],
    store: Annotated[Path, typer.Option("--store", help="Study store to make or to add to.")],
    secret: Annotated[Path, typer.Option("--secret", help="The site's secret file; made on first use.")],
    layout: Annotated[str, typer.Option("--layout", help="Name of a shipped layout, or a YAML.")] = "image-folder",
    workers: Annotated[int, typer.Option("--workers", help="Decoding processes; 0: one a core.")] = 0,
    short_side: Annotated[int, typer.Option("--short-side", help="Stored short side in pixels.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Read an image folder with a CSV into a study store; run again to go on or to add."""
    from client.ingest.importer import import_folder
    from client.ingest.journal import StoreWriteError
    from client.ingest.keys import SecretError, site_secret
    from client.ingest.layouts import LayoutError, load_layout
    from client.ingest.pool import PoolError

    try:
        with Progress(console=errors, disable=as_json) as bar:
            task = bar.add_task("reading images", total=None)
            summary = import_folder(
                folder,
                load_layout(layout),
                store,
                site_secret(secret),
                workers or None,
                lambda done, total: bar.update(task, completed=done, total=total),
                short_side=short_side,
            )
    except (ConfigError, LayoutError, PoolError, SecretError, StoreWriteError) as error:
        _unusable(str(error), as_json)
    if as_json:
        console.print_json(json.dumps(asdict(summary)))
        return
    console.print(f"{summary.accepted} images added, {summary.duplicate} there already, {summary.seconds:.1f} s", highlight=False)
    if summary.changed:
        console.print(f"  {summary.changed} rows now say something else; the store keeps what it has", highlight=False)
    for code, count in summary.quarantined.items():
        console.print(f"  {count} quarantined: {code} ({_advice(code)})", highlight=False)


def _advice(code: str) -> str:
    from client.ingest.codes import ADVICE, Reason

    return ADVICE[Reason(code)]


@app.command("serve", epilog="Example:  fedcxr-site serve site.yaml")
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
        trainer = SiteTrainer(Site(cfg.name, store, rows, cfg.state, cfg.policy, pick_device(cfg.device)))
        server = serve(trainer, cfg.socket)
    except (ConfigError, StoreError, OSError) as error:
        _unusable(str(error), False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    server.stop(grace=5).wait()


def _unusable(text: str, as_json: bool) -> None:
    if as_json:
        console.print_json(json.dumps({"error": text}))
    else:
        errors.print(f"[red]cannot:[/] {text}", soft_wrap=True, highlight=False)
    raise typer.Exit(UNUSABLE)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
