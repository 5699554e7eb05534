"""pending: the replies that are owed to an agent."""

from __future__ import annotations

from typing import Annotated, Any

from meshd.commands.base import HOSTED, Call, Command, Nothing, Params, Printed, Result, about
from meshd.commands.tables import duration, table
from meshd.core.ledger import MAX_PINGS, sent_repings
from meshd.core.text import cut, one_line
from meshd.system import clock


class PendingParams(Params):
    name: Annotated[str, about("whose entries", HOSTED)]


async def pending(call: Call, p: PendingParams, use: Nothing) -> Result:
    agent = call.hosted(p.name)
    entries = [] if agent is None else list(agent.core.ledger.entries.values())
    shown = [
        {
            "id": entry.id,
            "to": entry.to,
            "text": entry.text,
            "state": entry.state,
            "sent": entry.sent,
            "deadline": entry.deadline,
            "repings": sent_repings(entry),
            "next": entry.due or None,
        }
        for entry in entries
    ]
    return Result({"name": p.name, "entries": shown})


def show_pending(data: dict[str, Any]) -> Printed:
    if not data["entries"]:
        return Printed("(no pending entries)\n")
    now = clock.wall()
    rows = [["ID", "TO", "STATE", "DUE", "RE-PINGS", "TEXT"]]
    for entry in data["entries"]:
        left = entry["deadline"] - now
        due = f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"
        text = cut(one_line(entry["text"]), 60)
        rows.append([entry["id"], entry["to"], entry["state"], due, f"{entry['repings']}/{MAX_PINGS}", text])
    return Printed(table(rows))


COMMANDS = [
    Command(
        "pending", PendingParams, pending, show_pending, "replies that are owed to an agent", "meshctl pending alice"
    ),
]
