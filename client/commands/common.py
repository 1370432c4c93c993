"""What all commands share: where they print, how they fail."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

UNUSABLE = 2
"""Exit code of a command that cannot be carried out as asked; 1 is for one that was and did not succeed."""

FAILED = 1

console, errors = Console(), Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable object and nothing else.")]


def print_json(value: Any) -> None:
    """One JSON object on standard output, never wrapped or coloured by the width of a terminal."""
    console.print_json(json.dumps(value))


def unusable(text: str, as_json: bool) -> NoReturn:
    """Say why nothing was done, and end with exit code 2."""
    if as_json:
        print_json({"error": text})
    else:
        errors.print(f"[red]cannot:[/] {escape(text)}", soft_wrap=True, highlight=False)
    raise typer.Exit(UNUSABLE)


def failed(text: str, as_json: bool) -> NoReturn:
    """Say why what was begun could not be ended, and end with exit code 1."""
    if as_json:
        print_json({"error": text})
    else:
        errors.print(f"[red]failed:[/] {escape(text)}", soft_wrap=True, highlight=False)
    raise typer.Exit(FAILED)
