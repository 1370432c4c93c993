"""A run: phases of rounds, from hello to results. Knows no transport (``courier``) and no Flower.

A round: every cohort's model goes to its sites, they judge it on their own held-out patients, train it and send it
back; the guard looks at each reply; the rule combines the good ones; the server judges the new model, writes a
checkpoint, and goes on. One bad reply, one bad site or one bad round never ends the run; a run ends as failed when
too many rounds in a row miss their quorum.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.config import ConfigError, to_plain
from models.evaluation.results import ALARMS, MACRO, Result
from models.loop import NonFiniteLoss
from models.studies.store import Store
from server.adapters import Desk, unfit_rank
from server.cohort import Cohort, model_request
from server.courier import Courier, Letter, NotEnoughSites
from server.folder import RunFolder, of_received
from server.gain import gain_lines
from server.hello import unsound, unsound_facts
from server.joined import Joined, unteachable
from server.judge import Judge
from server.reference import Reference
from server.robustness import robustness_rows
from server.teaching import Lessons
from strategies.code import code_hash
from strategies.launch import Launch
from strategies.messages import Answer, Ask, Code, Kind, Refusal
from strategies.plan import Phase
from strategies.virtual import POOLED, open_store, server_rows, site_rows

log = logging.getLogger("fedcxr.run")


class RunFailed(RuntimeError):
    """The run cannot go on; the text says why and what to do."""


class Run:
    """One run in one folder."""

    def __init__(self, launched: Launch, courier: Courier, folder: RunFolder) -> None:
        self.launched, self.plan = launched, launched.plan
        self.courier, self.folder = courier, folder
        self.sites: dict[str, Joined] = {}
        self.judge: Judge | None = None
        self.cohorts: list[Cohort] = []
        self.clock = {"rounds": 0.0, "start_up": 0.0}
        self.traffic = {"up": 0, "down": 0}
        self.done = 0  # global rounds finished, over all phases
        self._scores: dict[str, Any] = {}
        self.lessons: Lessons | None = None
        self.reference = Reference(self.plan, folder)

    def execute(self, resume: bool = False) -> dict[str, Any]:
        """Run to the end and return what ``results.json`` says beside the status.

        Raises:
            RunFailed, NotEnoughSites, ConfigError: nothing more can be done; everything so far is in the folder.
        """
        began = time.perf_counter()
        self._join()
        self._open_lessons()
        if hopeless := unteachable(self.plan, self.sites, self.lessons):
            raise RunFailed(hopeless)
        self._open_cohorts()
        if resume:
            self._resume()
        self.clock["start_up"] = time.perf_counter() - began
        last = 0
        for phase in self.plan.phases:
            first = last + 1
            last += phase.rounds
            if self.done < last:
                self._phase(phase, first)
        self._final_evaluation(self.plan.phases[-1])
        return self._summary()

    # -- who is there ------------------------------------------------------------------------------------------

    def _join(self) -> None:
        federation = self.plan.federation
        nodes = self.courier.nodes(1 if self.plan.simulation else federation.min_sites, federation.wait_seconds)
        self._say(f"{len(nodes)} node{'s' if len(nodes) != 1 else ''} connected; asking for data")
        if self.plan.simulation:
            self._join_virtual(nodes)
        else:
            letters = [Letter(node, self._hello("")) for node in nodes]
            self._welcome(letters, [""] * len(nodes))
        if len(self.sites) < federation.min_sites:
            raise NotEnoughSites(
                f"{len(self.sites)} of at least {federation.min_sites} sites can take part; see events.jsonl for who "
                f"said no, or lower federation.min_sites"
            )
        self.folder.describe(sites=[self._site_line(site) for site in self.sites.values() if site.name != POOLED])
        for site in self.sites.values():
            self._say(f"  {site.name}: {site.examples} training films")

    def _join_virtual(self, nodes: list[int]) -> None:
        # The first answer makes the store; only then can the sites be named.
        first = self._welcome([Letter(nodes[0], self._hello(POOLED))], [POOLED])
        if first[0].refusal:
            raise RunFailed(f"the images cannot be used: {first[0].refusal.text}")
        store = open_store(self.launched)
        rows = site_rows(self.launched, store)
        held_out = {site: found[self.plan.evaluation.split] for site, found in rows.items()}
        if not sum(len(found) for found in held_out.values()):
            raise RunFailed(f"no patient is in the split {self.plan.evaluation.split!r}; change simulation.fractions")
        self.judge = Judge(store, held_out, self.plan.evaluation, self.plan.seed)
        # The pooled site has the longest rounds: first in line, so that the others fill the other workers.
        pooled = self.sites.pop(POOLED)
        self._welcome([Letter(nodes[i % len(nodes)], self._hello(site)) for i, site in enumerate(rows)], list(rows))
        if "pooled" in self.plan.arms:
            self.sites[POOLED] = pooled

    def _open_lessons(self) -> None:
        if not any(phase.server for phase in self.plan.phases):
            return
        if self.plan.simulation:
            store = open_store(self.launched)
            rows = server_rows(self.launched, store)
        else:
            store = Store.open(self.launched.data)
            rows = store.where(view=("PA", "AP", "UNKNOWN"))
        self.lessons = Lessons(self.plan, store, rows)
        self._say(f"  server: {len(rows)} films of its own")

    def _hello(self, site: str) -> Ask:
        phase = self.plan.phases[0]
        return Ask(
            kind=Kind.HELLO,
            site=site,
            objective=to_plain(phase.objective),
            model=model_request(self.plan),
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "run": self.folder.path.name,
            "seed": self.plan.seed,
            "config_hash": self.plan.hash,
            "code_hash": code_hash(),
        }

    def _welcome(self, letters: list[Letter], names: list[str]) -> list[Answer]:
        answers = self.courier.exchange(letters, self.plan.federation.first_deadline_seconds, lambda *_: None)
        for i, (letter, name) in enumerate(zip(letters, names)):
            wrong = None
            if answers[i].refusal is None:
                facts, phases = answers[i].facts, len(self.plan.phases)
                wrong = unsound_facts(facts, phases) if name else unsound(answers[i], self.sites, phases)
                if wrong is None and (unfit := unfit_rank(self.plan, facts.get("lora_rank"))):
                    answers[i] = Answer(site=name, refusal=Refusal(Code.ADAPTER, unfit))
            if wrong:
                answers[i] = Answer(site=name, refusal=Refusal(Code.BAD_REQUEST, wrong))
            if answers[i].refusal:
                self._refused(name or f"node {letter.node}", answers[i], 0)
            else:
                site = name or answers[i].site
                self.sites[site] = Joined(site, letter.node, answers[i].facts)
        return answers

    def _site_line(self, site: Joined) -> dict[str, Any]:
        held_out = site.facts.get(self.plan.evaluation.split, {})
        return {
            "name": site.name,
            "n_train": site.examples,
            "n_validation": held_out.get("films", 0),
            "patients_train": site.facts["train"]["patients"],
            "patients_validation": held_out.get("patients", 0),
            "positives": site.facts["train"]["positives"],
        }

    # -- rounds ------------------------------------------------------------------------------------------------

    def _open_cohorts(self) -> None:
        model = self.plan.new_model()
        start = model.state()
        real = [site for site in sorted(self.sites) if site != POOLED]
        ranks = {s: self.sites[s].facts["lora_rank"] for s in real if "lora_rank" in self.sites[s].facts}
        desk = lambda: Desk.of(self.plan, model, ranks)
        self.cohorts = [Cohort("federated", "federated", real, start, desk())]
        if "pooled" in self.plan.arms:
            self.cohorts.insert(0, Cohort(POOLED, "pooled", [POOLED], start, desk()))
        if "local" in self.plan.arms:
            # A site that cannot take part in every phase, for want of labels, has no model of its own.
            whole = [s for s in real if all(self._takes_part(s, phase) for phase in self.plan.phases)]
            self.cohorts += [Cohort(f"local-{site}", "local", [site], start, desk()) for site in whole]

    def _takes_part(self, site: str, phase: Phase) -> bool:
        return self.sites[site].in_phase(self.plan.phases.index(phase))["films"] > 0

    def _phase(self, phase: Phase, first: int) -> None:
        if self.done < first:  # not when a resumed phase goes on: its rules have their memory back
            for cohort in self.cohorts:
                cohort.begin(phase)
            if getattr(self._federated.rule, "trusts", False):
                text = f"phase {phase.name}: rule {phase.rule.name!r} shows each site's own adapters; the aggregator is trusted"
                self.folder.event("note", code="trusted_aggregator", text=text)
        failed = 0
        for number in range(max(self.done - first + 2, 1), phase.rounds + 1):
            began = time.perf_counter()
            combined = self._round(phase, number, first + number - 1)
            failed = 0 if combined else failed + 1
            self.done = first + number - 1
            judging = time.perf_counter()
            self._judge(phase, number)
            judged = time.perf_counter() - judging
            self._checkpoint(phase, number)
            seconds = time.perf_counter() - began
            self.clock["rounds"] += seconds
            self._line(phase, number, "federated", "central", Result("seconds", None, seconds, n=1))
            self._line(phase, number, "federated", "central", Result("seconds_judge", None, judged, n=1))
            if failed >= self.plan.federation.max_failed_rounds:
                raise RunFailed(
                    f"{failed} rounds in a row missed the quorum ({self.plan.federation.quorum:.0%} of "
                    f"{len(self._federated.sites)} sites); see events.jsonl for the reasons"
                )

    @property
    def _federated(self) -> Cohort:
        return next(c for c in self.cohorts if c.arm == "federated")

    def _round(self, phase: Phase, number: int, overall: int) -> bool:
        """One round of every cohort; whether the federation's model moved."""
        letters: list[Letter] = []
        owners: list[Cohort] = []
        for cohort in self.cohorts:
            there = [site for site in cohort.sites if self._takes_part(site, phase)]
            for site, ask in cohort.ask(self.plan, phase, Kind.TRAIN, number, self._common(), there).items():
                letters.append(Letter(self.sites[site].node, ask))
                owners.append(cohort)
        total, arrived = len(letters), []

        def on_answer(letter: Letter, answer: Answer) -> None:
            arrived.append(letter)
            self._say(
                f"  round {overall}: {letter.ask.cohort}/{letter.ask.site} {'said no' if answer.refusal else 'done'} "
                f"({len(arrived)} of {total})",
                level=logging.DEBUG,
            )

        answers = self.courier.exchange(letters, self.plan.federation.deadline_seconds, on_answer)
        self.traffic["down"] += sum(_bytes(letter.ask) for letter in letters)
        self.traffic["up"] += sum(_bytes(answer) for answer in answers)
        moved = False
        for cohort in self.cohorts:
            pairs = [(x.ask.site, a) for x, a, owner in zip(letters, answers, owners) if owner is cohort]
            self._traffic_lines(phase, number, cohort, [x for x, o in zip(letters, owners) if o is cohort], dict(pairs))
            combined = bool(pairs) and self._combine(phase, number, cohort, dict(pairs))
            if cohort.arm == "federated":
                moved |= self._teach(phase, number, cohort, combined or not pairs) or combined
        return moved

    def _teach(self, phase: Phase, number: int, cohort: Cohort, due: bool) -> bool:
        """The server's own lesson, unless the round failed; whether the model moved."""
        if not (phase.server and due):
            return False
        try:
            done = self.lessons.teach(cohort, phase, number)
        except NonFiniteLoss as error:
            self.folder.event("refused", round=number, site="server", code=Code.NON_FINITE_LOSS, text=str(error))
            return False
        for name, value in done.losses.items():
            self._line(phase, number, cohort.arm, "central", Result(f"server_{name}", None, value, n=done.items))
        for row in done.notes:
            self._alarm(phase, number, "server", row)
        return True

    def _combine(self, phase: Phase, number: int, cohort: Cohort, answers: Mapping[str, Answer]) -> bool:
        quorum = max(1, math.ceil(self.plan.federation.quorum * len(answers)))
        index = self.plan.phases.index(phase)
        registered = {site.name: site.in_phase(index)["films"] for site in self.sites.values()}
        outcome = cohort.take(answers, self.plan.guard, quorum, registered)
        for site, refusal in outcome.refused:
            self._refused(site, Answer(site=site, refusal=refusal), number, cohort)
        if not outcome.combined:
            text = f"{len(outcome.accepted)} good replies of {len(answers)} sites, {quorum} needed; model unchanged"
            self.folder.event("quorum", round=number, site=cohort.name, code="below_quorum", text=text)
            self._say(f"  round {number} {cohort.name}: {text}")
        for row in outcome.notes:
            if cohort.arm == "federated":
                self._line(phase, number, cohort.arm, "central", row)
        for site in outcome.accepted:
            for row in answers[site].metrics:
                self._alarm(phase, number, site, row, cohort)
                # What a site measured on arrival belongs to the model of the round before.
                at = number - 1 if of_received(row.metric) else number
                if cohort.arm != "pooled":
                    self._line(phase, at, cohort.arm, site, row, cohort.trained_on)
                elif row.metric not in ("seconds", "steps"):  # no hospital: what it says is of the whole
                    self._line(phase, at, cohort.arm, "central", row)
            if cohort.arm != "pooled":
                norm = Result("update_norm", None, outcome.norms[site], n=answers[site].examples)
                self._line(phase, number, cohort.arm, site, norm, cohort.trained_on)
        return outcome.combined

    def _alarm(self, phase: Phase, number: int, site: str, row: Result, cohort: Cohort | None = None) -> None:
        """Mark the run where a site says that what it trains on is not what it should be."""
        if row.metric not in ALARMS:
            return
        where = f"{cohort.name}, " if cohort and cohort.arm != "federated" else ""
        text = f"{where}phase {phase.name}: {f'{row.finding}: ' if row.finding else ''}{row.reason or row.metric}"
        self.folder.event("marked", round=number, site=site, code=row.metric, text=text)
        self._say(f"  {site}: {row.metric} ({text})")

    def _traffic_lines(
        self, phase: Phase, number: int, cohort: Cohort, letters: Sequence[Letter], answers: Mapping[str, Answer]
    ) -> None:
        if cohort.arm != "federated":
            return
        for letter in letters:
            site = letter.ask.site
            down, up = _bytes(letter.ask), _bytes(answers[site])
            self._line(phase, number, cohort.arm, site, Result("bytes_down", None, down, n=len(letter.ask.tensors)))
            self._line(phase, number, cohort.arm, site, Result("bytes_up", None, up, n=len(answers[site].tensors)))

    # -- judging -----------------------------------------------------------------------------------------------

    def _judge(self, phase: Phase, number: int) -> None:
        if self.judge is None or (number % self.plan.evaluation.every and number != phase.rounds):
            return
        model, scores = self.plan.new_model(), {}
        for cohort in self.cohorts:
            scores[cohort.name] = self.judge.scores(cohort.into(model), phase)
            rows = self.judge.results(scores[cohort.name], phase)
            rows += self.reference.rows(self.judge, cohort.name, scores[cohort.name], phase)
            for row in rows:
                self._line(phase, number, cohort.arm, "central", row, cohort.trained_on)
            if cohort.arm == "federated":
                self._say(f"round {number} of {phase.rounds}: {_headline(rows, self.judge.headline(phase))}")
            if cohort.arm == "pooled":
                for site in self.judge.sites:
                    for row in self.judge.results(scores[cohort.name], phase, site):
                        self._line(phase, number, cohort.arm, site, row)
        local = [scores[c.name] for c in self.cohorts if c.arm == "local"]
        if local:
            for row in self.judge.results(np.stack(local), phase):
                self._line(phase, number, "local", "central", row)
        if self.plan.evaluation.robustness and phase in self.plan.phases_judged_spoilt and number == phase.rounds:
            for arm, strength, row in robustness_rows(self.plan, self.judge, self.cohorts, model, phase):
                self._line(phase, number, arm, "central", row, strength=strength)
        self._scores = scores
        self.reference.keep(phase, number, scores)

    def _final_evaluation(self, phase: Phase) -> None:
        """The sites' own view of the last model: an ask of its own, because no training round follows."""
        letters, owners = [], []
        for cohort in self.cohorts:
            if cohort.arm == "pooled" and self.plan.evaluation.reference is None:
                continue
            for site, ask in cohort.ask(self.plan, phase, Kind.EVALUATE, phase.rounds, self._common()).items():
                letters.append(Letter(self.sites[site].node, ask))
                owners.append(cohort)
        answers = self.courier.exchange(letters, self.plan.federation.deadline_seconds, lambda *_: None)
        for letter, cohort, answer in zip(letters, owners, answers):
            if answer.refusal:
                self._refused(letter.ask.site, answer, phase.rounds, cohort)
            site = "central" if cohort.arm == "pooled" else letter.ask.site
            for row in answer.metrics:
                self._line(phase, phase.rounds, cohort.arm, site, row, cohort.trained_on)

    # -- keeping -----------------------------------------------------------------------------------------------

    def _checkpoint(self, phase: Phase, number: int) -> None:
        server = {
            f"{cohort.name}|{kind}|{name}": value
            for cohort in self.cohorts
            for kind, tensors in (("model", cohort.tensors), ("memory", cohort.memory()))
            for name, value in tensors.items()
            if not (kind == "model" and cohort.arm == "federated")
        }
        state = {
            "round": self.done,
            "phase": phase.name,
            "phase_round": number,
            "config_hash": self.plan.hash,
            "traffic": self.traffic,
            "seconds": self.clock["rounds"],
        }
        if desk := self._federated.desk:
            state["adapters"] = {"base": desk.base, "head": desk.head}
        self.folder.checkpoint(self.done, self._federated.tensors, server, state, self.plan.checkpoints)

    def _resume(self) -> None:
        found = self.folder.last_checkpoint()
        if found is None:
            return
        model, server, state = found
        self.done, self.traffic, self.clock["rounds"] = state["round"], state["traffic"], state["seconds"]
        phase = next(p for p in self.plan.phases if p.name == state["phase"])
        desk, was = self._federated.desk, state.get("adapters")
        if desk and was and desk.base != was["base"]:
            raise RunFailed(
                f"the checkpoint's adapters belong to the base {was['base'][:12]}..., and the plan's source is "
                f"{desk.base[:12]}... here; put the same weights there"
            )
        for cohort in self.cohorts:
            cohort.begin(phase)
            own = {k: v for k, v in server.items() if k.split("|")[0] == cohort.name}
            part = {
                kind: {k.split("|", 2)[2]: v for k, v in own.items() if k.split("|")[1] == kind}
                for kind in ("model", "memory")
            }
            cohort.restore(model if cohort.arm == "federated" else part["model"], part["memory"])
        self.folder.forget_after(self.plan, state["phase"], state["phase_round"])
        self.folder.event("resumed", round=self.done, text=f"from checkpoint {self.done}")
        self._say(f"resumed after round {self.done}")

    def _summary(self) -> dict[str, Any]:
        phase = self.plan.phases[-1]
        lines = self.folder.lines("metrics.jsonl")
        final = [x for x in lines if (x["phase"], x["round"]) == (phase.name, phase.rounds) and "strength" not in x]
        gain = gain_lines(self.judge, self.cohorts, self._final_scores(phase), phase) if self.judge else []
        return {
            "error": None,
            "rounds": self.done,
            "seconds": round(self.clock["start_up"] + self.clock["rounds"], 3),
            "seconds_start_up": round(self.clock["start_up"], 3),
            "seconds_rounds": round(self.clock["rounds"], 3),
            "bytes_per_round": (self.traffic["up"] + self.traffic["down"]) // max(self.done, 1),
            "final": final,
            "gain": gain,
            "robustness": [x for x in lines if "strength" in x],
            "marks": [e for e in self.folder.lines("events.jsonl") if e["event"] == "marked"],
        }

    def _final_scores(self, phase: Phase) -> dict[str, Any]:
        if not self._scores:  # resumed after the last round: the curves are there, the scores are not
            model = self.plan.new_model()
            self._scores = {c.name: self.judge.scores(c.into(model), phase) for c in self.cohorts}
        return self._scores

    def _line(
        self, phase: Phase, number: int, arm: str, site: str, row: Result, trained_on: str | None = None, **more: Any
    ) -> None:
        self.folder.metric(
            phase=phase.name,
            round=number,
            cohort=arm,
            site=site,
            trained_on=trained_on,
            split=self.plan.evaluation.split,
            **row.line(),
            **more,
        )

    def _refused(self, site: str, answer: Answer, number: int, cohort: Cohort | None = None) -> None:
        refusal = answer.refusal
        event = "timeout" if refusal.code == "deadline_passed" else "refused"
        where = f"{cohort.name}: " if cohort and cohort.arm != "federated" else ""
        self.folder.event(event, round=number, site=site, code=str(refusal.code), text=where + refusal.text)
        self._say(f"  {site}: {refusal.code} ({where}{refusal.text})")

    def _say(self, text: str, level: int = logging.INFO) -> None:
        log.log(level, text)


def _bytes(message: Ask | Answer) -> int:
    return sum(array.nbytes for array in message.tensors.values())


def _headline(rows: Sequence[Result], metric: str) -> str:
    row = next(r for r in rows if r.metric == metric and r.finding == MACRO)
    name, items = ("macro AUROC", "films") if metric == "auroc" else (f"mean {metric}", "questions")
    if row.value is None:
        return f"no {name} ({row.reason})"
    interval = f" [{row.low:.3f}, {row.high:.3f}]" if row.low is not None else ""
    return f"{name} {row.value:.3f}{interval} on {row.n} unseen {items}"


__all__ = ["ConfigError", "Run", "RunFailed"]
