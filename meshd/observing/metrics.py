"""The daemon's state as Prometheus reads it: text, made from what `status` answers.

The text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Sample = tuple[dict[str, object], float]

# Of each agent: the metric, its type, what it says, and the key of `status` that it is made from.
_OF_AGENT = (
    ("mesh_agent_sessions", "gauge", "Live clients of the agent.", "sessions"),
    ("mesh_agent_unread_messages", "gauge", "Messages the agent has not read.", "unread"),
    ("mesh_agent_pending_replies", "gauge", "Replies that are owed to the agent.", "pending"),
    ("mesh_agent_lost_messages_total", "counter", "Messages that were lost before they were received.", "lost"),
    ("mesh_agent_restarts_total", "counter", "Times the agent's receiver failed and began again.", "restarts"),
    ("mesh_agent_last_received_seconds", "gauge", "When mail was last received, Unix time.", "last_received"),
)


def render(status: Mapping[str, Any] | None) -> str:
    """The metrics of a daemon; None stands for one that does not answer, of which only that is known."""
    up = _family("mesh_up", "gauge", "Whether the daemon answers.", [({}, status is not None)])
    return up if status is None else up + _daemon(status) + _store(status["store"]) + _agents(status["agents"])


def _daemon(status: Mapping[str, Any]) -> str:
    agents, started = status["agents"], status["started"]
    return (
        _family("mesh_info", "gauge", "The daemon's version.", [({"version": status["version"]}, 1)])
        + _one("mesh_start_time_seconds", "gauge", "When the daemon started, Unix time.", started)
        + _one("mesh_agents", "gauge", "Agents that this daemon hosts.", len(agents))
        + _one("mesh_agents_refused", "gauge", "Agents that it cannot host.", len(status["refused"]))
        + _one("mesh_sessions", "gauge", "Live clients of all agents.", sum(agent["sessions"] for agent in agents))
    )


def _store(store: Mapping[str, Any]) -> str:
    text = _one("mesh_store_up", "gauge", "Whether the store answers.", store["state"] == "up")
    text += _one("mesh_store_since_seconds", "gauge", "Since when it does, or does not, Unix time.", store["since"])
    what = "Writes that the store refused, by the kind of error."
    refused: list[Sample] = [({"kind": kind}, of["count"]) for kind, of in store["refusals"].items()]
    text += _family("mesh_store_refusals_total", "counter", what, refused)
    if "restarts" in store:
        what = "Times the embedded store was started again."
        text += _one("mesh_store_restarts_total", "counter", what, store["restarts"])
    return text


def _agents(agents: Iterable[Mapping[str, Any]]) -> str:
    receiving: list[Sample] = [({"agent": agent["name"]}, agent["state"] == "receiving") for agent in agents]
    text = _family("mesh_agent_receiving", "gauge", "Whether mail for the agent is received now.", receiving)
    for name, kind, what, key in _OF_AGENT:
        known = [agent for agent in agents if agent[key] is not None]
        text += _family(name, kind, what, [({"agent": agent["name"]}, agent[key]) for agent in known])
    return text


def render_http(sessions: Mapping[str, int], answered: Mapping[tuple[str, int], int]) -> str:
    """The metrics of an HTTP server: its sessions by transport, its responses by path and status."""
    open_now: list[Sample] = [({"transport": kind}, sessions.get(kind, 0)) for kind in ("sse", "streamable")]
    counted: list[Sample] = [({"path": path, "status": status}, n) for (path, status), n in sorted(answered.items())]
    return _family("mesh_http_sessions", "gauge", "MCP sessions over HTTP.", open_now) + _family(
        "mesh_http_requests_total", "counter", "HTTP requests that were answered.", counted
    )


def _one(name: str, kind: str, what: str, value: float) -> str:
    return _family(name, kind, what, [({}, value)])


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, object]) -> str:
    shown = ",".join(f'{key}="{_escaped(str(value))}"' for key, value in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
