"""Run folders with invented numbers: scores that grow better by the round, judged by the real protocol."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from models.evaluation.protocol import evaluate, paired_difference

FINDINGS = ("Edema", "Pneumonia", "Fracture", "Lung Opacity", "Pleural Effusion", "Cardiomegaly")
SITES = {"harbour": 260, "hill-clinic": 150, "children": 200, "journal": 60}
SKEW = {"harbour": 0.0, "hill-clinic": 0.6, "children": -0.5, "journal": 1.2}
SKILL = {
    "federated": 1.55,
    "pooled": 1.65,
    "harbour": 1.1,
    "hill-clinic": 0.9,
    "children": 1.0,
    "journal": 0.45,
}
EVENTS = [
    {
        "time": "2031-05-04T09:15:00Z",
        "round": 2,
        "event": "timeout",
        "site": "journal",
        "code": "deadline_passed",
        "text": "no answer within 600 s",
    },
    {
        "time": "2031-05-04T09:19:00Z",
        "round": 4,
        "event": "refused",
        "site": "children",
        "code": "not_finite",
        "text": "vision/patch.weight holds 3 values that are not finite",
    },
    {
        "time": "2031-05-04T09:21:00Z",
        "round": 5,
        "event": "resumed",
        "site": None,
        "code": "",
        "text": "from checkpoint 4",
    },
]


class InventedRun:
    """Writes one run folder. Sites differ in prevalence and in a score offset that gives the site away."""

    def __init__(
        self,
        folder: Path,
        *,
        rounds: int = 3,
        replicates: int = 25,
        findings: tuple[str, ...] = FINDINGS,
        seed: int = 0,
    ) -> None:
        self.folder, self.rounds, self.replicates, self.findings = folder, rounds, replicates, findings
        self.rng = rng = np.random.default_rng(seed)
        self.names = list(SITES)
        self.site = np.concatenate([np.full(n, i) for i, n in enumerate(SITES.values())])
        self.patients = np.arange(len(self.site)) // 2
        skew = np.array(list(SKEW.values()))[self.site][:, None]
        base = rng.normal(-1.2, 0.5, len(findings))
        self.labels = (rng.random((len(self.site), len(findings))) < _squash(base + skew)).astype(np.int8)
        self.labels[rng.random(self.labels.shape) < 0.15] = -2
        rare = findings.index("Fracture")
        self.labels[:, rare] = np.where(rng.random(len(self.site)) < 0.02, 1, self.labels[:, rare].clip(max=0))
        self.noise = {name: rng.normal(size=self.labels.shape) for name in SKILL}
        self.offset = 0.5 * skew + base
        folder.mkdir(parents=True, exist_ok=True)

    def scores(self, model: str, turn: int) -> np.ndarray:
        skill = SKILL[model] * (1 - np.exp(-0.45 * turn))
        home = 0.4 * (np.array(self.names)[self.site] == model)[:, None]
        signal = (skill + home * min(turn, 1)) * (self.labels == 1)
        return _squash(self.offset + signal + self.noise[model] * (0.7 if model == "pooled" else 0.8))

    def own(self, place: str) -> np.ndarray:
        """Positions of a place's images."""
        if place == "central":
            return np.arange(len(self.site))
        return np.flatnonzero(self.site == self.names.index(place))

    def line(self, turn: int, cohort: str, site: str, row: dict, trained_on: str | None = None) -> dict:
        where = {
            "phase": "diagnosis",
            "round": turn,
            "cohort": cohort,
            "site": site,
            "trained_on": trained_on,
        }
        return {**where, "split": "validation", **row}

    def judged(self, turn: int, cohort: str, scores: np.ndarray, trained_on, places) -> list[dict]:
        rows = []
        for place in places:
            own = self.own(place)
            found = evaluate(
                scores[..., own, :],
                self.labels[own],
                self.patients[own],
                self.findings,
                strata=self.site[own],
                replicates=self.replicates,
                min_cell=0 if place == "central" else 5,
            )
            rows += [self.line(turn, cohort, place, r.line(), trained_on) for r in found]
        return rows

    def round(self, turn: int) -> list[dict]:
        """Every line of one round."""
        everywhere = ["central", *self.names]
        lines = self.judged(turn, "federated", self.scores("federated", turn), None, everywhere)
        lines += self.judged(turn, "pooled", self.scores("pooled", turn), None, everywhere)
        alone = [self.scores(name, turn) for name in self.names]
        for name, scores in zip(self.names, alone):
            lines += self.judged(turn, "local", scores, name, ["central", name])
        lines += self.judged(turn, "local", np.stack(alone), None, ["central"])
        return lines + self.training(turn)

    def training(self, turn: int) -> list[dict]:
        lines = []
        for i, (name, n) in enumerate(SITES.items()):
            facts = {
                "diagnosis_loss": 0.35 + 0.4 * np.exp(-0.4 * turn) + 0.04 * i + self.rng.normal(0, 0.01),
                "seconds": n / 30 + self.rng.random(),
                "steps": n // 16,
                "update_norm": 4.0 / (turn + 1) + 0.2 * i,
                "bytes_up": 22_400_000,
                "bytes_down": 44_800_000,
            }
            for metric, value in facts.items():
                row = {"metric": metric, "finding": None, "value": float(value), "n": n}
                lines.append(self.line(turn, "federated", name, row))
        whole = {"metric": "seconds", "finding": None, "value": max(SITES.values()) / 30 + 2.0, "n": 1}
        return [*lines, self.line(turn, "federated", "central", whole)]

    def gain(self) -> list[dict]:
        rows = []
        for place in ["central", *self.names]:
            own = self.own(place)
            models = self.names if place == "central" else [place]
            scores = {
                "local": np.stack([self.scores(m, self.rounds)[own] for m in models]),
                "federated": self.scores("federated", self.rounds)[own],
                "pooled": self.scores("pooled", self.rounds)[own],
            }
            judge = (self.labels[own], self.patients[own], self.findings)
            least = 0 if place == "central" else 5
            found = paired_difference(
                scores["federated"], scores["local"], *judge, replicates=self.replicates, min_cell=least
            )
            values = {
                arm: {
                    r.finding: r.value for r in evaluate(s, *judge, replicates=0, min_cell=least) if r.metric == "auroc"
                }
                for arm, s in scores.items()
            }
            for r in found:
                numbers = {arm: known[r.finding] for arm, known in values.items()}
                band = {"difference": r.value, "low": r.low, "high": r.high, "reason": r.reason}
                rows.append({"finding": r.finding, "site": place, **numbers, **band})
        return rows

    def describe(self, status: str, **more) -> None:
        objective = {"findings": list(self.findings)}
        about = {
            "run": self.folder.name,
            "name": "four-sites",
            "started": "2031-05-04T09:12:30Z",
            "finished": None if status == "running" else "2031-05-04T09:31:02Z",
            "status": status,
            "config": {
                "seed": 3,
                "phases": [{"name": "diagnosis", "rounds": self.rounds, "objective": objective}],
                "federation": {"min_sites": 3, "quorum": 0.5, "deadline_seconds": 600.0},
                "model": {"vision": {"kind": "vit", "width": 192, "depth": 6}, "size": 224},
            },
            "config_hash": "5f" * 32,
            "versions": {"python": "3.11.9", "fedcxr": "0.1.0", "torch": "2.13.0", "flwr": "1.41.0"},
            "sites": [self._site(name) for name in self.names],
        }
        (self.folder / "run.yaml").write_text(yaml.safe_dump(about | more, sort_keys=False))

    def _site(self, name: str) -> dict:
        n, own = SITES[name], self.labels[self.own(name)]
        return {
            "name": name,
            "n_train": 3 * n,
            "n_validation": n,
            "patients_train": 3 * n // 2,
            "patients_validation": n // 2,
            "positives": {f: int(3 * (own[:, i] == 1).sum()) for i, f in enumerate(self.findings)},
        }

    def finish(self, status: str, final: list[dict], gain: list[dict], error: str | None = None) -> None:
        results = {
            "run": self.folder.name,
            "status": status,
            "error": error,
            "rounds": self.rounds,
            "seconds": 1112.0,
            "peak_memory_mb": 2811.4,
            "bytes_per_round": 268_800_000,
            "final": final,
            "gain": gain,
        }
        (self.folder / "results.json").write_text(json.dumps(results, allow_nan=False))

    def append(self, name: str, rows: list[dict]) -> None:
        with (self.folder / name).open("a") as file:
            file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _squash(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def invent(folder: Path, **settings) -> InventedRun:
    """A whole, completed run in ``folder``; settings as :class:`InventedRun` takes them."""
    run = InventedRun(folder, **settings)
    run.describe("completed")
    last: list[dict] = []
    for turn in range(1, run.rounds + 1):
        last = run.round(turn)
        run.append("metrics.jsonl", last)
    run.append("events.jsonl", EVENTS)
    run.finish("completed", last, run.gain())
    return run


@pytest.fixture(scope="session")
def invented(tmp_path_factory) -> Path:
    """A completed run, read only; made once, whichever test modules import this fixture."""
    folder = tmp_path_factory.getbasetemp() / "invented" / "20310504-091230-a1b2-four-sites"
    if not folder.exists():
        invent(folder)
    return folder
