"""What a federation costs beside its training: wall time of the rounds of a real simulated run, divided by the wall
time of the same optimiser steps in one plain process.

    python tests/benchmarks/bench_overhead.py                      5 rounds, 4 sites, about a minute a round
    python tests/benchmarks/bench_overhead.py --round-seconds 10   a quick look

The start-up (Flower's server, Ray, imports, data) is printed apart; so is the cost of the central evaluation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.loop import train
from server.simulate import simulate
from strategies.launch import launch
from strategies.virtual import open_store, site_rows
from tests.world import plan_values, write_store

SITES = ("a", "b", "c", "d")


def plan(folder: Path, steps: int, rounds: int) -> dict[str, str]:
    """A ViT of 4 blocks, 128 wide, 64 px, on four sites."""
    values = plan_values(
        model__vision={
            "name": "vit",
            "image_size": 64,
            "patch": 8,
            "width": 128,
            "depth": 4,
            "heads": 4,
            "pool": "mean",
        },
        phases__0__rounds=rounds,
        phases__0__objective__size=64,
        phases__0__objective__augment={},
        phases__0__local={"steps": steps, "batch_size": 32},
    )
    (folder / "plan.yaml").write_text(yaml.safe_dump(values))
    return {"config": str(folder / "plan.yaml"), "data": str(folder / "store"), "out": str(folder / "out")}


def plain(run_config: dict[str, str]) -> float:
    """Seconds of the same steps, site after site, in this process with all its threads."""
    launched = launch(run_config)
    phase, store = launched.plan.phases[0], open_store(launched)
    model, objective = launched.plan.new_model(), phase.objective.build()
    views = {site: objective.open(store, rows["train"]) for site, rows in site_rows(launched, store).items()}
    began = time.perf_counter()
    for number in range(1, phase.rounds + 1):
        for site, view in views.items():
            train(
                model,
                objective,
                view,
                phase.local,
                round=number,
                rounds=phase.rounds,
                seed=0,
                names=(phase.name, number, site),
                device=torch.device("cpu"),
            )
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--round-seconds", type=float, default=60.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder / "store", patients=100, sources=SITES)
        probe = plain(plan(folder, steps=20, rounds=1)) / 20  # seconds of one step at each of the four sites
        steps = max(5, round(given.round_seconds / probe))
        run_config = plan(folder, steps, given.rounds)
        alone = plain(run_config)
        done = simulate(run_config)
        rounds, start = done.results["seconds_rounds"], done.seconds - done.results["seconds_rounds"]
        judged = sum(x["value"] for x in _lines(done.folder, "seconds_judge"))
    print(f"{given.rounds} rounds x {len(SITES)} sites x {steps} steps of 32 films, {torch.get_num_threads()} threads")
    print(f"plain process      {alone:8.1f} s   ({alone / given.rounds:.1f} s a round)")
    print(f"rounds of the run  {rounds:8.1f} s   of which central evaluation {judged:.1f} s")
    print(f"overhead ratio     {rounds / alone:8.3f}     aim <= 1.10")
    print(f"start-up and end   {start:8.1f} s   aim <= 25 s")


def _lines(folder: Path, metric: str) -> list[dict]:
    from server.folder import RunFolder

    return [x for x in RunFolder(folder).lines("metrics.jsonl") if x["metric"] == metric]


if __name__ == "__main__":
    main()
