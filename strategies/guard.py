"""The guard: looks at each reply before any averaging and refuses the bad one, and only that one.

Stock averaging takes a NaN, a claim of 1e12 examples, a negative count and a shape that broadcasts, without a word.

What it does not do: it cannot tell a subtly poisoned update of ordinary size from an honest one. Robust rules
(median, trimmed mean, Krum) are for that, and go under ``strategies/rules``.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.config import ConfigError, config
from strategies.adapters import disagreement
from strategies.messages import Answer, Code, ProtocolError, Refusal
from strategies.wire import from_wire, travels


@config
class GuardConfig:
    """Limits that hold for every site alike.

    max_update_norm: largest L2 norm of (reply - sent) over all tensors; 0 for no cap.
    max_examples: largest believable count, whatever the site said of itself when it joined.
    examples_slack: factor by which a count may exceed the site's registered training examples.
    """

    max_update_norm: float = 0.0
    max_examples: int = 10_000_000
    examples_slack: float = 1.01

    def check(self) -> None:
        if self.max_update_norm < 0:
            raise ConfigError(f"max_update_norm {self.max_update_norm}: a norm cap is positive, or 0 for none")
        if self.max_examples < 1:
            raise ConfigError(f"max_examples {self.max_examples}: at least 1")
        if self.examples_slack < 1:
            raise ConfigError(f"examples_slack {self.examples_slack}: at least 1, or honest counts fail")


def update_norm(reply: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> float:
    """L2 norm of the whole update, in float64."""
    total = sum(float((reply[n].double() - sent[n].double()).square().sum()) for n in sorted(sent))
    return math.sqrt(total)


def inspect(
    answer: Answer,
    sent: Mapping[str, Tensor],
    limits: GuardConfig,
    registered: int | None = None,
    adapter: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Tensor], float] | Refusal:
    """The reply's tensors (shapes and dtypes of ``sent``) with the norm of its update, or why it is refused.

    registered: training examples the site said it has when it joined, where known. adapter: the facts of the ask where
    adapters travel (``strategies.adapters.FACTS``).
    """
    if adapter and (odd := disagreement(answer.adapter, adapter)):
        return Refusal(Code.ADAPTER, f"the answer is of another adapter: {odd}")
    count = answer.examples
    top = limits.max_examples
    if registered is not None:
        top = min(top, math.ceil(registered * limits.examples_slack))
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= top:
        text = f"{reprlib.repr(count)} examples claimed; allowed is a whole number from 1 to {top}"
        return Refusal(Code.EXAMPLES, text)
    missing, extra = sorted(sent.keys() - answer.tensors.keys()), sorted(answer.tensors.keys() - sent.keys())
    if missing or extra:
        first = reprlib.repr((missing or extra)[0])
        text = f"{len(missing)} tensors missing and {len(extra)} unasked for, first {first}"
        return Refusal(Code.NAMES, text)
    for name, reference in sent.items():
        array = answer.tensors[name]
        if array.shape != (tuple(reference.shape) or (1,)):
            return Refusal(Code.SHAPE, f"{name}: shape {array.shape}, sent {tuple(reference.shape)}")
        if not travels(array, name in answer.bf16):
            return Refusal(Code.DTYPE, f"{name}: dtype {array.dtype} does not travel; see the wire contract")
    try:
        tensors = from_wire(answer.tensors, answer.bf16, sent)
    except ProtocolError as error:
        return Refusal(Code.SHAPE, str(error))
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            return Refusal(Code.NON_FINITE, f"{name}: holds NaN or infinity; the site's loss probably diverged")
    norm = update_norm(tensors, sent)
    if limits.max_update_norm and norm > limits.max_update_norm:
        return Refusal(Code.NORM, f"update norm {norm:.4g} is over the cap {limits.max_update_norm:.4g}")
    return tensors, norm
