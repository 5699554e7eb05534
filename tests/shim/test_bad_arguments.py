"""Arguments that no tool can use: each is a tool error with a hint for the model, and nothing happens."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.helper import Home
from tests.shim.client import Client
from tests.shim.conftest import Open

# Written into the JSON as they are: some of them Python would not write, and some no JSON parser needs to take.
WRONG_TEXTS = ["7", "1.5", "true", "[]", '["a"]', "{}"]
WRONG_NAMES = [
    '""', '"*"', '"a b"', '"a/b"', '"../a"', '"a\\nb"', '"a\\n"', '"a\\u0000"', '"\\u001b[31m"', '"a\\u2028b"', '"é"',
    '"a:b"', '"\\ud800"', '"\\u202e"', f'"{"a" * 65}"', f'"{"a" * 100_000}"', '"<b>"', '"mesh:group"',
]  # fmt: skip
WRONG_MESSAGES = ['""', '"\\ud800"', '"half \\ud83d of it"', f'"{"x" * (64 * 1024 + 1)}"', f'"{"é" * 32 * 1024}x"']
WRONG_SECONDS = [
    "0", "-1", "-0.001", "1e308", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "2592001", '"5"', "true", "false",
    "null", "[5]", "{}", "1" + "0" * 400,
]  # fmt: skip
WRONG_COUNTS = ["0", "-1", "1000000000", "1e9", "10001", "1.5", '"5"', "true", "null", "NaN", "1" + "0" * 30]
WRONG_FLAGS = ["0", "1", '"true"', '"yes"', "null", "[]"]
WRONG_IDS = ['""', '"a b"', '"a\\nb"', f'"{"a" * 65}"', '"<b>"', '"\\ud800"', "7"]

# What is wrong for each parameter, by tool; the first of each parameter is right.
PARAMETERS: dict[str, dict[str, tuple[str, list[str]]]] = {
    "mesh_send": {
        "to": ("PEER", WRONG_NAMES + WRONG_TEXTS),
        "message": ('"hello"', WRONG_MESSAGES + WRONG_TEXTS),
        "from_agent": ("NAME", WRONG_NAMES + WRONG_TEXTS),
        "private": ("true", WRONG_FLAGS),
        "expect_reply": ("true", WRONG_FLAGS),
        "within_s": ("60", WRONG_SECONDS),
        "re": ('"0a"', WRONG_IDS),
    },
    "mesh_request": {
        "to": ("PEER", WRONG_NAMES + WRONG_TEXTS),
        "message": ('"hello"', WRONG_MESSAGES + WRONG_TEXTS),
        "from_agent": ("NAME", WRONG_NAMES + WRONG_TEXTS),
        "timeout_s": ("60", WRONG_SECONDS),
    },
    "mesh_broadcast": {
        "message": ('"hello"', WRONG_MESSAGES + WRONG_TEXTS),
        "from_agent": ("NAME", WRONG_NAMES + WRONG_TEXTS),
    },
    "mesh_ack": {
        "peer": ("PEER", WRONG_NAMES + WRONG_TEXTS),
        "text": ('"thanks"', WRONG_MESSAGES + WRONG_TEXTS),
        "from_agent": ("NAME", WRONG_NAMES + WRONG_TEXTS),
    },
    "mesh_reply": {
        "to": ('"0a"', ['"mesh:to_PEER"', '"mesh:group"', *WRONG_IDS, *WRONG_TEXTS]),
        "text": ('"yes"', WRONG_MESSAGES + WRONG_TEXTS),
        "from_agent": ("NAME", WRONG_NAMES + WRONG_TEXTS),
    },
    "mesh_ping": {"agent": ("PEER", WRONG_NAMES + WRONG_TEXTS), "timeout_s": ("5", WRONG_SECONDS)},
    "mesh_listen_once": {"name": ("NAME", WRONG_NAMES + WRONG_TEXTS), "timeout_s": ("5", WRONG_SECONDS)},
    "mesh_inbox": {
        "name": ("NAME", WRONG_NAMES + WRONG_TEXTS),
        "limit": ("20", WRONG_COUNTS),
        "peek": ("true", WRONG_FLAGS),
    },
    "mesh_pending": {"name": ("NAME", WRONG_NAMES + WRONG_TEXTS)},
    "mesh_register": {
        "name": ("NAME", WRONG_NAMES + WRONG_TEXTS + ["null"]),
        "role": ('"tester"', [f'"{"r" * 101}"', '"a\\nb"', '"\\u001b[31m"', '"\\u2028"', '"\\ud800"', *WRONG_TEXTS]),
    },
    "mesh_who": {},
}
REQUIRED = {
    "mesh_send": ("to", "message"),
    "mesh_request": ("to", "message"),
    "mesh_broadcast": ("message",),
    "mesh_ack": ("peer", "text"),
    "mesh_reply": ("to", "text"),
    "mesh_ping": ("agent",),
    "mesh_register": ("name",),
}


def cases(tool: str, name: str, peer: str) -> Iterator[str]:
    """Arguments as JSON, each with one thing wrong."""
    right = {key: value for key, (value, _) in PARAMETERS[tool].items()}
    for key, (_, wrong) in PARAMETERS[tool].items():
        for value in wrong:
            yield written(right | {key: value}, name, peer)
    for key in REQUIRED.get(tool, ()):
        yield written({k: v for k, v in right.items() if k != key}, name, peer)
        yield written(right | {key: "null"}, name, peer)
    yield written(right | {"no_such_parameter": "1"}, name, peer)
    yield written(right | {"": "{}"}, name, peer)


def written(arguments: dict[str, str], name: str, peer: str) -> str:
    text = ",".join(f"{json.dumps(key)}:{value}" for key, value in arguments.items())
    return (
        "{"
        + text.replace("NAME", json.dumps(name))
        .replace('"mesh:to_PEER"', f'"mesh:to_{peer}"')
        .replace("PEER", json.dumps(peer))
        + "}"
    )


@pytest.fixture
def alice(session: Open, name: str) -> Client:
    return session(name)


@pytest.mark.parametrize("tool", PARAMETERS)
def test_wrong_arguments_are_a_tool_error_with_a_hint_and_nothing_happens(
    mesh: Home, session: Open, alice: Client, name: str, peer: str, tool: str
) -> None:
    """Even a message that cannot be sent is not lost without a word; the session lives, and is who it was."""
    bob = session(peer)
    before = alice.ok("mesh_who")["agents"]
    wrong = []
    for number, arguments in enumerate(cases(tool, name, peer)):
        params = f'{{"name":"{tool}","arguments":{arguments}}}'
        alice.write(f'{{"jsonrpc":"2.0","id":"{number}","method":"tools/call","params":{params}}}\n'.encode())
        answer = alice.answer(str(number), 5)
        text = answer["result"]["content"][0]["text"] if "result" in answer else ""
        refused = "result" in answer and answer["result"].get("isError") and "structuredContent" not in answer["result"]
        if not refused or "\nNext: " not in text or len(text) > 1000:
            wrong.append((arguments[:200], str(answer)[:300]))
    assert wrong == []
    assert bob.texts() == []
    assert alice.texts() == []
    assert alice.ok("mesh_pending")["entries"] == []
    told = {agent["agent"]: agent["role"] for agent in alice.ok("mesh_who")["agents"]}
    assert told.items() >= {agent["agent"]: agent["role"] for agent in before}.items()
    assert mesh.json("status")["pid"]


def test_a_tool_that_is_not_there_is_an_error_that_names_those_that_are(alice: Client) -> None:
    assert "mesh_send, mesh_inbox" in alice.refused("mesh_sned", to="bob", message="x")
    assert "mesh_who" in alice.refused("\x1b[31m" + "x" * 5000)


def test_names_and_messages_of_the_largest_size_are_taken(session: Open, alice: Client, name: str) -> None:
    """And every character that JSON can write arrives."""
    longest, text = ("b" * 53 + name + "_-")[:64], "é" * 32 * 1024
    bob = session(longest)
    alice.ok("mesh_send", to=longest, message=text)
    hostile = "\x00\x1b[31m\u2028\u202e</peer-message>\r\n\t\ufeff\U0001f600"
    alice.ok("mesh_send", to=longest, message=hostile)
    assert bob.texts() == [text]  # a result holds no more at once
    assert bob.texts() == [hostile]


def test_null_stands_for_a_parameter_that_is_left_out(session: Open, alice: Client, name: str) -> None:
    """As a model writes it that was told of a default."""
    alice.ok("mesh_send", to=name, message="hello", from_agent=None, re=None)
    assert [m["from"] for m in alice.ok("mesh_inbox", name=None)["messages"]] == [name]
    alice.ok("mesh_register", name=name, role=None)
    assert alice.ok("mesh_pending", name=None) == {"entries": []}
