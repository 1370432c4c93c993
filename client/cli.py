"""fedcxr-site: a hospital's commands. Exit codes: 0 done, 1 it failed, 2 what was asked cannot be done."""

from __future__ import annotations

import typer

from client.commands.importing import import_command
from client.commands.serving import serve_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A hospital's side: its studies, its policy, its trainer. Nothing leaves except through the trainer's outbox.",
    epilog="Example:  fedcxr-site check site.yaml",
)


def _add(name: str, function, example: str) -> None:
    app.command(name, epilog=f"Example:  fedcxr-site {example}")(function)


_add("import", import_command, "import --layout chestxray14 --folder CXR14 --store store --secret key")
_add("serve", serve_command, "serve site.yaml")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
