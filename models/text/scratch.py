"""Small models with random weights and a tokenizer of their own: for trying things, and for sites without any weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from models.language import vocabulary
from models.text.config import Scratch

PAD, START, END, MASK = "<pad>", "<s>", "</s>", "<mask>"
_WORD = re.compile(r"[A-Za-z]+")


def radiology_words() -> list[str]:
    """Every word of the shipped word lists, in order: the corpus of a scratch model's tokenizer. No report is read, so
    that every site of a run has the same tokenizer."""
    texts = (text for name in vocabulary.names() for text in _strings(vocabulary.load(name)))
    return [word.lower() for text in texts for word in _WORD.findall(text)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _strings(key)
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, closed: bool = False) -> Any:
    """Byte-level BPE learnt from ``texts``: any script and any byte has tokens. ``closed``: ends with an end token, as
    BERTs do; all begin with a start token."""
    return _wrapped(_train(texts, vocabulary_size, closed))


def _train(texts: Iterable[str], vocabulary_size: int, closed: bool) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, START, END, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}" if closed else f"{START} $A",
        special_tokens=[(token, bpe.token_to_id(token)) for token in (START, END)],
    )
    return bpe.to_str()


def _wrapped(learnt: str) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    ends = {"bos_token": START, "eos_token": END, "cls_token": START, "sep_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(learnt), pad_token=PAD, mask_token=MASK, **ends)


def make_tokenizer(scratch: Scratch) -> Any:
    """The tokenizer of a scratch model: the same on every machine."""
    return _wrapped(_radiology_tokenizer(scratch.vocabulary, scratch.family in ("bert", "modernbert")))


@functools.cache
def _radiology_tokenizer(size: int, closed: bool) -> str:
    # As they stand in a sentence, too: in byte-level BPE the blank belongs to the word behind it.
    forms = (form for word in radiology_words() for form in (f" {word}", f" {word.capitalize()}", word.capitalize()))
    return _train(forms, size, closed)


def make_config(scratch: Scratch, tokenizer: Any) -> Any:
    """The Hugging Face configuration of a scratch model."""
    import transformers

    width_a_head = scratch.width // scratch.heads
    about: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": scratch.width,
        "intermediate_size": scratch.hidden or 4 * scratch.width,
        "num_hidden_layers": scratch.depth,
        "num_attention_heads": scratch.heads,
        "max_position_embeddings": scratch.positions,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if scratch.family == "bert":
        return transformers.BertConfig(**about)
    if scratch.family == "modernbert":
        window = {"local_attention": scratch.window} if scratch.window else {}
        ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        return transformers.ModernBertConfig(**about, **ends, **window)
    about |= {"num_key_value_heads": scratch.kv_heads or scratch.heads, "tie_word_embeddings": True}
    classes = {
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "mistral": transformers.MistralConfig,
        "gemma": transformers.GemmaConfig,
        "gemma2": transformers.Gemma2Config,
        "gemma3": transformers.Gemma3TextConfig,
    }
    if scratch.family in ("qwen3", "gemma", "gemma2", "gemma3"):
        about["head_dim"] = width_a_head
    if scratch.family == "gemma2":
        about["query_pre_attn_scalar"] = width_a_head
    if scratch.window and scratch.family in ("mistral", "gemma2", "gemma3"):
        about["sliding_window"] = scratch.window
    return classes[scratch.family](**about)
