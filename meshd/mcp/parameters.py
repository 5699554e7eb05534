"""The parameters of the tools, and the JSON Schema in which a client is told them.

Every session pays for a schema with its context: a parameter that its name explains has no description.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta


class Args(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of the tools' parameters."""


OwnName = Annotated[str | None, Meta(description="default: your name")]
Private = Annotated[bool, Meta(description="no copy in the group")]


class SendArgs(Args):
    to: str
    message: str
    from_agent: OwnName = None
    private: Private = False
    expect_reply: Annotated[bool, Meta(description="remind the peer until it answers")] = False
    within_s: Annotated[float, Meta(description="seconds until the answer is due")] = 120.0
    re: Annotated[str | None, Meta(description="id of the message this answers")] = None


class PingArgs(Args):
    agent: str
    timeout_s: float = 5.0


class WhoArgs(Args):
    pass


class RegisterArgs(Args):
    name: str
    role: Annotated[str | None, Meta(description="what you do, shown to others")] = None


class ListenArgs(Args):
    name: OwnName = None
    timeout_s: float = 5.0


class RequestArgs(Args):
    to: str
    message: str
    from_agent: OwnName = None
    timeout_s: float = 60.0


class PendingArgs(Args):
    name: OwnName = None


class InboxArgs(Args):
    name: OwnName = None
    limit: int = 20
    peek: Annotated[bool, Meta(description="leave them unread")] = False


class ReplyArgs(Args):
    to: Annotated[str, Meta(description="the message's id, or its reply_to")]
    text: str
    from_agent: OwnName = None


class AckArgs(Args):
    peer: str
    text: str
    from_agent: OwnName = None


class BroadcastArgs(Args):
    message: str
    from_agent: OwnName = None


def input_schema(args: type[Args]) -> dict[str, Any]:
    """JSON Schema of the parameters, without references, titles, or what says nothing."""
    _, components = msgspec.json.schema_components([args])
    schema = components[args.__name__]
    for field in schema["properties"].values():
        choices = field.pop("anyOf", None)
        if choices:  # a string or nothing: that it may be left out is said by `required`
            field.update(next(choice for choice in choices if choice.get("type") != "null"))
        if field.get("default", 0) is None:
            del field["default"]
    return {
        "type": "object",
        "properties": schema["properties"],
        "required": schema.get("required", []),
        "additionalProperties": False,
    }
