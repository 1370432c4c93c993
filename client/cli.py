"""fedcxr-site: a hospital's commands. Exit codes: 0 done, 1 it failed, 2 what was asked cannot be done."""

from __future__ import annotations

import typer

from client.commands.check import check_command
from client.commands.export import export_command
from client.commands.importing import import_command
from client.commands.ingest import ingest_command
from client.commands.inspect import inspect_command
from client.commands.label import label_command
from client.commands.phantom import phantom_command
from client.commands.quarantine import quarantine_command
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


_add("check", check_command, "check site.yaml --dicom PACS --reports reports.csv")
_add("import", import_command, "import --layout chestxray14 --folder CXR14 --store store --secret key")
_add("export", export_command, "export --dicom PACS --site site.yaml --out shared")
_add("inspect", inspect_command, "inspect store")
_add("phantom", phantom_command, "phantom --patients 20 --site-style north --out hospital")
_add("ingest", ingest_command, "ingest --dicom export --reports reports.csv --site site.yaml")
_add("quarantine", quarantine_command, "quarantine --dicom export --reports reports.csv --site site.yaml")
_add(
    "label",
    label_command,
    "label --csv reports.csv --text-columns findings,impression --id-column report --out labels.csv",
)
_add("serve", serve_command, "serve site.yaml")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
