"""Masked next-token prediction: against the library's own loss, and against a loop over tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from models.config import ConfigError, build
from models.evaluation.questions import ReportQuestions
from models.loop import LoopConfig, train
from models.objectives import Schedule, mntp
from models.objectives.mntp import Config, Mntp, hide
from models.studies.views import TextBatch
from models.text.tokens import TokenBatch
from tests.models.objectives.towers import REPORTS, report_store, text_model
from tests.reference.text import literal_masked_loss

TEXTS = tuple(f"{findings} {impression}" for findings, impression in REPORTS)
START = Schedule(1, 1, 0, 1)


def objective(**values) -> Mntp:
    return build(Config, values).build()


def batch(texts=TEXTS) -> TextBatch:
    return TextBatch(torch.arange(len(texts)), tuple(texts))


def watched(monkeypatch) -> list[tuple[TokenBatch, torch.Tensor, torch.Tensor]]:
    """What ``hide`` was given and what it gave."""
    seen = []
    real = mntp.hide
    monkeypatch.setattr(mntp, "hide", lambda tokens, *rest: seen.append((tokens, *real(tokens, *rest))) or seen[-1][1:])
    return seen


def loss_of(model, wish, texts=TEXTS) -> torch.Tensor:
    return sum(part["mntp_loss"] for part in wish.step(model, batch(texts), START))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "bert", "modernbert"])
def test_it_is_the_library_s_loss_and_the_loop_s(monkeypatch, family):
    """The library gets labels at the hidden tokens, -100 elsewhere, and shifts by itself."""
    torch.manual_seed(1)  # which tokens are hidden: by chance the loss one place on may come out nearly equal
    wish = objective(trains=["text"])
    model = text_model(wish, language_head=True, scratch={"family": family})
    seen = watched(monkeypatch)
    with torch.no_grad():
        found = loss_of(model, wish)
    [(tokens, ids, chosen)] = seen
    labels = tokens.ids.masked_fill(~chosen, -100)
    auto = AutoModelForMaskedLM if family in ("bert", "modernbert") else AutoModelForCausalLM
    whole = auto.from_config(model.text.trunk.config).eval()
    whole.base_model.load_state_dict(model.text.trunk.state_dict())
    own = {id(p) for p in whole.base_model.parameters()}
    rest = [p for p in whole.parameters() if id(p) not in own]
    ours = [p for p in model.text.head.parameters() if id(p) not in {id(q) for q in model.text.trunk.parameters()}]
    with torch.no_grad():
        for theirs, mine in zip(rest, ours, strict=True):
            theirs.copy_(mine)
        answer = whole(input_ids=ids, attention_mask=tokens.mask.long(), labels=labels)
    assert float(found) == pytest.approx(float(answer.loss), abs=1e-5)
    shift = int(auto is AutoModelForCausalLM)
    assert float(found) == pytest.approx(literal_masked_loss(answer.logits, tokens.ids, chosen, shift), abs=1e-5)
    other = literal_masked_loss(answer.logits, tokens.ids, chosen, 1 - shift)
    assert abs(float(found) - other) > 1e-4  # read in another place it is another number


def test_parts_add_up_to_the_mean_over_all_hidden_tokens(monkeypatch):
    wish = objective(trains=["text"])
    model = text_model(wish, language_head=True, max_tokens=32, batch_tokens=32)
    seen = watched(monkeypatch)
    with torch.no_grad():
        parts = list(wish.step(model, batch(), START))
        assert len(parts) == len(seen) > 3
        losses, hidden = 0.0, 0
        for tokens, ids, chosen in seen:
            scores = model.text.head(model.text.trunk(input_ids=ids, attention_mask=tokens.mask.long())[0])
            if chosen.any():
                losses += literal_masked_loss(scores, tokens.ids, chosen, 1) * int(chosen.sum())
            hidden += int(chosen.sum())
    assert float(sum(p["mntp_loss"] for p in parts)) == pytest.approx(losses / hidden, abs=1e-5)


def big(shape=(64, 200)) -> TokenBatch:
    ids = torch.randint(10, 1000, shape, generator=torch.Generator().manual_seed(0))
    span = torch.ones(shape, dtype=torch.bool)
    span[:, 150:], span[:, 0] = False, False
    return TokenBatch(ids, torch.ones_like(span), span, padded=False)


@pytest.mark.parametrize(("share", "masked", "other"), [(0.2, 0.8, 0.1), (0.8, 1.0, 0.0), (0.5, 0.0, 0.0)])
def test_shares_are_as_published(share, masked, other):
    torch.manual_seed(0)
    given = big()
    ids, chosen = hide(given, build(Config, {"mask": share, "masked": masked, "random": other}), 3, 1000, 1)
    assert not chosen[~given.span].any() and torch.equal(ids[~chosen], given.ids[~chosen])
    hidden = int(chosen.sum())
    assert hidden / int(given.span.sum()) == pytest.approx(share, abs=0.02)
    assert float((ids[chosen] == 3).sum()) / hidden == pytest.approx(masked, abs=0.03)
    changed = (ids[chosen] != 3) & (ids[chosen] != given.ids[chosen])
    assert float(changed.sum()) / hidden == pytest.approx(other, abs=0.02)


def test_nothing_is_hidden_where_nothing_stands_before():
    given = big()
    given.span[:, 0] = True
    cfg = build(Config, {"mask": 0.99})
    assert not hide(given, cfg, 3, 1000, 1)[1][:, 0].any()
    assert hide(given, cfg, 3, 1000, 0)[1][:, 0].any()


def test_at_least_one_token_is_hidden():
    given = big((1, 5))
    cfg = build(Config, {"mask": 1e-9})
    for seed in range(5):
        torch.manual_seed(seed)
        chosen = hide(given, cfg, 3, 1000, 1)[1]
        assert int(chosen.sum()) == 1 and given.span[chosen].all()


def test_a_report_of_one_token_teaches_nothing_and_breaks_nothing():
    wish = objective()
    model = text_model(wish, language_head=True, lora={"rank": 2}, scratch={"family": "llama"})
    parts = [sum(p["mntp_loss"] for p in wish.step(model, batch(["x", "x"]), START))]
    parts[0].backward()
    assert torch.isfinite(parts[0])


def test_gradients_reach_every_adapter_and_nothing_else():
    wish = objective()
    model = text_model(wish, language_head=True, lora={"rank": 4})
    model.requires_grad_(False)
    adapters = model.components()["text_lora"].requires_grad_(True)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in adapters.parameters():
            p.add_(torch.randn_like(p), alpha=0.05)
    loss_of(model, wish).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapters.parameters())
    assert all(p.grad is None for p in model.text.head.parameters())


def pairs_of_words(count: int = 200) -> list[str]:
    """The first word of each pair is told by the second alone: only who looks ahead can know it."""
    generator = torch.Generator().manual_seed(0)
    words = ["effusion", "edema", "nodule", "fracture"]
    tails = ["left", "right", "small", "large"]
    out = []
    for _ in range(count):
        picks = torch.randint(4, (6,), generator=generator).tolist()
        out.append(" ".join(f"{words[k]} {tails[k]}" for k in picks))
    return out


def trained(texts, tmp_path, causal: bool, steps: int) -> float:
    wish = objective(trains=["text"], mask=0.3, masked=1.0, random=0.0)
    model = text_model(wish, language_head=True, scratch={"width": 64})
    model.text.trunk.config.is_causal = causal
    store = report_store(tmp_path / f"store-{causal}", [(text, None) for text in texts])
    local = LoopConfig(steps=steps, batch_size=16, lr=3e-3, warmup=0.1, weight_decay=0.0)
    view = wish.open(store, None)
    args = {"round": 1, "rounds": 1, "seed": 0, "names": ("t",), "device": torch.device("cpu")}
    done = train(model, wish, view, local, **args)
    assert set(done.losses) == {"mntp_loss"}
    torch.manual_seed(1)
    with torch.no_grad():
        return float(torch.stack([loss_of(model.eval(), wish, texts[:60]) for _ in range(4)]).mean())


def test_it_learns_from_both_sides(tmp_path):
    """Hidden first words are a guess among four for a causal trunk; seeing what follows, they are known."""
    texts = pairs_of_words()
    both, causal = trained(texts, tmp_path, False, 200), trained(texts, tmp_path, True, 200)
    assert both < 0.3 < 0.5 < causal


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mask": 0.0}, "mask 0.0"),
        ({"mask": 1.0}, "mask 1.0"),
        ({"masked": 0.8, "random": 0.3}, "masked 0.8 and random 0.3"),
        ({"trains": ["text_pool"]}, "pooling takes no part"),
        ({"trains": []}, "trains"),
        ({"sections": []}, "sections: empty"),
        ({"probability": 0.2}, "unknown key"),
    ],
)
def test_bad_settings_are_named(values, says):
    with pytest.raises(ConfigError, match=says):
        build(Config, values)


def test_a_model_that_cannot_predict_tokens_is_refused():
    with pytest.raises(ConfigError, match=r"model\.text\.language_head false"):
        text_model(objective(), lora={"rank": 2})
    with pytest.raises(ConfigError, match="trains text_lora, which this model lacks; it has text"):
        text_model(objective(), language_head=True)
    from models.model import ModelConfig, initial_model

    films = build(
        ModelConfig, {"vision": {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2}}
    )
    with pytest.raises(ConfigError, match=r"no model\.text"):
        initial_model(films, [objective()], 0)


def test_a_tokenizer_without_any_mask_is_refused():
    model = text_model(objective(), language_head=True, lora={"rank": 2})
    model.text.tokens.mask_id = None
    with pytest.raises(ConfigError, match="no mask token"):
        objective().check_model(model)


def test_it_is_judged_by_questions(tmp_path):
    wish = objective()
    view = wish.open_held_out(report_store(tmp_path / "s", REPORTS), None)
    assert isinstance(view, ReportQuestions) and len(view) > len(REPORTS)
