from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from models.config import ConfigError
from models.text.config import Scratch
from models.text.scratch import make_tokenizer, train_tokenizer
from models.text.tokens import BETWEEN, EmptyText, Tokens
from tests.conftest import ROOT
from tests.models.text.towers import REPORTS


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(make_tokenizer(Scratch(vocabulary=1200)), 64)


@pytest.fixture(scope="module")
def closed() -> Tokens:
    return Tokens(make_tokenizer(Scratch(family="bert", vocabulary=1200)), 64)


def spelt(tokens: Tokens, row) -> str:
    return tokens.tokenizer.decode(row.ids[row.start : row.stop])


@pytest.mark.parametrize("instruction", ["", "Summarize the findings", "Was hat sich verändert? ", "…"])
@pytest.mark.parametrize("name", ["tokens", "closed"])
def test_the_span_is_the_text_and_nothing_else(request, name, instruction):
    tokens = request.getfixturevalue(name)
    for text, row in zip(REPORTS, tokens.rows(REPORTS, instruction)):
        assert spelt(tokens, row).strip() == text
        assert row.ids[0] == tokens.tokenizer.bos_token_id and row.start >= 1
        if instruction:
            before = tokens.tokenizer.decode(row.ids[1 : row.start])
            assert before.rstrip() == (instruction + BETWEEN).rstrip()
        assert (row.stop == len(row) - 1) == (name == "closed")


def test_a_token_across_the_border_belongs_to_the_text():
    """Counting the text's own tokens, as the released code does, would be one off here."""
    tokenizer = train_tokenizer(["; edema; edema"] * 50, 400)
    learnt = Tokens(tokenizer, 64)
    row = learnt.rows(["edema"], ["Say"])[0]
    alone = tokenizer("edema", add_special_tokens=False)["input_ids"]
    assert len(alone) > row.stop - row.start == 1  # here the blank and the word are one token, alone they are several
    assert spelt(learnt, row) == " edema"


def test_too_long_texts_lose_their_end_and_say_nothing_of_it(tokens):
    row = tokens.rows(["effusion " * 3000])[0]
    assert len(row) == 64 and row.stop == 64
    assert spelt(tokens, row).startswith("effusion effusion")


def test_the_end_token_survives_truncation(closed):
    row = closed.rows(["effusion " * 3000])[0]
    assert len(row) == 64 and row.stop == 63 and row.ids[-1] == closed.tokenizer.eos_token_id


ODD = [
    "\x00\x01\x02",
    "日本語の所見",
    "مرحبا",
    "🫁🫀",
    "a\ud800b",
    "\udfff",
    "é" * 300,
    "XXXX",
    "\x7f\x80\xff",
    "x" * 20_000,
]


@pytest.mark.parametrize("text", ODD)
def test_any_text_has_tokens(tokens, text):
    row = tokens.rows([text], "Sum up")[0]
    assert row.stop > row.start and row.ids.max() < len(tokens)


@pytest.mark.parametrize("text", ["<mask>", "<pad> <s>", "a </s> b", "<|endoftext|>"])
def test_words_that_look_like_special_tokens_are_words(tokens, text):
    row = tokens.rows([text])[0]
    assert not tokens.special_ids & set(row.ids[1:].tolist())
    assert spelt(tokens, row) == text


def test_empty_texts_are_refused_by_position_and_without_their_words(tokens):
    with pytest.raises(EmptyText) as refused:
        tokens.rows(["secret words", "", "more", ""])
    assert refused.value.positions == (1, 3)
    assert "secret" not in str(refused.value)


def test_an_instruction_that_leaves_no_room_is_refused(tokens):
    with pytest.raises(EmptyText, match="max_tokens 64"):
        tokens.rows(["edema"], "word " * 100)


@pytest.mark.parametrize(
    ("texts", "instructions", "says"),
    [
        ([b"edema"], None, "text 0: bytes"),
        (["a", None], None, "text 1: NoneType"),
        ("edema", None, "a list of str"),
        (["a"], [3], "instruction 0: int"),
    ],
)
def test_what_is_no_text_is_refused(tokens, texts, instructions, says):
    with pytest.raises(TypeError, match=says):
        tokens.rows(texts, instructions)


def test_as_many_instructions_as_texts(tokens):
    with pytest.raises(ValueError, match="1 instructions for 2 texts"):
        tokens.rows(["a", "b"], ["x"])


def test_padding_on_either_side(tokens):
    rows = tokens.rows(REPORTS, "Sum up")
    right, left = tokens.collate(rows), tokens.collate(rows, left=True)
    assert right.padded and not tokens.collate(rows[:1]).padded
    for a, b, row in zip(*(zip(x.ids, x.mask, x.span) for x in (right, left)), rows):
        assert a[0][a[1]].tolist() == b[0][b[1]].tolist() == row.ids.tolist()
        assert a[0][a[2]].tolist() == b[0][b[2]].tolist() == row.ids[row.start : row.stop].tolist()
    assert left.mask[:, -1].all() and right.mask[:, 0].all()
    assert right.to("cpu").padded and len(right) == len(REPORTS)


def test_a_text_is_tokenized_once(tokens):
    fresh = Tokens(tokens.tokenizer, 32)
    calls = []
    real = fresh._tokenize
    fresh._tokenize = lambda pairs: calls.append(pairs) or real(pairs)
    first = fresh.rows(["a b", "c", "a b"])
    again = fresh.rows(["c", "d"], ["", "say"])
    assert calls == [[("", "a b"), ("", "c")], [("say", "d")]]
    assert first[0] is first[2] and again[0] is first[1]


def test_the_memory_is_bounded(tokens, monkeypatch):
    monkeypatch.setattr("models.text.tokens._REMEMBERED", 4)
    fresh = Tokens(tokens.tokenizer, 32)
    for i in range(20):
        row = fresh.rows([f"text {i}", "edema"])[1]
        assert spelt(fresh, row) == "edema"
        assert len(fresh._remembered) <= 6


def test_the_digest_tells_tokenizers_and_lengths_apart_but_not_calls(tokens, closed):
    before = tokens.digest()
    tokens.rows(["never seen " * 90])
    assert tokens.digest() == before
    others = {
        closed.digest(),
        Tokens(tokens.tokenizer, 32).digest(),
        Tokens(make_tokenizer(Scratch(vocabulary=800)), 64).digest(),
    }
    assert before not in others and len(others) == 3


def test_the_scratch_tokenizer_is_the_same_in_every_process(tokens):
    code = (
        "from models.text.config import Scratch; from models.text.scratch import make_tokenizer; "
        "from models.text.tokens import Tokens; print(Tokens(make_tokenizer(Scratch(vocabulary=1200)), 64).digest())"
    )
    environment = {"PYTHONHASHSEED": "1", "PATH": "", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split()[-1] == tokens.digest(), done.stderr


def test_the_scratch_tokenizer_knows_radiology(tokens):
    words = Tokens(make_tokenizer(Scratch()), 64)
    row = words.rows(["There is no pleural effusion or pneumothorax."])[0]
    assert len(row) <= 10


class Bare:
    """A tokenizer of which only what is asked at the start is there."""

    is_fast = True
    pad_token_id = eos_token_id = mask_token_id = unk_token_id = None
    all_special_ids = ()

    def __init__(self, ids):
        self.ids = ids

    def __call__(self, text, add_special_tokens):
        return {"input_ids": self.ids}


def test_a_tokenizer_without_mask_or_pad():
    assert Tokens(Bare([62]), 8).mask_id == 62  # the underscore
    assert Tokens(Bare([62, 63]), 8).mask_id is None
    assert Tokens(Bare([62]), 8).pad_id == 0
    with_end = Bare([62])
    with_end.eos_token_id = 5
    assert Tokens(with_end, 8).pad_id == 5
    unknown = Bare([9])
    unknown.unk_token_id = 9
    assert Tokens(unknown, 8).mask_id is None


def test_a_tokenizer_without_offsets_is_refused():
    slow = Bare([1])
    slow.is_fast = False
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Tokens(slow, 8)


def test_batches_are_torch(tokens):
    batch = tokens.collate(tokens.rows(REPORTS))
    assert (batch.ids.dtype, batch.mask.dtype, batch.span.dtype) == (torch.int64, torch.bool, torch.bool)
