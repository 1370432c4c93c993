"""Text encoding and its losses, literally as published: one text, one token, one term at a time. Slow on purpose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SEPARATOR = "!@#$%^&*()"


class LiteralWrapper:
    """The released wrapper's way to encode: all texts in one padded batch as they come, padding on the left, the texts'
    own tokens counted by tokenizing each again, pooling text by text over every position.

    The instruction and the text are parted by a separator, which is taken out before tokenizing.
    """

    def __init__(self, trunk: nn.Module, pool: nn.Module | None, tokenizer, max_tokens: int) -> None:
        self.trunk, self.pool, self.tokenizer, self.max_tokens = trunk, pool, tokenizer, max_tokens

    @torch.no_grad()
    def encode(self, texts: Sequence[str], instruction: str) -> Tensor:
        """[N,D] float32."""
        self.tokenizer.padding_side = "left"
        marked = [f"{instruction}; {SEPARATOR}{text}" for text in texts]
        whole = ["".join(text.split(SEPARATOR)) for text in marked]
        coded = self.tokenizer(whole, return_tensors="pt", padding=True, truncation=True, max_length=self.max_tokens)
        spans = []
        for text in marked:
            # A blank in front, as the text has one in the whole: so the counts agree with ours.
            alone = " " + text.split(SEPARATOR)[1]
            ids = self.tokenizer(
                [alone], return_tensors="pt", truncation=True, max_length=self.max_tokens, add_special_tokens=False
            )
            spans.append(ids["input_ids"].shape[1])
        coded = coded.to(next(self.trunk.parameters()).device)
        states = self.trunk(input_ids=coded["input_ids"], attention_mask=coded["attention_mask"]).last_hidden_state
        rows = []
        for state, count in zip(states, spans):
            if self.pool is None:
                rows.append(state[-count:].mean(0))
            else:
                latents = self.pool.latents[None]
                seen, _ = self.pool.multihead_attn(state[None], latents, latents, need_weights=False)
                rows.append(self.pool.mlp(seen)[0][-count:].mean(0))
        return torch.stack(rows)


def literal_contrast(
    queries: Sequence[Sequence[float]],
    positives: Sequence[Sequence[float]],
    negatives: Sequence[Sequence[float]],
    query_texts: Sequence[str],
    positive_texts: Sequence[str],
    negative_texts: Sequence[str],
    scale: float,
) -> float:
    """Hard-negative NLL, query by query: minus the log share of exp(scale * cosine) that its own positive has among all
    positives and negatives of the batch, texts that are right answers themselves left out."""

    def cosine(a: Sequence[float], b: Sequence[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b))
        return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))

    same = lambda a, b: " ".join(a.split()).lower() == " ".join(b.split()).lower()
    total = 0.0
    for i, query in enumerate(queries):
        right = math.exp(scale * cosine(query, positives[i]) - scale)
        everything = right
        for j, positive in enumerate(positives):
            twin = same(positive_texts[j], positive_texts[i]) or same(positive_texts[j], query_texts[i])
            if j != i and not twin and not same(query_texts[j], query_texts[i]):
                everything += math.exp(scale * cosine(query, positive) - scale)
        for k, negative in enumerate(negatives):
            if not same(negative_texts[k], positive_texts[i]) and not same(negative_texts[k], query_texts[i]):
                everything += math.exp(scale * cosine(query, negative) - scale)
        total -= math.log(right / everything)
    return total / len(queries)


def literal_masked_loss(scores: Tensor, truth: Tensor, chosen: Tensor, shift: int) -> float:
    """Mean over the chosen tokens of minus the log probability of the true one, read at the token ``shift`` before."""
    losses = []
    for b in range(len(truth)):
        for i in range(truth.shape[1]):
            if chosen[b, i]:
                row = [float(x) for x in scores[b, i - shift].double()]
                top = max(row)
                losses.append(top + math.log(sum(math.exp(x - top) for x in row)) - row[int(truth[b, i])])
    return sum(losses) / len(losses)
