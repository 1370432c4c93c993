"""``fedcxr-site check``: what is wrong with a site, all of it, before anything starts."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from client.commands.common import FAILED, AsJson, console, print_json, unusable
from models.config import ConfigError

if TYPE_CHECKING:
    from client.preflight import Check

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}
_INDENT = 21


def check_command(
    site: Annotated[Path, typer.Argument(help="The site's YAML.")],
    dicom: Annotated[
        Path | None, typer.Option("--dicom", help="What is to be ingested: the disk is held against its files.")
    ] = None,
    reports: Annotated[
        Path | None, typer.Option("--reports", help="The reports with it: their columns and encoding are checked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a site's configuration, files, machine, server address and certificate. Changes nothing.

    Exit code 0: nothing that must be mended; 1: there is; 2: the YAML cannot be read.
    """
    from client.preflight import Level, preflight

    found: list[Check] = []
    try:
        for check in preflight(site, dicom, reports):
            found.append(check)
            if not as_json:
                _show(check)
    except ConfigError as error:
        unusable(str(error), as_json)
    errors = sum(check.level is Level.ERROR for check in found)
    warnings = sum(check.level is Level.WARNING for check in found)
    if as_json:
        print_json({"ok": not errors, "checks": [{"name": c.name, "level": c.level, "text": c.text} for c in found]})
    else:
        console.print(_verdict(errors, warnings))
    if errors:
        raise typer.Exit(FAILED)


def _show(check: Check) -> None:
    """One line; in a terminal it is folded under itself."""
    text = check.text
    if console.is_terminal:
        lines = textwrap.wrap(text, max(40, console.width - _INDENT), break_on_hyphens=False)
        text = ("\n" + " " * _INDENT).join(lines)
    line = Text.assemble((f"{check.level:<9}", _COLOURS[check.level]), (f"{check.name:<12}", "bold"), text)
    console.print(line, soft_wrap=True, highlight=False)


def _verdict(errors: int, warnings: int) -> Text:
    if not errors and not warnings:
        return Text("ready", "green")
    parts = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    tail = ": mend the errors first" if errors else ": it can start"
    return Text(" and ".join(parts) + tail, "bold red" if errors else "yellow")
