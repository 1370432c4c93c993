"""fedcxr-server: the coordinator's commands. Exit codes: 0 done, 1 the run failed, 2 what was asked cannot be done."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from models.config import ConfigError
from models.evaluation.results import MACRO
from server.compare import print_table, site_table, table
from server.folder import RunFolder
from server.report import write_report
from server.runs import list_runs, print_runs
from server.simulate import Simulated, SimulationFailed, simulate
from strategies.launch import find_config

FAILED, UNUSABLE = 1, 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run and look at federations of chest X-ray models.",
    epilog="Example:  fedcxr-server simulate   (no data needed; ends with a results page)",
)
console, errors = Console(), Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable object and nothing else.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of all runs.")]
Config = Annotated[str, typer.Option("--config", "-c", help="Run YAML: a path, or the name of a shipped one.")]
Data = Annotated[Path | None, typer.Option("--data", "-d", help="Folder of images or study store the plan reads.")]
Seed = Annotated[int, typer.Option("--seed", help="Overrides the plan's seed.")]
Rounds = Annotated[int, typer.Option("--rounds", help="Overrides the rounds of every phase.")]
Set = Annotated[list[str] | None, typer.Option("--set", "-s", help="Dotted override, e.g. phases.0.local.lr=0.0005.")]
Workers = Annotated[int, typer.Option("--workers", help="Sites that train at a time; 0: one a core.")]

DEFAULT_OUT = Path(os.environ.get("FEDCXR_OUT", "runs"))


@app.command("simulate", epilog="Example:  fedcxr-server simulate -c real -d /data/cxr -s phases.0.rounds=5")
def simulate_command(
    config: Config = "phantom",
    data: Data = None,
    out: Out = DEFAULT_OUT,
    seed: Seed = -1,
    rounds: Rounds = -1,
    set_: Set = None,
    workers: Workers = 0,
    resume: Annotated[str, typer.Option("--resume", help="Go on with this interrupted run.")] = "",
    as_json: AsJson = False,
) -> None:
    """Run a federation with virtual sites on this machine, and wait for its end."""
    done = _simulated(config, data, out, seed, rounds, set_ or [], workers, resume, as_json)
    if as_json:
        console.print_json(json.dumps({"folder": str(done.folder), **_short(done.results)}))
    else:
        _say_end(done)
    raise typer.Exit(0 if done.ok else FAILED)


@app.command("compare", epilog="Example:  fedcxr-server compare runs/20261122-101530-a1b2-real")
def compare_command(
    folders: Annotated[list[Path] | None, typer.Argument(help="Finished runs; with none, a new run is made.")] = None,
    config: Config = "phantom",
    data: Data = None,
    out: Out = DEFAULT_OUT,
    seed: Seed = -1,
    rounds: Rounds = -1,
    set_: Set = None,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Who gained, who lost: federated against each site alone and all pooled, same budget and seed, in one table."""
    ok = True
    if not folders:
        arms = [*(set_ or []), "arms=[federated, local, pooled]"]
        done = _simulated(config, data, out, seed, rounds, arms, workers, "", as_json)
        folders, ok = [done.folder], done.ok
        if not ok:
            errors.print(f"[red]failed:[/] {done.results.get('error')}", soft_wrap=True)
            raise typer.Exit(FAILED)
    missing = [folder for folder in folders if not (folder / "run.yaml").is_file()]
    if missing:
        _unusable(f"{missing[0]}: not a run folder; `fedcxr-server runs` lists them", as_json)
    if as_json:
        found = {"findings": table(folders), "sites": site_table(folders)}
        console.print_json(json.dumps({key: [asdict(row) for row in rows] for key, rows in found.items()}, default=str))
    else:
        print_table(folders)


@app.command("curves", epilog="Example:  fedcxr-server curves runs/* --by simulation.corrupt_labels --out curves.html")
def curves_command(
    folders: Annotated[list[Path], typer.Argument(help="Completed runs, one or more (seeds) at each value.")],
    by: Annotated[str, typer.Option("--by", help="Dotted key of the plan that the axis is, e.g. federation.quorum.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("curves.html"),
    as_json: AsJson = False,
) -> None:
    """Draw macro AUROC of several runs over one value of their plans, as a page with its numbers."""
    from server.sweep import SweepError, sweep, write_page

    try:
        found = sweep(folders, by)
        write_page(out, f"Macro AUROC over {by}", [(by, found)])
    except (SweepError, FileNotFoundError) as error:
        _unusable(str(error), as_json)
    except OSError as error:
        _unusable(f"{out}: cannot be written ({error.strerror or type(error).__name__})", as_json)
    if as_json:
        spots = [{"x": s.x, "cohort": s.cohort, **asdict(s.cell)} for s in found.spots]
        console.print_json(json.dumps({"page": str(out), "by": by, "spots": spots, "differ": found.differ}))
    else:
        console.print(str(out), soft_wrap=True)


@app.command("runs", epilog="Example:  fedcxr-server runs --out runs --json")
def runs_command(out: Out = DEFAULT_OUT, as_json: AsJson = False) -> None:
    """List the runs of a folder: what, when, how far, how good, and why it failed."""
    if not out.is_dir():
        _unusable(f"{out}: no such folder; give --out, or make a run with `fedcxr-server simulate`", as_json)
    rows = list_runs(out)
    if as_json:
        console.print_json(json.dumps([asdict(row) for row in rows], default=str))
    else:
        print_runs(rows)


@app.command("report", epilog="Example:  fedcxr-server report runs/20261122-101530-a1b2-real")
def report_command(folder: Annotated[Path, typer.Argument(help="A run's folder.")], as_json: AsJson = False) -> None:
    """Write a run's report.html anew from its folder."""
    if not (folder / "run.yaml").is_file():
        _unusable(f"{folder}: not a run folder; `fedcxr-server runs` lists them", as_json)
    path = write_report(folder)
    if as_json:
        console.print_json(json.dumps({"report": str(path)}))
    else:
        console.print(str(path), soft_wrap=True)


@app.command(
    "attention", epilog="Example:  fedcxr-server attention --checkpoint runs/20261122-101530-a1b2-real --image film.png"
)
def attention_command(
    checkpoint: Annotated[
        Path,
        typer.Option("--checkpoint", help="A run's folder, one of its checkpoints, or weights that others released."),
    ],
    image: Annotated[Path, typer.Option("--image", help="A film, PNG or JPEG.")],
    out: Annotated[Path, typer.Option("--out", help="The picture to write, PNG.")] = Path("panel.png"),
    size: Annotated[int, typer.Option("--size", help="Side of the film for the model; 0: as in training.")] = 0,
    part: Annotated[str, typer.Option("--part", help="Of released weights with several networks, e.g. teacher.")] = "",
    normalise: Annotated[str, typer.Option("--normalise", help="Input of released weights: none, imagenet.")] = "none",
    as_json: AsJson = False,
) -> None:
    """Draw where a model looks on a film: the heads of a ViT's last block, or both attentions of every ACM of a ResNet."""
    from server.attention import Unusable, look, open_viewer, read_film, summary
    from server.panel import draw

    try:
        seen = look(open_viewer(checkpoint, part=part, normalise=normalise, size=size), read_film(image))
        draw(seen).save(out, format="PNG")
    except Unusable as error:
        _unusable(str(error), as_json)
    except OSError as error:
        _unusable(f"{out}: cannot be written ({error.strerror or type(error).__name__})", as_json)
    if as_json:
        console.print_json(json.dumps({"panel": str(out), **summary(seen)}))
    else:
        console.print(str(out), soft_wrap=True)


@app.command(
    "export", epilog="Example:  fedcxr-server export --checkpoint runs/20261122-101530-a1b2-reports --out encoder"
)
def export_command(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="A run's folder, or one of its checkpoints.")],
    out: Annotated[Path, typer.Option("--out", help="The new folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a run's text tower as a plain Hugging Face folder, with its adapters merged in, for AutoModel to load."""
    from server.export import NotExported, export

    try:
        about = export(checkpoint, out)
    except NotExported as error:
        _unusable(str(error), as_json)
    except OSError as error:
        _unusable(f"{out}: cannot be written ({error.strerror or type(error).__name__})", as_json)
    if as_json:
        console.print_json(json.dumps({"folder": str(out), **about}))
    else:
        console.print(str(out), soft_wrap=True)


@app.command(
    "evaluate-text",
    epilog="Example:  fedcxr-server evaluate-text --checkpoint runs/20261122-101530-a1b2-reports -d STORE",
)
def evaluate_text_command(
    data: Annotated[Path, typer.Option("--data", "-d", help="A study store with reports.")],
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", help="A run's folder, or a checkpoint.")] = None,
    model: Annotated[str, typer.Option("--model", help="Folder of a text model, in place of a run.")] = "",
    split: Annotated[str, typer.Option("--split", help="all, validation or test.")] = "all",
    clinical: Annotated[
        list[str] | None, typer.Option("--clinical", help="Also radgraph, ratescore, green or chexbert; repeatable.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Clinical scorers may fetch their weights.")] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="For --model.")] = 512,
    replicates: Annotated[int, typer.Option("--replicates", help="Bootstrap resamples of patients.")] = 1000,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Twice as fast, to three digits.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a text tower on reports: retrieval, errors told apart, nearest reports, robustness, site by site."""
    from server.evaluate_text import NotEvaluated, evaluate_text, open_tower, print_text

    try:
        tower, instructions, plan = open_tower(checkpoint, model, max_tokens)
        found = evaluate_text(
            tower,
            data.expanduser(),
            split=split,
            plan=plan,
            instructions=instructions,
            clinical=clinical or (),
            download=download,
            replicates=replicates,
            precision="bfloat16" if bfloat16 else "float32",
        )
    except NotEvaluated as error:
        _unusable(str(error), as_json)
    if as_json:
        console.print_json(json.dumps(found))
    else:
        print_text(found, console)


def _simulated(
    config: str,
    data: Path | None,
    out: Path,
    seed: int,
    rounds: int,
    set_: list[str],
    workers: int,
    resume: str,
    quiet: bool,
) -> Simulated:
    try:
        values = {
            "config": str(_config_path(config)),
            "data": str(data.expanduser().resolve()) if data else "",
            "out": str(out.expanduser().resolve()),
            "seed": seed,
            "rounds": rounds,
            "set": "; ".join(set_),
        }
        with _Shown(quiet) as shown:
            return simulate(values, workers=workers, resume=resume, on_change=shown)
    except ConfigError as error:
        _unusable(str(error), quiet)
    except SimulationFailed as error:
        _end(str(error), quiet, FAILED)
    except KeyboardInterrupt:
        _end("stopped; everything this run started is stopped too", quiet, 130)


def _config_path(name: str) -> Path:
    """A YAML beside the user goes before a shipped one."""
    here = Path(name).expanduser()
    return here.resolve() if here.is_file() else find_config(name)


class _Shown:
    """Progress of a run on the terminal, read from its folder."""

    def __init__(self, quiet: bool) -> None:
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=errors,
            disable=quiet,
        )
        self.task: Any = None
        self.events = 0
        self.size = -1

    def __enter__(self) -> _Shown:
        self.bar.start()
        self.task = self.bar.add_task("starting Flower", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, folder: RunFolder) -> None:
        metrics = folder.path / "metrics.jsonl"
        if not (folder.path / "run.yaml").exists():
            return
        size = metrics.stat().st_size if metrics.exists() else 0
        if size == self.size:
            return
        self.size = size
        for event in folder.lines("events.jsonl")[self.events :]:
            self.events += 1
            self.bar.console.print(
                f"[yellow]{event['event']}[/] {event['site'] or ''}: {event['text']}", soft_wrap=True
            )
        total = sum(p["rounds"] for p in folder.about["config"]["phases"])
        judged = [x for x in folder.lines("metrics.jsonl") if (x["metric"], x["finding"]) == ("auroc", MACRO)]
        judged = [x for x in judged if x["cohort"] == "federated" and x["site"] == "central"]
        note = f"macro AUROC {judged[-1]['value']:.3f}" if judged and judged[-1]["value"] is not None else ""
        word = "training" if folder.about.get("sites") else "preparing images"
        self.bar.update(self.task, description=word, total=total, completed=len(judged), note=note)


def _say_end(done: Simulated) -> None:
    results = done.results
    if not done.ok:
        errors.print(f"[red]failed:[/] {results.get('error')}", soft_wrap=True)
        errors.print(f"what there is lies in {done.folder}", soft_wrap=True)
        return
    found = [
        x for x in results["final"] if x["metric"] == "auroc" and x["cohort"] == "federated" and x["site"] == "central"
    ]
    for line in found:
        value = "   -" if line["value"] is None else f"{line['value']:.3f}"
        interval = f"[{line['low']:.3f}, {line['high']:.3f}]" if line["low"] is not None else (line["reason"] or "")
        console.print(
            f"  {line['finding'] if line['finding'] != MACRO else 'mean':<28} AUROC {value}  {interval}",
            highlight=False,
        )
    console.print(
        f"{results['rounds']} rounds in {results['seconds_rounds']:.0f} s after {done.seconds - results['seconds_rounds']:.0f} s "
        f"of start-up and end, {results['bytes_per_round'] / 1e6:.2f} MB a round, peak {results['peak_memory_mb'] / 1e3:.1f} GB",
        highlight=False,
    )
    console.print(f"[bold]{done.folder / 'report.html'}[/]", soft_wrap=True)


def _short(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key not in ("final", "gain")} | {
        "auroc": {
            x["finding"]: x["value"]
            for x in results.get("final", [])
            if x["metric"] == "auroc" and x["cohort"] == "federated" and x["site"] == "central"
        }
    }


def _unusable(text: str, as_json: bool) -> None:
    _end(text, as_json, UNUSABLE)


def _end(text: str, as_json: bool, code: int) -> None:
    if as_json:
        console.print_json(json.dumps({"status": "failed", "error": text}))
    else:
        errors.print(f"[red]{'cannot' if code == UNUSABLE else 'failed'}:[/] {text}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
