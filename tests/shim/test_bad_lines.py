"""Lines that are no proper request: each is answered for itself, and the session lives."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helper import Home, wait_until
from tests.shim.client import HELLO, Client, McpError
from tests.shim.conftest import Open
from tests.shim.daemon import kill_gateway

PARSE, INVALID = -32700, -32600


@pytest.fixture
def alice(session: Open, name: str) -> Client:
    return session(name)


@pytest.fixture
def stranger(mesh: Home, tmp_path: Path, name: str) -> Any:
    """A client that has not shaken hands yet."""
    with contextlib.closing(Client(mesh, tmp_path / name)) as client:
        yield client


def errors(client: Client) -> list[int]:
    """The codes of the errors that belong to no request."""
    return [message["error"]["code"] for message in client.told if "error" in message]


def lives(client: Client) -> None:
    assert client.ok("mesh_who")["agents"]


NO_REQUESTS = {
    "garbage": (b"\x00\x01 what?", PARSE),
    "a word": (b"hello", PARSE),
    "half an object": (b'{"jsonrpc":"2.0","id":7,', PARSE),
    "invalid UTF-8": (b'{"jsonrpc":"2.0","id":7,"method":"p\xff\xfeing"}', PARSE),
    "a batch": (b'[{"jsonrpc":"2.0","id":7,"method":"ping"}]', INVALID),
    "an empty batch": (b"[]", INVALID),
    "a number": (b"42", INVALID),
    "null": (b"null", INVALID),
    "a string": (b'"ping"', INVALID),
    "an empty object": (b"{}", INVALID),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, PARSE),
    "deep nesting, no end": (b'{"a":' * 100_000, PARSE),
    "two objects": (b'{"jsonrpc":"2.0","id":7,"method":"ping"}{}', PARSE),
    "a number beyond all measure": (b'{"jsonrpc":"2.0","id":' + b"1" * 5000 + b',"method":"ping"}', PARSE),
}


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_what_is_no_request_is_answered_as_such(alice: Client, kind: str) -> None:
    line, code = NO_REQUESTS[kind]
    alice.write(line + b"\n")
    alice.until(lambda: errors(alice), "an error")
    lives(alice)
    assert errors(alice) == [code]


def test_blank_lines_are_nothing(alice: Client) -> None:
    alice.write(b"\n \n\t\n\r\n")
    lives(alice)
    assert errors(alice) == []


def test_a_line_may_end_as_on_windows(alice: Client) -> None:
    alice.write(b'{"jsonrpc":"2.0","id":"w","method":"ping"}\r\n')
    assert alice.result("w") == {}


def test_a_line_may_come_in_pieces(alice: Client) -> None:
    """Of one byte each, and two lines in one piece."""
    for byte in b'{"jsonrpc":"2.0","id":"p","method":"ping"}\n':
        alice.write(bytes([byte]))
    assert alice.result("p") == {}
    alice.write(b'{"jsonrpc":"2.0","id":"a","method":"ping"}\n{"jsonrpc":"2.0","id":"b","method":"ping"}\n')
    assert (alice.result("a"), alice.result("b")) == ({}, {})


def test_half_a_line_and_the_end_is_the_end(session: Open, name: str) -> None:
    alice = session(name)
    alice.write(b'{"jsonrpc":"2.0","id":7,"method":"pi')
    assert alice.end() == 0
    assert alice.errors() == ""


# --- lines that are requests, and cannot be carried out ---

WRONG_REQUESTS = {
    "no method": {"jsonrpc": "2.0", "id": "w"},
    "params of another kind": {"jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": [1, 2]},
    "params that are text": {"jsonrpc": "2.0", "id": "w", "method": "tools/list", "params": "all"},
    "a method that is a number": {"jsonrpc": "2.0", "id": "w", "method": 7},
    "another version": {"jsonrpc": "1.0", "id": "w", "method": "tools/list"},
    "no version": {"id": "w", "method": "tools/list"},
    "no tool": {"jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": {}},
    "arguments that are a list": {
        "jsonrpc": "2.0",
        "id": "w",
        "method": "tools/call",
        "params": {"name": "mesh_who", "arguments": []},
    },
    "a method of nobody": {"jsonrpc": "2.0", "id": "w", "method": "tools/destroy"},
    "a method that is not served": {"jsonrpc": "2.0", "id": "w", "method": "resources/list"},
}


@pytest.mark.parametrize("kind", WRONG_REQUESTS)
def test_a_request_that_cannot_be_carried_out_is_refused_under_its_id(alice: Client, kind: str) -> None:
    """Its sender waits for an answer with that id."""
    alice.write(json.dumps(WRONG_REQUESTS[kind]).encode() + b"\n")
    assert alice.answer("w")["error"]["code"] in (-32600, -32601, -32602)
    lives(alice)


def test_a_request_with_arguments_nested_too_deep_is_refused_under_its_id(alice: Client) -> None:
    for depth in (150, 300, 700, 5000):
        deep = '{"a":' * depth + "1" + "}" * depth
        arguments = f'{{"name":"mesh_who","arguments":{deep}}}'
        alice.write(f'{{"jsonrpc":"2.0","id":{depth},"method":"tools/call","params":{arguments}}}\n'.encode())
    for depth in (150, 300):
        answer = alice.answer(depth)
        assert "error" in answer or answer["result"]["isError"]
    alice.until(lambda: len(errors(alice)) + sum(map(alice.has, (700, 5000))) == 2, "the others are refused, too")
    lives(alice)


def test_what_was_refused_once_is_not_refused_again_after_a_restart(own: Home, own_session: Open) -> None:
    """Only what is unanswered is sent again."""
    own.start()
    alice = own_session("alice")
    for request_id in ("1.5", "true", "[1]", "{}", '"x"'):
        alice.write(b'{"jsonrpc":"2.0","id":%s,"method":"tools/list","params":[]}\n' % request_id.encode())
    alice.until(lambda: len(errors(alice)) + alice.has("x") == 5, "each of them is refused")
    kill_gateway(own)
    lives(alice)
    assert len(errors(alice)) + len(alice.answers['"x"']) == 5


# --- the handshake ---


def test_a_second_handshake_harms_nothing(alice: Client, name: str) -> None:
    assert f"You are {name};" in alice.initialize()["instructions"]
    lives(alice)


def test_nothing_but_the_handshake_and_ping_works_before_it(stranger: Client) -> None:
    assert stranger.result(stranger.request("ping")) == {}
    for method in ("tools/list", "tools/call"):
        with pytest.raises(McpError):
            stranger.result(stranger.request(method, {"name": "mesh_who"}))
    stranger.initialize()
    lives(stranger)


def test_a_client_that_asks_for_discovery_first_is_told_that_there_is_none(stranger: Client) -> None:
    """And begins the handshake in the same process."""
    with pytest.raises(McpError) as refused:
        stranger.result(stranger.request("server/discover", {"_meta": {}}, "discover-1"))
    assert refused.value.code == -32601
    stranger.initialize()
    lives(stranger)


def test_a_client_need_not_wait_for_the_handshake(stranger: Client) -> None:
    """All at once, the notification that it is done among them."""
    shake = stranger.request("initialize", HELLO)
    stranger.notify("notifications/initialized")
    called = stranger.begin("mesh_who")
    assert stranger.result(shake)["serverInfo"]["name"] == "agent-mesh"
    assert not stranger.finish(called).failed


def test_an_older_or_newer_client_is_given_a_version_that_both_know(stranger: Client) -> None:
    for asked, given in (("2024-11-05", "2024-11-05"), ("2099-01-01", "2025-11-25")):
        assert (
            stranger.result(stranger.request("initialize", HELLO | {"protocolVersion": asked}))["protocolVersion"]
            == given
        )


# --- ids ---


@pytest.mark.parametrize(
    "request_id", [0, -1, 2**31, 2**53, 2**70, "", "7", "a b", 'q"\\/', "é\u2028\U0001f600", "\x00\n", "x" * 5000]
)
def test_an_id_comes_back_as_it_was_sent_and_its_mail_is_read(
    mesh: Home, alice: Client, name: str, request_id: Any
) -> None:
    mesh.meshctl("send", name, "hello")
    alice.begin("mesh_inbox", request_id)
    assert [message["text"] for message in alice.finish(request_id).data["messages"]] == ["hello"]
    wait_until(lambda: not mesh.json("inbox", name, "--peek")["messages"], "it is read")


def test_a_number_and_the_same_number_as_text_are_two_ids(alice: Client) -> None:
    alice.request("ping", request_id=70)
    alice.request("ping", request_id="70")
    assert (alice.result(70), alice.result("70")) == ({}, {})


@pytest.mark.parametrize("request_id", ["1.5", "1e400", "true", "[]", "{}", '{"a":1}', "[" * 400 + "]" * 400])
def test_what_is_no_id_is_no_request(alice: Client, request_id: str) -> None:
    alice.write(b'{"jsonrpc":"2.0","id":%s,"method":"ping"}\n' % request_id.encode())
    alice.until(lambda: errors(alice), "an error")
    lives(alice)
    assert len(errors(alice)) == 1


def test_a_request_whose_id_is_null_gets_no_result(alice: Client) -> None:
    alice.write(b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n')
    lives(alice)
    assert errors(alice) in ([], [INVALID])


def test_an_id_that_is_used_twice_at_once_is_answered_once(mesh: Home, alice: Client, name: str) -> None:
    """What is protocol for nobody must not lose anything: both messages are sent."""
    for text in ("first", "second"):
        alice.begin("mesh_send", "same", to=name, message=text)
    assert not alice.finish("same").failed
    received: list[str] = []
    while len(received) < 2:
        received.append(alice.ok("mesh_listen_once", timeout_s=10)["message"]["text"])
    assert sorted(received) == ["first", "second"]


def test_an_id_that_is_used_again_is_another_call(alice: Client, name: str) -> None:
    """As by a client that gives every call the same one."""
    for k in range(3):
        alice.answers.clear()
        alice.begin("mesh_send", "same", to=name, message=f"m{k}")
        assert not alice.finish("same").failed
    assert alice.texts() == ["m0", "m1", "m2"]
    alice.answers.clear()


# --- sizes ---


def big(size: int, **more: object) -> bytes:
    """A request for `mesh_send` as a line of so many bytes, its end included."""
    head = json.dumps({"jsonrpc": "2.0", "id": "big", "method": "tools/call", **more}).encode()[:-1]
    head += b',"params":{"name":"mesh_send","arguments":{"to":"nobody","message":"'
    return head + b"x" * (size - len(head) - 5) + b'"}}}\n'


@pytest.mark.parametrize("size", [70_000, (1 << 20) - 150, (1 << 20) - 20, 1 << 20, (1 << 20) + 1, 2 << 20, 20 << 20])
def test_a_line_of_any_size_has_one_answer_and_the_session_lives(alice: Client, size: int) -> None:
    """Up to 8 MiB under its own id; nobody has ever to guess which request was refused, but for those beyond."""
    line = big(size)
    assert len(line) == size
    alice.write(line)
    alice.until(lambda: alice.has("big") or errors(alice), "an answer")
    lives(alice)
    assert alice.has("big") == (size < 8 << 20)
    if size < 8 << 20:
        answer = alice.answer("big")
        assert answer["result"]["isError"] if "result" in answer else "Next: " in answer["error"]["message"]
    assert len(errors(alice)) == (0 if size < 8 << 20 else 1)


def test_a_huge_line_does_not_stay_in_the_shims_memory(alice: Client) -> None:
    alice.write(big(20 << 20))
    lives(alice)
    status = Path(f"/proc/{alice.process.pid}/status").read_text()
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert resident < 24 * 1024
