"""The site trainer: owns data, model, device, policy and ledger, and answers what a server asks.

It is installed at the site and never replaced by what a server ships; it validates everything it is asked. Every
answer, also a no, goes through the outbox. What travels of an error is a code and one line; the details stay in the
site's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.outbox import Outbox, one_line
from client.policy import Policy, consent
from models.checkpoint import load as load_tensors
from models.checkpoint import save as save_tensors
from models.config import ConfigError, build, config_hash
from models.evaluation.diagnosis import probabilities
from models.evaluation.protocol import evaluate
from models.evaluation.results import Result
from models.loop import LoopConfig, NonFiniteLoss, Trained, train
from models.model import CxrModel, ModelConfig, initial_model
from models.registry import configure
from models.studies.schema import Label
from models.studies.store import Store, StoreError
from strategies.exchange import Exchange
from strategies.messages import Answer, Ask, Code, Kind, ProtocolError, Refusal
from strategies.wire import from_wire, to_wire

log = logging.getLogger("fedcxr.site")

TRAIN, HELD_OUT = "train", ("validation", "test")


class Refused(Exception):
    """Carries a refusal out of the trainer's inner functions."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.refusal = Refusal(code, one_line(text))


def pick_device(wish: str = "auto") -> str:
    """Device name for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda`` is asked for and there is none; training silently on the CPU would take for ever.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda': torch sees no GPU here; check the driver, or use device 'cpu' or 'auto'")
    return "cpu" if wish == "cpu" or not torch.cuda.is_available() else "cuda"


@dataclass
class Site:
    """What a trainer is given: its name, its store, its rows by split, and a folder of its own for state and ledgers."""

    name: str
    store: Store
    rows: Mapping[str, np.ndarray]
    folder: Path
    policy: Policy = field(default_factory=Policy)
    device: str = "cpu"


class SiteTrainer:
    """Stays warm between rounds: data, views and model are opened once."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.device = torch.device(site.device)
        self.outbox = Outbox(site.folder / "egress.jsonl", site.policy)
        self._models: dict[str, CxrModel] = {}
        self._views: dict[tuple[str, str], Any] = {}

    def handle(self, ask: Ask) -> Answer:
        """Answer one ask. Never raises for anything the ask or the data can cause."""
        try:
            answer = self._answer(ask)
        except Refused as refused:
            answer = Answer(site=self.site.name, refusal=refused.refusal)
        except (ConfigError, ProtocolError) as error:
            answer = self._no(Code.BAD_REQUEST, str(error))
        except StoreError as error:
            answer = self._no(Code.NO_DATA, str(error))
        except NonFiniteLoss as error:
            answer = self._no(Code.NON_FINITE_LOSS, str(error))
        except torch.OutOfMemoryError:
            answer = self._no(Code.OUT_OF_MEMORY, "the device has too little memory; lower local.batch_size")
        except MemoryError:
            answer = self._no(Code.OUT_OF_MEMORY, "the machine has too little memory; lower local.batch_size")
        except Exception as error:
            # The text of an exception may hold a path or a value; only its class leaves.
            log.exception("site %s: %s failed", self.site.name, ask.kind)
            answer = self._no(Code.INTERNAL, f"{type(error).__name__}; the site's own log has the details")
        return self.outbox.send(ask, answer)

    def _no(self, code: Code, text: str) -> Answer:
        return Answer(site=self.site.name, refusal=Refusal(code, one_line(text)))

    def _answer(self, ask: Ask) -> Answer:
        objective = configure("models.objectives", ask.objective).build()
        local = build(LoopConfig, ask.local or {"steps": 1}, where="local")
        refusal = consent(self.site.policy, ask, objective, local)
        if refusal is not None:
            return Answer(site=self.site.name, refusal=refusal)
        if ask.kind is Kind.HELLO:
            return Answer(site=self.site.name, facts=self._facts(objective))
        model = self._model(ask)
        keep = self._receive(ask, model, objective)
        metrics = self._evaluate(ask, model, objective) if ask.evaluate else []
        if ask.kind is Kind.EVALUATE:
            return Answer(site=self.site.name, metrics=tuple(metrics))
        view = self._view(objective, TRAIN)
        done = train(
            model,
            objective,
            view,
            local,
            round=ask.round,
            rounds=ask.rounds,
            seed=ask.seed,
            names=(ask.phase, ask.round, self.site.name),
            device=self.device,
            proximal_mu=float(ask.local_extra.get("proximal_mu", 0.0)),
        )
        state = model.state(ask.components)
        tensors, bf16 = to_wire({name: state[name] for name in ask.tensors}, ask.wire_dtype)
        self._keep(ask, {name: state[name] for name in keep})
        return Answer(
            site=self.site.name,
            examples=len(view),
            metrics=(*metrics, *_training_metrics(done)),
            tensors=tensors,
            bf16=bf16,
        )

    def _model(self, ask: Ask) -> CxrModel:
        """The warm model of this run's shape, made once with the run's common start."""
        key = config_hash([ask.model, ask.seed])
        if key not in self._models:
            objectives = [configure("models.objectives", o).build() for o in ask.model["objectives"]]
            cfg = build(ModelConfig, ask.model["config"], where="model")
            self._models = {key: initial_model(cfg, objectives, ask.seed).to(self.device)}
        return self._models[key]

    def _receive(self, ask: Ask, model: CxrModel, objective: Any) -> list[str]:
        """Load what was sent, and beside it what this site keeps for itself; names of the latter are returned."""
        odd = sorted(set(ask.components) - set(objective.trains))
        if odd:
            raise Refused(Code.BAD_REQUEST, f"component {odd[0]!r} is asked for, but the objective does not train it")
        own = model.state(ask.components)
        keep = sorted(own.keys() - ask.tensors.keys())
        if Exchange(keep=ask.keep).select(own).keys() != ask.tensors.keys():
            raise Refused(Code.BAD_REQUEST, "the tensors sent are not those of the components less what is kept")
        received = from_wire(ask.tensors, ask.bf16, {n: own[n] for n in own if n in ask.tensors})
        kept = self._kept(ask, keep, own)
        model.load(ask.components, received | kept)
        return keep

    def _kept(self, ask: Ask, keep: list[str], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not keep:
            return {}
        path = self._keep_path(ask)
        if not path.exists():
            # First round: everybody starts from the run's common initial model.
            start = initial_model(
                build(ModelConfig, ask.model["config"]),
                [configure("models.objectives", o).build() for o in ask.model["objectives"]],
                ask.seed,
            ).state(ask.components)
            return {name: start[name] for name in keep}
        saved = load_tensors(path)
        return {name: saved[name].to(own[name].dtype) for name in keep}

    def _keep(self, ask: Ask, tensors: Mapping[str, torch.Tensor]) -> None:
        if tensors:
            path = self._keep_path(ask)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(path, tensors)

    def _keep_path(self, ask: Ask) -> Path:
        # Hashed, because the names come from the server and must not become a path of its choice.
        return self.site.folder / "kept" / f"{config_hash([ask.run, ask.cohort])[:32]}.safetensors"

    def _view(self, objective: Any, split: str) -> Any:
        key = (config_hash(objective.cfg), split)
        if key not in self._views:
            rows = self.site.rows.get(split)
            if rows is None or len(rows) == 0:
                raise Refused(Code.NO_DATA, f"this site has no {split} films")
            self._views[key] = objective.open(self.site.store, rows)
        return self._views[key]

    def _evaluate(self, ask: Ask, model: CxrModel, objective: Any) -> list[Result]:
        """The received model on this site's own held-out patients; small cells are suppressed."""
        split = str(ask.evaluation.get("split", "validation"))
        if split not in HELD_OUT:
            raise Refused(Code.BAD_REQUEST, f"evaluation split {split!r}: one of {', '.join(HELD_OUT)}")
        if len(self.site.rows.get(split, ())) == 0:
            return []
        view = self._view(objective, split)
        found = probabilities(model, objective, view, self.device, int(ask.evaluation.get("batch_size", 128)))
        return evaluate(
            found,
            view.labels,
            view.patients,
            objective.cfg.findings,
            replicates=min(int(ask.evaluation.get("replicates", 1000)), 10_000),
            seed=ask.seed,
            min_cell=max(self.site.policy.min_cell, int(ask.evaluation.get("min_cell", 0))),
        )

    def _facts(self, objective: Any) -> dict[str, Any]:
        """What the site can train on: films, patients and positives by split; counts below the minimum cell are None."""
        least = self.site.policy.min_cell
        facts: dict[str, Any] = {}
        for split, rows in self.site.rows.items():
            if len(rows) == 0:
                continue
            view = self._view(objective, split)
            labels, patients = np.asarray(view.labels), np.asarray(view.patients)
            positives = {}
            for column, finding in enumerate(objective.cfg.findings):
                people = len(np.unique(patients[labels[:, column] == Label.PRESENT]))
                films = int((labels[:, column] == Label.PRESENT).sum())
                positives[finding] = films if people >= least else None
            facts[split] = {"films": len(view), "patients": len(np.unique(patients)), "positives": positives}
        if TRAIN not in facts:
            raise Refused(Code.NO_DATA, "this site has no training films")
        return facts


def _training_metrics(done: Trained) -> list[Result]:
    losses = [Result(name, None, value, n=done.items) for name, value in done.losses.items()]
    return [
        *losses,
        Result("seconds", None, done.seconds, n=done.steps),
        Result("steps", None, done.steps, n=done.steps),
    ]
