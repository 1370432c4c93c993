"""The ClientApp: a thin adapter. A message goes in, the site trainer's answer comes out.

No torch, no data, no policy here: Flower ships this file from the server, so nothing in it can protect a site. In a
hospital the node config names the socket of the site's own trainer (``trainer-socket``); in a simulation the trainer of
the virtual site lives in this process and stays warm between rounds.
"""

from __future__ import annotations

import logging

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from strategies.messages import Answer, Ask, Code, ProtocolError, Refusal
from strategies.records import from_record, to_record

log = logging.getLogger("fedcxr.site")

app = ClientApp()


def carry(message: Message, context: Context) -> Message:
    """Answer one message. Nothing is raised: the text of an exception would travel to the server."""
    try:
        ask = from_record(Ask, message.content)
    except ProtocolError as error:
        return _reply(Answer(site="", refusal=Refusal(Code.BAD_REQUEST, str(error))), message)
    try:
        socket = context.node_config.get("trainer-socket")
        if socket:
            from client.service import ask_service

            return _reply(ask_service(str(socket), ask), message)
        from client.virtual import handle

        return _reply(handle(ask, dict(context.run_config)), message)
    except Exception as error:
        log.exception("the adapter failed")
        text = f"{type(error).__name__} in the adapter; the site's own log has the details"
        return _reply(Answer(site=ask.site, refusal=Refusal(Code.INTERNAL, text)), message)


def _reply(answer: Answer, message: Message) -> Message:
    return Message(to_record(answer), reply_to=message)


app.train()(carry)
app.evaluate()(carry)
app.query()(carry)
