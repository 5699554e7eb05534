"""/metrics as Prometheus reads it, and /health."""

from __future__ import annotations

import re

import httpx2
import pytest

from meshd.observing import metrics
from tests.helper import Home, wait_until
from tests.mcp_http.serving import HANDSHAKE, Http, Raw, Stream, connected

SAMPLE = re.compile(r'([a-z_]+)((?:\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})?) (-?[0-9.e+]+)')


def samples(text: str) -> dict[str, float]:
    """All samples. Fails for what is not the text format: each family has a HELP, a TYPE, and stands together."""
    found: dict[str, float] = {}
    families: set[str] = set()
    lines = text.removesuffix("\n").split("\n")
    assert text.endswith("\n")
    family = ""
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in families
            families.add(family)
        elif line.startswith("# TYPE "):
            assert before.split()[1:3] == ["HELP", family]
            kind = line.split()[3]
            assert kind == ("counter" if family.endswith("_total") else "gauge")
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == family
            assert match[1] + match[2] not in found
            found[match[1] + match[2]] = float(match[3])
    return found


def scraped(http: Http) -> dict[str, float]:
    answer = httpx2.get(f"{http.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


async def test_the_metrics_follow_what_happens(http: Http, mesh: Home, name: str) -> None:
    before = scraped(http)
    assert before["mesh_up"] == before["mesh_store_up"] == 1
    assert before["mesh_start_time_seconds"] == pytest.approx(mesh.json("status")["started"])
    async with connected(http, HANDSHAKE, name):
        mesh.meshctl("send", name, "x", "--expect-reply", "--from", name)
        wait_until(lambda: scraped(http)[f'mesh_agent_unread_messages{{agent="{name}"}}'] == 1, "one is unread")
        now = scraped(http)
        assert now[f'mesh_agent_sessions{{agent="{name}"}}'] == 1
        assert now[f'mesh_agent_pending_replies{{agent="{name}"}}'] == 1
        assert now[f'mesh_agent_lost_messages_total{{agent="{name}"}}'] == 0
        assert now[f'mesh_agent_receiving{{agent="{name}"}}'] == 1
        assert now[f'mesh_agent_last_received_seconds{{agent="{name}"}}'] > before["mesh_start_time_seconds"]
        streamable = 'mesh_http_sessions{transport="streamable"}'
        assert now[streamable] == before[streamable] + 1
        assert now["mesh_agents"] >= 1
    wait_until(lambda: scraped(http)[streamable] == before[streamable], "the session has ended")
    served = 'mesh_http_requests_total{path="/metrics",status="200"}'
    assert scraped(http)[served] > before.get(served, 0)


def test_sessions_of_both_transports_are_counted(http: Http, name: str) -> None:
    key = 'mesh_http_sessions{{transport="{}"}}'
    before = scraped(http)
    stream = Stream(http, name)
    with Raw(http) as raw:
        now = scraped(http)
        for transport in ("sse", "streamable"):
            assert now[key.format(transport)] == before[key.format(transport)] + 1
        raw.delete()
    stream.close()
    wait_until(lambda: scraped(http)[key.format("sse")] == before[key.format("sse")], "it has ended")


def test_a_path_that_is_ours_to_count_is_one_of_few(http: Http) -> None:
    """No stranger makes the number of time series grow."""
    for k in range(20):
        httpx2.get(f"{http.url}/nothing/{k}")
    paths = {key for key in scraped(http) if key.startswith("mesh_http_requests_total") and "404" in key}
    assert 'mesh_http_requests_total{path="other",status="404"}' in paths
    assert not any("nothing" in key for key in paths)


def test_values_of_labels_are_escaped() -> None:
    text = metrics.render_http({}, {('a"b\\c\nd', 200): 1})
    assert 'path="a\\"b\\\\c\\nd"' in text
    assert samples(text)


def test_a_daemon_that_is_away_is_down_and_nothing_else() -> None:
    assert samples(metrics.render(None)) == {"mesh_up": 0}


def test_an_external_store_has_no_restarts(lone: Home, mesh: Home) -> None:
    lone.start()
    with lone.rpc() as rpc:
        embedded = samples(metrics.render(rpc.call("status")))
    with mesh.rpc() as rpc:
        external = samples(metrics.render(rpc.call("status")))
    assert embedded["mesh_store_restarts_total"] == 0
    assert "mesh_store_restarts_total" not in external


def test_health_says_what_a_monitor_needs(http: Http, mesh: Home) -> None:
    answer = httpx2.get(f"{http.url}/health")
    status = mesh.json("status")
    assert answer.status_code == 200
    assert answer.json() == {
        "ok": True,
        "version": status["version"],
        "daemon": {"version": status["version"], "pid": status["pid"]},
        "store": "up",
    }
    assert answer.headers["cache-control"] == "no-store"
