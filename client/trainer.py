"""The site trainer: owns data, model, device, policy and ledger, and answers what a server asks.

It is installed at the site and never replaced by what a server ships; it validates everything it is asked. Every
answer, also a no, goes through the outbox. What travels of an error is a code and one line; the details stay in the
site's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.adapters import NotOurs, prepare
from client.keeping import Kept
from client.outbox import Outbox, one_line
from client.parts import Parts
from client.policy import Policy, consent
from client.settled import settle
from models.checkpoint import load as load_tensors
from models.checkpoint import save as save_tensors
from models.config import ConfigError, build, config_hash
from models.evaluation import judging
from models.evaluation.delong import delong_rows
from models.evaluation.diagnosis import probabilities
from models.evaluation.results import Result
from models.loop import LoopConfig, NonFiniteLoss, Trained, train
from models.model import SITE, CxrModel, ModelConfig, furnish, initial_model
from models.objectives import held_out_view
from models.registry import configure
from models.studies.schema import Label
from models.studies.store import Store, StoreError
from models.studies.views import ViewError
from strategies.adapters import COMPONENT
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
    lora_rank: int | None = None  # of its adapters; None for the plan's


class SiteTrainer:
    """Stays warm between rounds: data, views and model are opened once."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.device = torch.device(site.device)
        self.outbox = Outbox(site.folder / "egress.jsonl", site.policy)
        self._models: dict[str, CxrModel] = {}
        self._start: dict[str, torch.Tensor] = {}  # the adapters with which the run began
        self._views: dict[tuple[str, str], Any] = {}

    def handle(self, ask: Ask) -> Answer:
        """Answer one ask. Never raises for anything the ask or the data can cause."""
        try:
            answer = self._answer(ask)
        except Refused as refused:
            answer = Answer(site=self.site.name, refusal=refused.refusal)
        except NotOurs as error:
            answer = self._no(error.code, error.text)
        except (ConfigError, ProtocolError) as error:
            answer = self._no(Code.BAD_REQUEST, str(error))
        except StoreError as error:
            answer = self._no(Code.NO_DATA, str(error))
        except ViewError as error:
            answer = self._no(Code.NO_DATA, str(error).split(";")[0])  # the rest lists what the store holds
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
            return Answer(site=self.site.name, facts=self._facts(ask, objective))
        model = self._model(ask)
        own = config_hash([ask.run, ask.cohort])[:32]  # a path of our choice
        kept = Kept(self.site.folder / "kept" / own)
        parts = Parts(self.site.folder / "kept" / f"{own}-adapters")
        ready = prepare(ask, model, self._start, parts, self.site.lora_rank)
        ask, adapter, frozen = ready.ask, ready.facts, ready.frozen
        ask = settle(ask, model, objective.trains)
        stays, left = self._receive(ask, model, objective, kept)
        metrics = self._evaluate(ask, model, objective, f"{SITE}teacher" in left) if ask.evaluate else []
        if ask.kind is Kind.EVALUATE:
            return Answer(site=self.site.name, metrics=tuple(metrics), adapter=adapter)
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
            kept=left,
            frozen=frozen,
            min_cell=self.site.policy.min_cell,
        )
        state = model.state(ask.components)
        leaving = [name for name in ask.tensors if name not in frozen]
        tensors, bf16 = to_wire({name: state[name] for name in leaving}, ask.wire_dtype)
        everything = model.state(sorted({name.split("/")[0] for name in stays}))
        kept.put(ask.phase, ask.round, {name: everything[name] for name in stays})
        return Answer(
            site=self.site.name,
            examples=len(view),
            metrics=(*metrics, *_training_metrics(done)),
            adapter=adapter,
            tensors=tensors,
            bf16=bf16,
        )

    def _model(self, ask: Ask) -> CxrModel:
        """The warm model of this run's shape, made once with the run's common start."""
        key = config_hash([ask.model, ask.seed])
        if key not in self._models:
            model = self._new_model(ask)
            adapters = [COMPONENT] if COMPONENT in model.components() else []
            self._start = {name: value.cpu().clone() for name, value in model.state(adapters).items()}
            self._models = {key: model.to(self.device)}
        return self._models[key]

    def _new_model(self, ask: Ask) -> CxrModel:
        cfg = build(ModelConfig, ask.model["config"], where="model")
        return initial_model(cfg, self._objectives(ask), ask.seed)

    def _objectives(self, ask: Ask) -> list[Any]:
        return [configure("models.objectives", o).build() for o in ask.model["objectives"]]

    def _receive(self, ask: Ask, model: CxrModel, objective: Any, kept: Kept) -> tuple[list[str], set[str]]:
        """Load what was sent, and beside it what stays at this site: the names of the latter, and which of the objective's
        ``site.`` components hold what an earlier round left."""
        odd = sorted(set(ask.components) - set(objective.trains))
        if odd:
            raise Refused(Code.BAD_REQUEST, f"component {odd[0]!r} is asked for, but the objective does not train it")
        travelling = model.state(ask.components)
        if Exchange(keep=ask.keep).select(travelling).keys() != ask.tensors.keys():
            raise Refused(Code.BAD_REQUEST, "the tensors sent are not those of the components less what is kept")
        residents = furnish(model, objective, ask.seed)
        held = (*objective.trains, *residents)
        own = model.state(held)
        stays = sorted(own.keys() - ask.tensors.keys())
        saved = (kept.before(ask.phase, ask.round) if ask.kind is Kind.TRAIN else kept.last()) if stays else {}
        missing = [name for name in stays if name not in saved or saved[name].shape != own[name].shape]
        if missing:
            # First round: everybody starts from the run's common initial model.
            start = self._new_model(ask)
            furnish(start, objective, ask.seed)
            saved |= {name: value for name, value in start.state(held).items() if name in missing}
        received = from_wire(ask.tensors, ask.bf16, {name: own[name] for name in own if name in ask.tensors})
        model.load(held, received | {name: saved[name].to(own[name].dtype) for name in stays})
        return stays, set(residents) - {name.split("/")[0] for name in missing}

    def _view(self, objective: Any, split: str) -> Any:
        key = (config_hash(objective.cfg), split)
        if key not in self._views:
            rows = self.site.rows.get(split)
            if rows is None or len(rows) == 0:
                raise Refused(Code.NO_DATA, f"this site has no {split} films")
            opened = objective.open if split == TRAIN else partial(held_out_view, objective)
            self._views[key] = opened(self.site.store, rows)
        return self._views[key]

    def _evaluate(self, ask: Ask, model: CxrModel, objective: Any, teacher: bool) -> list[Result]:
        """The received model, and a ``teacher`` of the site's own, on its held-out patients; small cells are suppressed."""
        split = str(ask.evaluation.get("split", "validation"))
        if split not in HELD_OUT:
            raise Refused(Code.BAD_REQUEST, f"evaluation split {split!r}: one of {', '.join(HELD_OUT)}")
        if len(self.site.rows.get(split, ())) == 0:
            return []
        try:
            view = self._view(objective, split)
        except ViewError:
            return []  # held-out films without any label: nothing to judge by
        least = max(self.site.policy.min_cell, int(ask.evaluation.get("min_cell", 0)))
        batch_size = int(ask.evaluation.get("batch_size", 128))
        rows: list[Result] = []
        if not ask.evaluation.get("teacher_only"):
            scores = judging.scores(model, objective, view, self.device, batch_size)
            rows += judging.results(
                scores,
                view,
                objective.cfg.findings,
                replicates=min(int(ask.evaluation.get("replicates", 1000)), 10_000),
                seed=ask.seed,
                min_cell=least,
            )
            if ask.evaluation.get("reference") and not judging.is_text(view):
                rows += self._compared(ask, view, objective, scores, least)
        if ask.evaluation.get("reference") and teacher:
            scores = probabilities(model, objective, view, self.device, batch_size, objective.teacher_logits)
            found = self._compared(ask, view, objective, scores, least, store=False)
            rows += [replace(row, metric=f"teacher_{row.metric}") for row in found]
        return rows

    def _compared(
        self, ask: Ask, view: Any, objective: Any, scores: np.ndarray, least: int, store: bool = True
    ) -> list[Result]:
        """DeLong rows of ``scores``; the gain is over the model that the server named as the reference when it sent it,
        whose scores stay here."""
        path = self.site.folder / "kept" / f"{config_hash([ask.run, ask.cohort])[:32]}-reference.safetensors"
        role, reference = ask.evaluation.get("role"), None
        if role == "reference" and store:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(path, {"scores": torch.from_numpy(scores)})
        elif role in ("reference", "compared") and path.exists():
            reference = load_tensors(path)["scores"].numpy()
            if reference.shape != scores.shape:  # the store has grown since
                reference = None
        return delong_rows(scores, view.labels, view.patients, objective.cfg.findings, reference, least)

    def _facts(self, ask: Ask, objective: Any) -> dict[str, Any]:
        """What the site can train on: films, patients and positives by split, and by phase what it can take part in;
        counts below the minimum cell are None."""
        phases = self._objectives(ask) if ask.model.get("objectives") else [objective]
        facts: dict[str, Any] = {"phases": [self._phase_facts(o) for o in phases]}
        if self.site.lora_rank is not None:
            facts["lora_rank"] = self.site.lora_rank
        taken = [(part["films"], o) for part, o in zip(facts["phases"], phases) if part["films"]]
        if not taken:
            raise Refused(Code.NO_DATA, facts["phases"][0]["why"])
        _, widest = max(taken, key=lambda pair: pair[0])
        for split, rows in self.site.rows.items():
            with suppress(ViewError):
                if len(rows):
                    facts[split] = self._split_facts(self._view(widest, split), widest.cfg.findings)
        return facts

    def _split_facts(self, view: Any, findings: tuple[str, ...]) -> dict[str, Any]:
        labels, patients = np.asarray(view.labels), np.asarray(view.patients)
        positives = {}
        for column, finding in enumerate(findings):
            people = len(np.unique(patients[labels[:, column] == Label.PRESENT]))
            films = int((labels[:, column] == Label.PRESENT).sum())
            positives[finding] = films if people >= self.site.policy.min_cell else None
        return {"films": len(view), "patients": len(np.unique(patients)), "positives": positives}

    def _phase_facts(self, objective: Any) -> dict[str, Any]:
        """Films that this objective would train on here, and the findings it could learn from labels here: those with
        the minimum cell of patients of either answer."""
        try:
            view = self._view(objective, TRAIN)
        except ViewError as error:
            return {"films": 0, "taught": [], "why": one_line(str(error).split(";")[0])}
        except Refused as refused:
            return {"films": 0, "taught": [], "why": refused.refusal.text}
        labels, patients, taught = np.asarray(view.labels), np.asarray(view.patients), []
        for column, finding in enumerate(objective.cfg.findings):
            persons = [len(np.unique(patients[labels[:, column] == c])) for c in (Label.PRESENT, Label.ABSENT)]
            if min(persons) >= max(self.site.policy.min_cell, 1):
                taught.append(finding)
        return {"films": len(view), "taught": taught, "why": ""}


def _training_metrics(done: Trained) -> list[Result]:
    losses = [Result(name, None, value, n=done.items) for name, value in done.losses.items()]
    return [
        *losses,
        Result("seconds", None, done.seconds, n=done.steps),
        Result("steps", None, done.steps, n=done.steps),
        *done.notes,
    ]
