"""Components that earlier phases settled: a site takes them as they are sent, builds on them and never sends them back."""

from __future__ import annotations

from collections.abc import Collection

from models.model import CxrModel
from strategies.messages import Ask, ProtocolError
from strategies.wire import from_wire


def settle(ask: Ask, model: CxrModel, trains: Collection[str]) -> Ask:
    """Load ``ask.settled`` into ``model``, in place; the ask without these tensors.

    Raises:
        ProtocolError: a component that the model lacks or that this phase trains, or a tensor that it does not have.
    """
    odd = sorted(set(ask.settled) & set(trains) or set(ask.settled) - set(model.components()))
    if odd:
        raise ProtocolError(f"component {odd[0]!r} is called settled, but this phase trains it or the model lacks it")
    given = {name for name in ask.tensors if name.split("/")[0] in ask.settled}
    own = model.state(ask.settled)
    if given - own.keys():
        raise ProtocolError(f"{min(given - own.keys())}: the model has no such tensor")
    sent = ask.only(given)
    model.load(ask.settled, own | from_wire(sent.tensors, sent.bf16, {name: own[name] for name in given}))
    return ask.only(ask.tensors.keys() - given)
