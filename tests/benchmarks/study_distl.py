"""Does self-training pay, on real films? Runs the plan ``distl-real`` with several seeds and says so with intervals.

    python tests/benchmarks/study_distl.py --data /absolute/folder --out /absolute/folder --seeds 5
    ... --arms tenth distl full long   also the labelled tenth for three times as long
    ... --arms distl single            what bfloat16 costs: `single` is the federation of `distl` in single precision
    ... --split validation      what settings are chosen on; the default, test, is looked at once

`data` holds the folder kermany224. Each arm and seed is a run of its own in `out`; a run that is complete is not repeated,
so the study can be done in pieces. Runs see validation patients only; the split is judged from their checkpoints. Labelled
patients differ from seed to seed, judged patients do not.

An interval is a bootstrap over seeds and patients at once: both are drawn anew, and the difference of the mean AUROC is
taken on the same draw. DeLong's paired p value is given for each seed beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.checkpoint import load
from models.config import read_yaml
from models.evaluation.delong import compare
from models.evaluation.diagnosis import probabilities
from models.evaluation.metrics import Ranking
from models.objectives import held_out_view
from strategies.launch import launch
from strategies.virtual import open_store, site_rows
from tests.benchmarks.complete import complete

PLAN = Path(__file__).resolve().parents[2] / "configs" / "runs" / "distl-real.yaml"
ARMS = ("tenth", "distl", "full", "long", "single")
SUPERVISED = {"tenth": (4, 15), "full": (10, 4), "long": (12, 15)}
"""Rounds, and epochs a round, of the arms that learn from labels alone; the rate is one that suits a beginning from nothing."""


def plan_of(arm: str, seed: int) -> dict:
    """The plan's values for an arm.

    ``tenth``: supervised, from nothing, on the labelled tenth. ``full``: likewise with every training film labelled, at the
    sites that have them. ``long``: as ``tenth``, for three times as long. ``single``: the federation of ``distl`` in single
    precision.
    """
    values = read_yaml(PLAN)
    values |= {"name": f"distl-{arm}-{seed}", "seed": seed, "checkpoints": 0}
    values["evaluation"] |= {"split": "validation"}
    if arm == "distl":
        return values
    values["arms"] = ["federated"]
    if arm == "single":
        for phase in values["phases"]:
            phase["local"] = {**phase["local"], "precision": "float32"}
        return values
    first = next(p for p in values["phases"] if p["objective"].get("stage") == "initial")
    first["rounds"], epochs = SUPERVISED[arm]
    first["local"] = {**first["local"], "epochs": epochs, "batch_size": 32, "lr": 1e-3}
    values["phases"] = [first]
    values["evaluation"].pop("reference", None)
    if arm == "full":
        values["simulation"].pop("labelled")
    else:  # one site has labels, and the others nothing to learn from
        values["federation"] |= {"min_sites": 1}
    return values


def run(arm: str, seed: int, given: argparse.Namespace) -> tuple[Path, Path]:
    """Folder and plan of a complete run of ``arm``, made if it is not there."""
    return complete(f"{arm}-{seed}", plan_of(arm, seed), given.out, str(given.data), given.workers, resume=True)


def scores_of(arm: str, seed: int, given: argparse.Namespace) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Scores [n] of the model at the end of every phase (``distl/evolve-3``, ``distl pooled/evolve-3``), with the labels
    and patients of the judged films."""
    folder, plan = run(arm, seed, given)
    launched = launch({"config": str(plan), "data": str(given.data), "out": str(given.out)})
    store = open_store(launched)
    rows = np.sort(np.concatenate([r[given.split] for r in site_rows(launched, store).values()]))
    found, last = {}, 0
    for phase in launched.plan.phases:
        last += phase.rounds
        objective = phase.objective.build()
        if not objective.needs_labels:  # a diagnosis that nobody has taught yet
            continue
        view = held_out_view(objective, store, rows)
        checkpoint = folder / "checkpoints" / f"round-{last:04d}"
        model = launched.plan.new_model()
        models = {arm: load(checkpoint / "model.safetensors")}
        server = load(checkpoint / "server.safetensors")
        pooled = {n.split("|")[2]: t for n, t in server.items() if n.startswith("pooled|model|")}
        if pooled:
            models[f"{arm} pooled"] = pooled
        for name, tensors in models.items():
            model.load(None, tensors)
            found[f"{name}/{phase.name}"] = probabilities(model, objective, view, torch.device("cpu"))[:, 0]
    return found, view.labels[:, 0] == 1, np.unique(view.patients, return_inverse=True)[1]


def bootstrap(
    scores: Mapping[str, list[np.ndarray]], positive: np.ndarray, patients: np.ndarray, draws: int = 2000
) -> dict[str, np.ndarray]:
    """Mean AUROC over seeds of every model on the same draws of seeds and patients, [draws]."""
    rng, people = np.random.default_rng(0), patients.max() + 1
    counts = np.stack([np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(draws)], axis=1)
    seeds = len(next(iter(scores.values())))
    chosen = rng.integers(0, seeds, (draws, seeds))
    found = {}
    for name, of_seeds in scores.items():
        values = np.stack([Ranking(s, positive, patients).auroc(counts.astype(float)) for s in of_seeds])
        found[name] = values[chosen.T, np.arange(draws)].mean(axis=0)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--only", type=int, nargs="+", help="run these seeds and judge nothing yet")
    options.add_argument("--arms", nargs="+", default=list(ARMS[:3]), choices=ARMS)
    options.add_argument("--split", default="test", choices=("validation", "test"))
    options.add_argument("--workers", type=int, default=1)
    given = options.parse_args()
    if given.only is not None:
        for seed in given.only:
            for arm in given.arms:
                run(arm, seed, given)
        return
    scores: dict[str, list[np.ndarray]] = {}
    for seed in range(given.seeds):
        for arm in given.arms:
            found, positive, patients = scores_of(arm, seed, given)
            for name, values in found.items():
                scores.setdefault(name, []).append(values)
    report(scores, positive, patients)


def report(scores: dict[str, list[np.ndarray]], positive: np.ndarray, patients: np.ndarray) -> None:
    """AUROC of each model, and what it gains over the supervised tenth."""
    drawn = bootstrap(scores, positive, patients)
    base = "tenth/initial" if "tenth/initial" in scores else next(iter(scores))
    print(f"{len(positive)} films of {patients.max() + 1} patients, {len(scores[base])} seeds; gain over {base}")
    for name, of_seeds in scores.items():
        each = [float(Ranking(s, positive).auroc()[0]) for s in of_seeds]
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        gain = drawn[name] - drawn[base]
        p = min(1.0, 2 * min((gain <= 0).mean(), (gain >= 0).mean()))
        tests = [compare(a, b, positive, patients).p for a, b in zip(of_seeds, scores[base])]
        shown = " ".join("-" if t is None else f"{t:.3f}" for t in tests)
        print(
            f"  {name:24} {np.mean(each):.4f} [{low:.4f}, {high:.4f}]  gain {np.mean(gain):+.4f} "
            f"[{np.quantile(gain, 0.025):+.4f}, {np.quantile(gain, 0.975):+.4f}] p {p:.4f}   DeLong by seed {shown}"
        )
    if "full/initial" in scores and "distl/evolve-3" in scores:
        mean = {n: np.mean([Ranking(s, positive).auroc()[0] for s in v]) for n, v in scores.items()}
        gap = mean["full/initial"] - mean[base]
        print(
            f"  share of the gap to every film labelled closed by T=3: {(mean['distl/evolve-3'] - mean[base]) / gap:.2f}"
        )


if __name__ == "__main__":
    main()
