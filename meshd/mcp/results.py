"""The results of the tools: what a program is given, made from the daemon's answer, and the text for a model from that.

What other agents wrote is always marked as data (marking.py).
"""

from __future__ import annotations

from typing import Any

from meshd.core.text import one_line
from meshd.mcp.marking import NOTICE, blocks, element, escape, marked, tag

Data = dict[str, Any]

SHOWN_AGENTS = 200


def sent(data: Data) -> Data:
    return {"ok": True, "id": data["id"], "held": data.get("held", True)}


def sent_text(result: Data) -> str:
    return f"sent {result['id']}" + (
        "" if result["held"] else "; nobody goes by that name now: it waits until somebody does"
    )


# The notice comes first: there are clients that show a model this, and not the text.
def inbox(data: Data) -> Data:
    return {"notice": NOTICE, "messages": data["messages"], "lost": data["lost"], "more": data["more"]}


def inbox_text(result: Data) -> str:
    lost = f"LOST {result['lost']} messages, gone from the store before they were read\n" if result["lost"] else ""
    more = f"\n{result['more']} more: call mesh_inbox again" if result["more"] else ""
    return lost + (blocks(result["messages"]) if result["messages"] else "no unread messages") + more


def heard(data: Data) -> Data:
    return {"notice": NOTICE, "message": data["message"]}


def replied(data: Data) -> Data:
    return {"notice": NOTICE, "reply": data["reply"], "from": data["from"], "id": data["id"]}


def reply_text(result: Data) -> str:
    if result["reply"] is None:
        return "no reply in time; one that comes later comes as mail"
    return blocks([{"from": result["from"], "text": result["reply"], "re": result["id"]}])


def who(data: Data) -> Data:
    agents = sorted(data["agents"], key=_importance)
    return {"notice": NOTICE, "agents": agents[:SHOWN_AGENTS], "more": max(0, len(agents) - SHOWN_AGENTS)}


def _importance(agent: Data) -> tuple[bool, bool, bool, str]:
    """Live sessions first; but anybody who reaches the store can register thousands, so the ones here before them."""
    here, session = bool(agent.get("here")), bool(agent.get("session"))
    return not (here and session), not session, not here, agent["agent"]


def who_text(result: Data) -> str:
    keys = ("role", "host", "session", "unread", "wake")
    rows = [
        tag("agent", {"name": a["agent"], **{k: _shown(a[k]) for k in keys if a.get(k) not in (None, "")}}, empty=True)
        for a in result["agents"]
        if a.get("live")
    ]
    more = [f"{result['more']} more are not shown"] if result["more"] else []
    return marked([*rows, *more]) if rows else "no agents registered"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else str(value)


# What was sent under another name is not known to be this session's own words.
def pending(data: Data) -> Data:
    entries = {"entries": data["entries"]}
    return entries if data["own"] else {"notice": NOTICE, "from": data["name"], **entries}


def pending_text(result: Data) -> str:
    if "notice" in result and result["entries"]:
        return marked(_owed(entry, result["from"]) for entry in result["entries"])
    rows = [
        f"{entry['id']} to {entry['to']}: {entry['state']}, {entry['repings']} reminders, "
        f"your words: {escape(one_line(entry['text'][:80]))}"
        for entry in result["entries"]
    ]
    return "\n".join(rows) or "no pending entries"


def _owed(entry: Data, sender: str) -> str:
    facts = {key: entry[key] for key in ("id", "to", "state")} | {"reminders": entry["repings"]}
    return element({"from": sender, **facts}, entry["text"][:80])
