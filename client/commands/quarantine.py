"""``fedcxr-site quarantine``: which files and reports were refused, for the person who can mend them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from client.commands.common import AsJson, console, print_json, unusable


def quarantine_command(
    dicom: Annotated[Path, typer.Option("--dicom", help="The folder that was ingested, where it was then.")],
    site: Annotated[Path, typer.Option("--site", help="The site's YAML.")],
    reports: Annotated[Path | None, typer.Option("--reports", help="The reports that were ingested with it.")] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Study store; default: the one in the site's YAML.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the files and reports in quarantine by name, with the reason and what to do.

    The quarantine holds keyed hashes only; this command finds the names again with the site's secret. What it prints
    may identify patients: it is for this site's eyes.
    """
    from client.ingest.codes import ADVICE, Reason
    from client.ingest.keys import SecretError, keyed, site_secret
    from client.ingest.reports import Problem, ReportFiles
    from client.ingest.walk import files_below, item_name
    from client.site_config import load_site
    from models.config import ConfigError

    try:
        cfg = load_site(site)
        if not cfg.secret.exists():
            raise ConfigError(f"secret {cfg.secret}: not there; it is made by the first ingest")
        secret = site_secret(cfg.secret)
        place = (store or cfg.store) / "quarantine.jsonl"
        try:
            notes = [json.loads(line) for line in place.read_text().splitlines()]
        except (OSError, ValueError):
            raise ConfigError(f"{place}: cannot be read; give the store of an ingest") from None
        codes: dict[str, list[str]] = {}
        for note in notes:
            codes.setdefault(note["item"], []).append(note["code"])
        named: dict[str, list[str]] = {}
        for path in files_below(dicom.resolve()):
            for code in codes.pop(keyed(secret, "item", item_name(path)), ()):
                named.setdefault(code, []).append(str(path))
        for found in ReportFiles(reports, cfg.reports) if reports else ():
            item = found.item
            where = f"{reports.name}, report {item}" if isinstance(found, Problem) else f"{reports.name}, {item}"
            for code in codes.pop(keyed(secret, "item", item), ()):
                named.setdefault(code, []).append(where)
    except (ConfigError, SecretError) as error:
        unusable(str(error), as_json)
    # What is left belongs to another folder, or is a study that has no name but in its files.
    unnamed = {code: n for code in Reason if (n := sum(code.value in found for found in codes.values()))}
    if as_json:
        print_json({"named": named, "unnamed": {code.value: n for code, n in unnamed.items()}})
        return
    for code, names in sorted(named.items()):
        console.print(f"{len(names)} {code}: {ADVICE[Reason(code)]}", highlight=False, markup=False, soft_wrap=True)
        for name in names:
            console.print(f"    {name}", highlight=False, markup=False, soft_wrap=True)
    for code, count in unnamed.items():
        console.print(
            f"{count} {code.value} of other folders, other reports, or whole studies", highlight=False, markup=False
        )
    if not named and not unnamed:
        console.print("The quarantine is empty.")
