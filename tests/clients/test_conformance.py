"""The MCP project's own conformance tests against our HTTP server: each scenario is run, or has a reason."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.claude import missing
from tests.helper import Home
from tests.mcp_http.serving import Http, serving

PROGRAMS = Path(__file__).parent / "node_modules" / ".bin"

APPLY = [
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-error",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
]
_EXAMPLE = "calls a tool of the suite's own example server"
_RESOURCES = "we have no resources, and do not declare the capability"
_PROMPTS = "we have no prompts, and do not declare the capability"
DO_NOT_APPLY = {
    "logging-set-level": "we send no log messages, and do not declare the capability",
    "completion-complete": "there are no prompts or resource templates whose arguments could be completed",
    "tools-call-simple-text": f"{_EXAMPLE}; it passes, but only because an error is text, too",
    "tools-call-image": f"{_EXAMPLE}; ours return text and structured content",
    "tools-call-audio": f"{_EXAMPLE}; ours return text and structured content",
    "tools-call-embedded-resource": f"{_EXAMPLE}; ours return text and structured content",
    "tools-call-mixed-content": f"{_EXAMPLE}; ours return text and structured content",
    "tools-call-with-logging": f"{_EXAMPLE}; we send no log messages",
    "tools-call-with-progress": f"{_EXAMPLE}; ours tell progress while they wait, as tests/mcp_http shows",
    "tools-call-sampling": f"{_EXAMPLE}; we never ask the client's model",
    "tools-call-elicitation": f"{_EXAMPLE}; we never ask the client's user",
    "elicitation-sep1034-defaults": f"{_EXAMPLE}; we never ask the client's user",
    "elicitation-sep1330-enums": f"{_EXAMPLE}; we never ask the client's user",
    "json-schema-2020-12": "looks for a tool of the suite's own example server",
    "server-sse-polling": f"{_EXAMPLE}; an answer that was not taken is not kept: mail in it is unread again",
    "resources-list": _RESOURCES,
    "resources-read-text": _RESOURCES,
    "resources-read-binary": _RESOURCES,
    "resources-templates-read": _RESOURCES,
    "resources-subscribe": _RESOURCES,
    "resources-unsubscribe": _RESOURCES,
    "prompts-list": _PROMPTS,
    "prompts-get-simple": _PROMPTS,
    "prompts-get-with-args": _PROMPTS,
    "prompts-get-embedded-resource": _PROMPTS,
    "prompts-get-with-image": _PROMPTS,
}


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the suite. Skips the test if it is not installed."""
    if not (PROGRAMS / "conformance").exists():
        pytest.skip(missing() or "the conformance suite is not installed: use tests/clients/run")
    env = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    return subprocess.run(
        [PROGRAMS / "conformance", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def http(mesh: Home) -> Iterator[Http]:
    with serving(mesh) as made:
        yield made


def test_every_scenario_is_accounted_for() -> None:
    """A newer suite with another scenario is looked at by a person."""
    listed = conformance("list", "--server")
    assert listed.returncode == 0, listed.stderr
    assert set(re.findall(r"^ +- (\S+)", listed.stdout, re.MULTILINE)) == {*APPLY, *DO_NOT_APPLY}


@pytest.mark.parametrize("scenario", APPLY)
def test_a_scenario_passes(http: Http, tmp_path: Path, scenario: str) -> None:
    done = conformance("server", "--url", f"{http.url}/mcp", "--scenario", scenario, "-o", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Passed: (\d+)/\1, 0 failed, 0 warnings", done.stdout), done.stdout
