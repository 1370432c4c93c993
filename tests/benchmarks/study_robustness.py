"""What wrong labels and uneven sites cost: a plan run with 0 to 40 % of its training labels turned round, and with label
skew over the sites, each with several seeds.

    python tests/benchmarks/study_robustness.py --plan real --data /absolute/folder --out /absolute/folder --seeds 3
    ... --only skew                 one curve alone: labels, or skew
    ... -s phases.0.rounds=3        dotted overrides of the plan, as of `fedcxr-server simulate`

Each value and seed is a run of its own in `out`; a run that is complete is not repeated, so the study can be done in pieces.
Judged patients are the same at every value: the split is by patient, whoever holds the patient. For skew the plan's partition
becomes Dirichlet's over as many sites as the plan has, or `--sites`; 100 is nearly none, 0.3 strong. Spoilt films
(noise, blur, contrast, brightness) need no run of their own: `-s evaluation.robustness={}` adds them to every report.

Leaves `robustness.html` with both curves, `robustness.json` and one report for each run.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.config import ConfigError, config_hash, override, read_yaml
from server.compare import show_cell
from server.rundata import number, read_run
from server.sweep import Sweep, sweep, write_page
from strategies.launch import find_config, overrides_of
from tests.benchmarks.complete import complete

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
ALPHAS = (100.0, 1.0, 0.3)
KEYS = {"labels": "simulation.corrupt_labels", "skew": "simulation.partition.alpha"}
HEADINGS = {"labels": "Share of training labels turned round", "skew": "Label skew over the sites (Dirichlet's alpha)"}


def plan_of(curve: str, value: float, seed: int, given: argparse.Namespace) -> dict:
    """The plan's values at one point of a curve."""
    values = read_yaml(Path(given.plan) if Path(given.plan).is_file() else find_config(given.plan))
    for dotted, wanted in overrides_of({"set": "; ".join(given.set)}).items():
        override(values, dotted, wanted)
    values |= {"name": f"{curve}-{value:g}-{seed}", "seed": seed}
    if curve == "labels":
        values["simulation"]["corrupt_labels"] = value
        return values
    old = values["simulation"].get("partition", {})
    sites = given.sites or old.get("sites")
    if not sites:
        raise SystemExit("the plan's partition has no number of sites; give --sites")
    findings = next(list(p["objective"]["findings"]) for p in values["phases"] if "findings" in p["objective"])
    # The draw of the partition is the seed's: one draw says little about an alpha.
    values["simulation"]["partition"] = {
        "by": "dirichlet",
        "sites": sites,
        "alpha": value,
        "findings": findings,
        "seed": seed,
        "min_patients": given.min_patients,
    }
    return values


def run(curve: str, value: float, seed: int, given: argparse.Namespace) -> Path:
    """The folder of a complete run, made if it is not there. It is known by its whole plan."""
    values = plan_of(curve, value, seed, given)
    name = f"{curve}-{value:g}-{seed}-{config_hash(values)[:10]}"
    data = str(given.data.resolve()) if given.data else ""
    return complete(name, values, given.out, data, given.workers)[0]


def unevenness(folder: Path) -> str:
    """Lowest and highest share of training films with a finding, over the sites, for the finding where they differ most."""
    sites = [s for s in read_run(folder).declared_sites if s["n_train"]]
    ends = []
    for finding in sites[0]["positives"]:
        counts = [(number(s["positives"].get(finding)), s["n_train"]) for s in sites]
        shares = [n / films for n, films in counts if n is not None]
        ends += [(max(shares) - min(shares), min(shares), max(shares), finding)] if shares else []
    return "" if not ends else "{3}: {1:.2f} to {2:.2f} of a site's films".format(*max(ends))


def say(curve: str, found: Sweep, folders: dict[float, list[Path]]) -> None:
    """The table of a curve: for each cohort the mean over seeds, from the lowest to the highest."""
    print(f"\n{HEADINGS[curve]}: macro AUROC {found.where}")
    for value in found.runs:
        shown = []
        for cohort in found.cohorts:
            for spot in found.curve(cohort):
                if spot.x == value:
                    shown.append(f"{cohort} {show_cell(spot.cell)}")
        print(f"  {value:6g}  {'  '.join(shown)}   {unevenness(folders[value][0])}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--plan", default="real", help="a run YAML, or the name of a shipped one")
    options.add_argument("--data", type=Path)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--sites", type=int, default=0)
    options.add_argument("--min-patients", type=int, default=10)
    options.add_argument("--only", choices=tuple(KEYS))
    options.add_argument("--values", type=float, nargs="+", help="other values of the one curve that --only names")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("-s", "--set", action="append", default=[], metavar="KEY=VALUE")
    given = options.parse_args()
    given.out = given.out.resolve()
    sweeps, said = [], {}
    try:
        for curve in [given.only] if given.only else KEYS:
            values = given.values if given.only and given.values else {"labels": SHARES, "skew": ALPHAS}[curve]
            folders = {float(v): [run(curve, v, seed, given) for seed in range(given.seeds)] for v in values}
            found = sweep([f for of_value in folders.values() for f in of_value], KEYS[curve])
            say(curve, found, folders)
            sweeps.append((HEADINGS[curve], found))
            said[curve] = [{"x": s.x, "cohort": s.cohort, **asdict(s.cell)} for s in found.spots]
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    (given.out / "robustness.json").write_text(json.dumps(said, indent=1))
    write_page(given.out / "robustness.html", "Robustness to labels and sites", sweeps)
    print(f"\n{given.out / 'robustness.html'}")


if __name__ == "__main__":
    main()
