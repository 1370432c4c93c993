"""Adapters in a federation: what crosses the wire, what each side refuses, the true mean after every round, resuming, and
the exported model. Real ServerApp code, real trainers, in-process grid."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from client import virtual
from client.app import carry
from client.trainer import Site, SiteTrainer
from models.checkpoint import load
from models.config import ConfigError, build
from models.text.config import TextConfig
from server.adapters import Desk, read_folds, unfit_rank
from server.app import FlowerCourier, execute
from server.checkpoints import open_checkpoint
from server.cohort import Cohort
from server.export import NotExported, export, text_tower
from server.folder import RunFolder
from server.run import Run, RunFailed
from strategies.adapters import factor_of
from strategies.guard import GuardConfig
from strategies.launch import launch
from strategies.messages import Answer, Ask, Code, Kind, pack, unpack
from strategies.plan import RunConfig
from strategies.records import from_record, to_record
from tests.inprocess import InProcessGrid
from tests.models.objectives.towers import REPORTS, report_store
from tests.strategies.lora_world import EXACT, SETTINGS
from tests.world import federate, plan_values

ALPHA, RANK = 16.0, 4
TEXT = {
    "scratch": {"width": 32, "heads": 4, "depth": 2, "vocabulary": 1200},
    "lora": {"rank": RANK, "alpha": ALPHA},
    "project": 8,
    "max_tokens": 64,
    "batch_tokens": 1024,
}
OBJECTIVE = {"name": "simcse", "trains": ["text_lora", "text_proj"]}
ALL = [pytest.param(n, marks=() if n == "alternate" else pytest.mark.slow) for n in SETTINGS]


def phase(rule: str | None, rounds: int = 3, dtype: str = "float32", name: str = "texts") -> dict:
    local = {"steps": 2, "batch_size": 4, "lr": 0.01}  # with the default weight decay
    wish = {} if rule is None else {"rule": {"name": rule, **SETTINGS[rule]}}
    return {
        "name": name,
        "rounds": rounds,
        "objective": OBJECTIVE,
        "local": local,
        "exchange": {"dtype": dtype},
        **wish,
    }


def changes(*phases: dict, **more) -> dict:
    plan = {
        "model": {"text": copy.deepcopy(TEXT)},
        "phases": copy.deepcopy(list(phases)),
        "simulation__partition": {"by": "hash", "sites": 3},
        "checkpoints": 0,
        "evaluation__every": 10,
        "simulation__fractions": {"train": 0.8, "validation": 0.2, "test": 0.0},
    }
    return {**plan, **more}


def cold() -> None:
    virtual._warm.clear()
    virtual._opened.clear()


def watched(change=lambda ask, answer: answer):
    seen: list[tuple[Ask, Answer]] = []

    def client(message, context):
        ask = from_record(Ask, message.content)
        answer = change(ask, from_record(Answer, carry(message, context).content))
        seen.append((ask, answer))
        return type(message)(to_record(answer), reply_to=message)

    return client, seen


def run(folder, store, *phases, client=None, **more):
    cold()
    return federate(folder, store, client, **changes(*phases, **more))


def lines(found, metric, **where):
    rows = [x for x in found.lines("metrics.jsonl") if x["metric"] == metric]
    return [x for x in rows if all(x[k] == v for k, v in where.items())]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "store"
    report_store(folder, REPORTS * 3)
    return folder


@pytest.fixture(scope="module", params=ALL)
def federated(request, tmp_path_factory, store):
    """A run of three rounds with one rule, and everything that crossed the wire."""
    client, seen = watched()
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, run(folder, store, phase(request.param), client=client), seen


def trainings(seen):
    return [(ask, answer) for ask, answer in seen if ask.kind is Kind.TRAIN]


def test_the_run_ends_well_and_nobody_is_refused(federated):
    name, found, seen = federated
    assert json.loads((found.path / "results.json").read_text())["status"] == "completed"
    assert all(answer.refusal is None for _, answer in seen)
    told = [e["code"] for e in found.lines("events.jsonl")]
    assert told == (["trusted_aggregator"] if name in ("stack", "fedex", "svd", "average") else [])
    assert lines(found, "simcse_loss", round=3)


def test_only_adapters_and_projection_are_on_the_wire(federated):
    name, _, seen = federated
    for ask, answer in seen:
        assert {n.split("/")[0] for n in (*ask.tensors, *answer.tensors)} <= {"text_lora", "text_proj"}
        adapters = [n for n in answer.tensors if n.startswith("text_lora/")]
        assert all(factor_of(n) for n in adapters) and all(factor_of(n) for n in ask.tensors if "text_lora" in n)
        sent = {factor_of(n) for n in adapters}
        if ask.kind is Kind.TRAIN:
            odd = ask.round % 2 == 1
            assert sent == {"alternate": {"B" if odd else "A"}, "ffa": {"B"}}.get(name, {"A", "B"})
            assert "".join(sorted(sent)) == ask.adapter["train"]
        else:
            assert not answer.tensors


def test_bytes_are_those_of_the_shapes(federated):
    """Down comes the factor that changed; folds hold rank * sites columns, or rank * (sites + 1)."""
    name, found, seen = federated
    shapes = {n: t.shape for n, t in load(found.checkpoints()[0] / "model.safetensors").items()}
    size = {f: sum(4 * s.numel() for n, s in shapes.items() if factor_of(n) == f) for f in ("A", "B", None)}
    both = size["A"] + size["B"]
    up = {"alternate": lambda r: size["B" if r % 2 else "A"], "ffa": lambda r: size["B"]}.get(name, lambda r: both)
    down = {
        "alternate": lambda r: size["A" if r % 2 else "B"],
        "ffa": lambda r: size["B"],
        "stack": lambda r: 3 * both,
        "fedex": lambda r: 4 * both + both,
    }.get(name, lambda r: both)
    for ask, answer in trainings(seen):
        arrays = lambda message: sum(a.nbytes for a in message.tensors.values())
        assert arrays(answer) == up(ask.round) + size[None]
        assert arrays(ask) == (down(ask.round) if ask.round > 1 else 0) + size[None]  # the start is everybody's own
        header = len(pack(replace(answer, tensors={}))) + 128 * len(answer.tensors)
        assert arrays(answer) < len(pack(answer)) < arrays(answer) + header + 1024
    assert lines(found, "bytes_up", round=2)[0]["value"] == up(2) + size[None]


def effective(checkpoint, plan) -> dict[str, np.ndarray]:
    """What the checkpoint adds to the weights as built, dense, float64."""
    tensors, folds = checkpoint
    out = {}
    for name in (n for n in tensors if factor_of(n) == "A"):
        layer = name.removeprefix("text_lora/").removesuffix(".lora_A.weight")
        a, b = (tensors[f"text_lora/{layer}.lora_{x}.weight"].double() for x in "AB")
        total = ALPHA / len(a) * b @ a
        out[layer] = sum((fold.delta(layer) for fold in folds), total).numpy()
    return out


def checkpoints(found):
    """Model and folds of the federation, from the start on."""
    start = launch(
        {"config": str(found.path.parent.parent / "plan.yaml"), "out": "/nowhere", "data": "/"}
    ).plan.new_model()
    out = [(start.state(["text_lora"]), [])]
    for folder in found.checkpoints():
        memory = load(folder / "server.safetensors")
        own = {k.removeprefix("federated|memory|"): v for k, v in memory.items()}
        out.append((load(folder / "model.safetensors"), read_folds(own)))
    return out


def test_after_every_round_the_model_is_the_mean_of_what_the_sites_trained(federated):
    name, found, seen = federated
    kept = checkpoints(found)
    for number in range(1, len(kept)):
        (before, folds), now = kept[number - 1], effective(kept[number], None)
        answers = [answer for ask, answer in trainings(seen) if ask.round == number]
        total, want = sum(a.examples for a in answers), {}
        for answer in answers:
            site = {**before, **{n: torch.from_numpy(a) for n, a in answer.tensors.items()}}
            for layer, value in effective((site, folds), None).items():
                want[layer] = want.get(layer, 0) + answer.examples / total * value
        off = sum(((now[n] - w) ** 2).sum() for n, w in want.items()) ** 0.5
        true = sum((w**2).sum() for w in want.values()) ** 0.5
        if name in EXACT:
            assert off <= 1e-6 * true
        elif name == "average":
            bias = lines(found, "lora_bias", round=number, site="central")[0]["value"]
            assert bias == pytest.approx(off / true, rel=1e-3) and bias > 1e-3
        else:
            lost = lines(found, "lora_discarded", round=number, site="central")[0]["value"]
            assert lost == pytest.approx((off / true) ** 2, rel=1e-2) and lost > 1e-9


def test_the_base_moves_only_where_a_rule_folds(federated):
    name, found, seen = federated
    heads = [ask.adapter["base"] for ask, _ in trainings(seen) if ask.site == "site-1"]
    assert len(set(heads)) == (3 if name in ("stack", "fedex") else 1)
    assert all(answer.adapter["base"] == ask.adapter["base"] for ask, answer in trainings(seen))
    state = json.loads((found.checkpoints()[-1] / "state.json").read_text())
    assert state["adapters"]["base"] == heads[0] and (state["adapters"]["head"] != heads[0]) == (len(set(heads)) > 1)


def test_the_exported_folder_loads_with_the_library_alone(federated, tmp_path):
    _, found, _ = federated
    about = export(found.path, tmp_path / "encoder")
    tower = text_tower(open_checkpoint(found.checkpoints()[-1]))
    model = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    report = " ".join(REPORTS[0])
    coded = tokenizer(report, return_tensors="pt", return_special_tokens_mask=True)
    with torch.no_grad():
        states = model(input_ids=coded["input_ids"])[0][0]
        pooled = states[coded["special_tokens_mask"][0] == 0].mean(0)
        ours = tower.projection(pooled[None])
    assert torch.allclose(tower.encode([report]), ours, atol=1e-5)
    again = build(TextConfig, {"source": str(tmp_path / "encoder"), "project": 8, "max_tokens": 64}).build().eval()
    texts = [" ".join(pair) for pair in REPORTS]
    assert torch.allclose(again.encode(texts), tower.encode(texts), atol=1e-5)
    untouched = open_checkpoint(found.path).plan.new_model().text.eval()
    assert not torch.allclose(untouched.encode(texts), tower.encode(texts), atol=1e-3)
    assert about["round"] == 3 and about["base_sha256"] == tower.base_hash
    with pytest.raises(NotExported, match="is not empty"):
        export(found.path, tmp_path / "encoder")


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("rule", ALL)
def test_resuming_equals_an_uninterrupted_run_bit_for_bit(tmp_path, store, monkeypatch, rule):
    first = [phase("alternate", 1, name="before")] if rule == "stack" else []
    plan = changes(*first, phase(rule, 3 - len(first)))
    cold()
    whole = federate(tmp_path / "whole", store, nodes=1, **plan)
    judge = Run._judge

    def cut(self, this, number):
        if self.done == 2:
            raise PowerCut
        judge(self, this, number)

    monkeypatch.setattr(Run, "_judge", cut)
    cold()
    with pytest.raises(PowerCut):
        federate(tmp_path / "cut", store, nodes=1, **plan)
    monkeypatch.setattr(Run, "_judge", judge)
    cold()
    values = {"config": str(tmp_path / "cut" / "plan.yaml"), "data": str(store), "out": str(tmp_path / "cut" / "out")}
    launched = launch(values)
    folder = RunFolder.reopen(tmp_path / "cut" / "out" / "run", launched.plan)
    execute(launched, FlowerCourier(InProcessGrid(carry, 1, values)), folder, resume=True)
    for file in ("model.safetensors", "server.safetensors"):
        a, b = (load(found.checkpoints()[-1] / file) for found in (whole, folder))
        assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    assert not [e for e in folder.lines("events.jsonl") if e["event"] == "refused"]


def test_a_site_that_lost_what_it_kept_says_so_and_is_sent_all(tmp_path, store):
    def lose(ask, answer):
        if (ask.site, ask.round, ask.kind) == ("site-1", 2, Kind.TRAIN):
            cold()
            for path in (tmp_path / "out" / "run" / "sites" / "site-1" / "kept").glob("*-adapters"):
                shutil.rmtree(path)
        return answer

    client, seen = watched(lose)
    found = run(tmp_path, store, phase("alternate", 4), client=client)
    [refused] = [e for e in found.lines("events.jsonl") if e["event"] == "refused"]
    assert (refused["site"], refused["round"], refused["code"]) == ("site-1", 3, "adapter_part_missing")
    sent = {(a.site, a.round): {factor_of(n) for n in a.tensors} - {None} for a, _ in trainings(seen)}
    assert sent["site-1", 4] == {"A", "B"} and sent["site-2", 4] == {"B"}
    assert next(answer for ask, answer in seen if (ask.site, ask.round) == ("site-1", 4)).refusal is None


@pytest.mark.parametrize("rule", [pytest.param("stack", marks=pytest.mark.slow), "svd"])
def test_sites_of_different_ranks(tmp_path, store, rule):
    client, seen = watched()
    ranks = {"site-1": 2, "site-3": 1}
    found = run(tmp_path, store, phase(rule), client=client, simulation__lora_ranks=ranks)
    for ask, answer in trainings(seen):
        rank = ranks.get(ask.site, RANK)
        assert answer.refusal is None and answer.adapter["rank"] == rank
        assert {t.shape[0] for n, t in answer.tensors.items() if factor_of(n) == "A"} == {rank}
    assert {
        t.shape[0] for n, t in load(found.checkpoints()[-1] / "model.safetensors").items() if factor_of(n) == "A"
    } == {4}
    if rule == "svd":
        values = [lines(found, f"lora_discarded{end}", round=3)[0]["value"] for end in ("", "_rank_2", "_rank_1")]
        assert 0 < values[0] < values[1] < values[2] < 1


@pytest.mark.slow
def test_two_phases_in_other_types_keep_one_chain(tmp_path, store):
    """A fold made in bfloat16 goes on being sent as it is when later phases travel in float32; a phase that trains the
    projection alone still runs on the federation's adapters and base."""
    client, seen = watched()
    last = {**phase(None, 1, name="projection"), "objective": {"name": "simcse", "trains": ["text_proj"]}}
    found = run(tmp_path, store, phase("fedex", 2, "bfloat16"), phase("alternate", 2, name="b"), last, client=client)
    assert all(answer.refusal is None for _, answer in seen)
    config = json.dumps(found.about["config"]["phases"][2]["rule"])
    assert config == '{"name": "mean"}'
    late = [ask for ask, _ in trainings(seen) if ask.phase == "projection"]
    assert all(len(ask.adapter["folds"]) == 2 and ask.adapter["train"] == "" for ask in late)
    final = load(found.checkpoints()[-1] / "model.safetensors")
    before = load(found.checkpoints()[-2] / "model.safetensors")
    moved = {n.split("/")[0] for n in final if not torch.equal(final[n], before[n])}
    assert moved == {"text_proj"}


# -- what either side refuses ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory, store):
    """A cohort and a site without a network between them."""
    plan = build(RunConfig, plan_values(**changes(phase("fedex", dtype="bfloat16"))))
    return plan, store, tmp_path_factory


COMMON = {"run": "r", "seed": 3, "config_hash": "", "code_hash": ""}


def meet(pair):
    plan, store, folders = pair
    from models.studies.store import Store

    opened, model = Store.open(store), plan.new_model()
    cohort = Cohort("federated", "federated", ["s"], model.state(), Desk.of(plan, model, {}))
    cohort.begin(plan.phases[0])
    rows = {"train": np.arange(len(opened))}
    return cohort, SiteTrainer(Site("s", opened, rows, folders.mktemp("s"))), plan


def asked(cohort, plan, number):
    ask = cohort.ask(plan, plan.phases[0], Kind.TRAIN, number, COMMON)["s"]
    return unpack(Ask, pack(replace(ask, evaluate=False)))


def turn(cohort, trainer, plan, number):
    answer = trainer.handle(asked(cohort, plan, number))
    return cohort.take({"s": answer}, GuardConfig(), 1, {})


MUTATIONS = [{"rank": 3}, {"alpha": 8.0}, {"targets": "attention"}, {"base": "0" * 64}, {"train": "A"}]


@pytest.fixture(scope="module")
def met(pair):
    """After one round, with a fold under way."""
    cohort, trainer, plan = meet(pair)
    assert turn(cohort, trainer, plan, 1).combined
    return cohort, trainer, plan


@pytest.mark.parametrize("change", MUTATIONS[:4])
def test_a_site_refuses_an_ask_of_another_adapter(met, change):
    cohort, trainer, plan = met
    ask = asked(cohort, plan, 2)
    answer = trainer.handle(replace(ask, adapter={**ask.adapter, **change}))
    assert answer.refusal.code is Code.ADAPTER and next(iter(change)) in answer.refusal.text and not answer.tensors


@pytest.mark.parametrize("change", MUTATIONS)
def test_the_server_refuses_an_answer_of_another_adapter(met, change):
    cohort, trainer, plan = met
    answer = trainer.handle(asked(cohort, plan, 2))
    assert answer.refusal is None
    wrong = replace(answer, adapter={**answer.adapter, **change})
    outcome = cohort.take({"s": wrong}, GuardConfig(), 1, {})
    assert [r.code for _, r in outcome.refused] == [Code.ADAPTER] and not outcome.combined
    none = cohort.take({"s": replace(answer, adapter={})}, GuardConfig(), 1, {})
    assert [r.code for _, r in none.refused] == [Code.ADAPTER]


def test_a_site_refuses_adapters_where_there_are_none_and_none_where_there_are(met):
    cohort, trainer, plan = met
    ask = asked(cohort, plan, 2)
    assert trainer.handle(replace(ask, adapter={})).refusal.code is Code.ADAPTER
    bare = json.loads(json.dumps(ask.model))
    bare["config"]["text"]["lora"] = None
    objective = {**OBJECTIVE, "trains": ["text"]}
    bare["objectives"] = [objective]
    assert (
        trainer.handle(replace(ask, model=bare, objective=objective, components=("text",))).refusal.code is Code.ADAPTER
    )


def test_a_site_set_to_another_rank_refuses(met):
    cohort, trainer, plan = met
    trainer.site.lora_rank = 2
    try:
        assert "rank is 4, here it is 2" in trainer.handle(asked(cohort, plan, 2)).refusal.text
    finally:
        trainer.site.lora_rank = None


@pytest.mark.parametrize("which", ["fold", "A", "B"])
def test_a_changed_tensor_is_not_what_its_name_says(pair, which):
    cohort, trainer, plan = meet(pair)
    turn(cohort, trainer, plan, 1)
    ask = asked(cohort, plan, 2)
    name = next(
        n for n in ask.tensors if ("/fold." in n) == (which == "fold") and (which == "fold" or factor_of(n) == which)
    )
    ask.tensors[name] = ask.tensors[name].copy()
    ask.tensors[name].flat[0] ^= 1
    assert trainer.handle(ask).refusal.code in (Code.ADAPTER, Code.BAD_REQUEST)
    assert trainer.handle(asked(cohort, plan, 2)).refusal is None  # nothing of it stayed


@pytest.mark.parametrize(
    "change",
    [
        {"pieces": None},
        {"pieces": {"A": "x"}},
        {"pieces": {"A": "../../etc", "B": "0" * 64}},
        {"folds": [{"id": "0" * 64}]},
        {"folds": [{"id": "0" * 64, "terms": [[0, 1.0]]}]},
        {"folds": [{"id": "0" * 64, "terms": [[4, float("inf")]]}]},
        {"drawn": -1},
        {"train": "C"},
        {"rank": True},
        {"base": 7},
    ],
)
def test_terms_without_form_are_a_bad_request(met, change):
    cohort, trainer, plan = met
    ask = asked(cohort, plan, 2)
    assert trainer.handle(replace(ask, adapter={**ask.adapter, **change})).refusal.code is Code.BAD_REQUEST


def test_only_the_factor_of_the_round_moves_under_weight_decay(pair):
    plan = build(RunConfig, plan_values(**changes(phase("alternate"))))
    cohort, trainer, _ = meet((plan, *pair[1:]))
    model = None
    for number, moves in ((1, "B"), (2, "A"), (3, "B")):
        before = {n: t.clone() for n, t in cohort.tensors.items()}
        ask = cohort.ask(plan, plan.phases[0], Kind.TRAIN, number, COMMON)["s"]
        answer = trainer.handle(replace(ask, evaluate=False))
        [model] = trainer._models.values()
        now = model.state(["text_lora"])
        assert {factor_of(n) for n in now if not torch.equal(now[n], before[n])} == {moves}
        assert not any(
            p.requires_grad for n, p in model.components()["text_lora"].named_parameters() if factor_of(n) != moves
        )
        cohort.take({"s": answer}, GuardConfig(), 1, {})


# -- plans that cannot be -------------------------------------------------------------------------------------------------


def plan_of(*phases, **more):
    return build(RunConfig, plan_values(**changes(*phases, **more)))


def test_adapters_alternate_by_default_and_anything_else_is_averaged():
    assert plan_of(phase(None)).phases[0].rule.name == "alternate"
    assert build(RunConfig, plan_values()).phases[0].rule.name == "mean"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phases__0__rule": {"name": "mean"}}, "averaging A and B apart.*'alternate'"),
        ({"phases__0__rule": {"name": "fedadam"}}, "averaging A and B apart"),
        ({"phases__0__rule": {"name": "average"}}, "allow_biased false"),
        ({"phases__0__rule": {"name": "stack"}}, "trusted_aggregator false"),
        ({"phases__0__objective": {"name": "simcse", "trains": ["text_proj"]}}, "none travel in this phase"),
        ({"phases__0__exchange": {"keep": ["text_lora/*lora_A*"]}}, "holds back factors of adapters"),
        ({"phases__0__exchange": {"keep": ["*"]}}, "holds back factors of adapters"),
        ({"phases__0__server": {"epochs": 1}, "simulation__server": 0.1}, "the server's own lesson"),
        ({"model__text__lora": None}, "model.text.lora is not given"),
        ({"simulation__lora_ranks": {"site-1": 2}}, "takes one rank for all sites, 4; 'stack' and 'svd'"),
        ({"simulation__lora_ranks": {"site-1": 5}}, "the model's is the largest"),
        ({"simulation__lora_ranks": {"site-1": 0}}, "the model's is the largest"),
        (
            {"phases__0__rule": {"name": "fedex", "trusted_aggregator": True}, "model__text__dtype": "bfloat16"},
            "lost to rounding",
        ),
    ],
)
def test_a_plan_that_would_be_wrong_is_refused_in_words(change, said):
    with pytest.raises(ConfigError, match=said):
        plan_of(phase("alternate"), **change)


def test_a_site_of_another_rank_joins_only_where_the_rule_allows():
    even, mixed = plan_of(phase("alternate")), plan_of(phase("svd"))
    assert unfit_rank(even, None) is None and unfit_rank(even, 4) is None and unfit_rank(mixed, 2) is None
    assert "takes one rank" in unfit_rank(even, 2) and "can only be lower" in unfit_rank(mixed, 5)
    assert all("no whole number" in unfit_rank(mixed, odd) for odd in (0, True, "4", 2.0))


def test_a_checkpoint_of_another_base_is_neither_resumed_nor_exported(tmp_path, store):
    found = run(tmp_path, store, phase("alternate", 1))
    state = found.checkpoints()[-1] / "state.json"
    values = json.loads(state.read_text())
    state.write_text(json.dumps({**values, "adapters": {"base": "0" * 64, "head": "0" * 64}}))
    with pytest.raises(NotExported, match="belong to the base 000000000000"):
        export(found.path, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()
    found.describe(status="failed")
    launched = launch({"config": str(tmp_path / "plan.yaml"), "data": str(store), "out": str(tmp_path / "out")})
    folder = RunFolder.reopen(found.path, launched.plan)
    grid = InProcessGrid(
        carry, 1, {"config": str(tmp_path / "plan.yaml"), "data": str(store), "out": str(tmp_path / "out")}
    )
    with pytest.raises(RunFailed, match="put the same weights there"):
        execute(launched, FlowerCourier(grid), folder, resume=True)


def test_what_has_no_text_tower_is_not_exported(tmp_path, tiny_store):
    found = federate(tmp_path, tiny_store, phases__0__rounds=1)
    with pytest.raises(NotExported, match="no text tower"):
        export(found.path, tmp_path / "x")
    with pytest.raises(NotExported, match="neither a run folder"):
        export(tmp_path, tmp_path / "x")
