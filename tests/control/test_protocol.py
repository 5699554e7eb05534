"""The protocol of the control socket: methods, parameters, errors, and what is no request at all."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from meshd import __version__
from meshd.commands.table import COMMANDS
from tests.helper import Home, Rpc

ON_THE_SOCKET = [name for name, command in COMMANDS.items() if command.run is not None]


def alive(home: Home) -> bool:
    """Whether the daemon still answers a new client."""
    with home.rpc() as rpc:
        return bool(rpc.call("hello")["pid"])


def test_hello_tells_who_answers(mesh: Home) -> None:
    with mesh.rpc() as rpc:
        hello = rpc.call("hello")
    assert hello["protocol"] == {"min": 1, "max": 1}
    assert hello["version"] == __version__
    assert mesh.daemon is not None
    assert hello["pid"] == mesh.daemon.pid
    assert re.fullmatch(r"[0-9a-f]{32}", hello["instance"])
    assert hello["managed_by"] == "user"
    assert {"confirm", "cancel", "events"} <= set(hello["capabilities"])


def test_the_instance_stays_across_restarts(home: Home) -> None:
    seen = []
    for _ in range(2):
        home.start()
        with home.rpc() as rpc:
            seen.append(rpc.call("hello")["instance"])
        home.stop()
    assert seen[0] == seen[1]


def test_hello_gives_the_connection_its_name(mesh: Home, name: str, peer: str) -> None:
    with mesh.rpc() as rpc:
        rpc.call("hello", name=peer)
        rpc.call("send", target=name, message="hi")
        assert rpc.call("inbox", name=name)["messages"][0]["from"] == peer


@pytest.mark.parametrize("method", ON_THE_SOCKET)
def test_every_command_is_a_method(mesh: Home, method: str) -> None:
    """Called with nothing, it answers, or names the first parameter that is missing: never `unknown method`."""
    required = [f.encode_name for f in msgspec.structs.fields(COMMANDS[method].params) if f.required]
    with mesh.rpc() as rpc:
        answer = rpc.answer(method)
    if required:
        assert answer["error"]["code"] == -32602
        assert f"`{required[0]}`" in answer["error"]["message"]
    else:
        assert "result" in answer or answer["error"]["data"]["kind"] == "usage"


def test_the_commands_work_under_their_own_names_and_parameters(mesh: Home, name: str, peer: str) -> None:
    """The straight path of each, as a program would call it."""
    with mesh.rpc() as rpc, mesh.rpc() as answering:
        assert rpc.call("register", name=name, role="r") == {"name": name, "role": "r", "unread": 0}
        sent = rpc.call("send", target=name, message="one", from_=peer, private=True, id=f"i-{name}", thread="t")
        assert (sent["status"], sent["id"]) == ("sent", f"i-{name}")
        assert rpc.call("send", target=peer, message="q", from_=name, expect_reply=True, within=500)["to"] == peer
        assert len(rpc.call("pending", name=name)["entries"]) == 1
        assert len(rpc.call("ack", peer=peer, text="ok", from_=name)["settled"]) == 1
        assert rpc.call("broadcast", message="all", from_=peer)["to"] == "*"
        assert len(rpc.call("inbox", name=name, peek=True, limit=1)["messages"]) == 1
        assert rpc.call("listen", name=name, timeout=10, stealth=True)["message"]["text"] == "one"
        assert rpc.call("ping", target=name, timeout=10)["target"] == name
        asked = rpc.send("request", target=peer, message="?", from_=name, timeout=20)
        question = next(m for m in _unread(answering, peer) if m.get("reply_to"))
        assert answering.call("reply", where=question["reply_to"], text="!", from_=peer)["status"] == "replied"
        answer = rpc.read()
        assert (answer["id"], answer["result"]["reply"], answer["result"]["from"]) == (asked, "!", peer)
        assert name in [agent["agent"] for agent in rpc.call("who", all=True)["agents"]]
        assert rpc.call("status")["socket"] == mesh.socket
        assert rpc.call("up")["store"]["state"] == "up"
        assert rpc.call("reload")["said"] == "configuration read again"
        assert rpc.call("watch", name=name, timeout=0.1) == {}
        assert rpc.call("events") == {}
        assert rpc.call("deregister", name=name) == {"name": name}


def _unread(rpc: Rpc, name: str) -> list[dict[str, Any]]:
    """What comes to the name, as soon as there is a request among it."""
    while True:
        messages: list[dict[str, Any]] = rpc.call("inbox", name=name)["messages"]
        if any("reply_to" in message for message in messages):
            return messages


def test_a_second_monitor_on_the_socket_is_told_so(mesh: Home, name: str) -> None:
    with mesh.rpc() as first, mesh.rpc() as second:
        first.send("monitor", name=name)
        second.call("send", target=name, message="x", from_="alice")
        item = first.read()
        assert (item["method"], item["params"]["item"]["text"]) == ("monitor.item", "x")
        assert second.call("monitor", name=name) == {"name": name, "already": True}


@pytest.mark.parametrize(
    ("method", "nearest"), [("sned", "send"), ("inbx", "inbox"), ("event.subscribe", "events.subscribe")]
)
def test_an_unknown_method_is_answered_with_the_nearest_name(mesh: Home, method: str, nearest: str) -> None:
    with mesh.rpc() as rpc:
        error = rpc.answer(method)["error"]
    assert error["code"] == -32601
    assert error["message"] == f"no method {method!r}"
    assert error["data"]["kind"] == "method_not_found"
    assert error["data"]["hint"] == f"did you mean {nearest!r}?"
    assert error["data"]["nearest"] == [nearest]
    assert error["data"]["retryable"] is False


def test_what_the_client_carries_out_is_no_method(mesh: Home) -> None:
    with mesh.rpc() as rpc:
        for method in ("doctor", "logs", "path", "demo", "x" * 10_000, ""):
            assert rpc.answer(method)["error"]["code"] == -32601
        for method in ("doctor", "logs", "path", "serve", "demo"):
            error = rpc.answer(method)["error"]
            assert error["message"] == f"{method} is carried out by the client, not by the daemon"
            assert error["data"]["hint"] == f"run: meshctl {method}"
            assert "nearest" not in error["data"]


def test_unknown_fields_are_ignored(mesh: Home, name: str) -> None:
    """In the parameters and in the request itself: an older daemon serves a newer client."""
    with mesh.rpc() as rpc:
        assert rpc.call("send", target=name, message="hi", colour="red", later={"a": [1]})["status"] == "sent"
        rpc.raw(b'{"id":77,"method":"hello","params":{},"trace":"x","jsonrpc":"9.9"}\n')
        assert rpc.read()["id"] == 77


@pytest.mark.parametrize(
    ("method", "params", "kind", "code", "retryable"),
    [
        ("send", {"target": "a/b", "message": "x"}, "usage", -32602, False),
        ("send", {"target": "bob", "message": ""}, "usage", -32602, False),
        ("deregister", {"name": "nobody-here"}, "not_found", -32000, False),
        ("listen", {"name": "waits", "timeout": 0.05}, "timeout", -32000, True),
        ("confirm", {"receipt": "none"}, "usage", -32602, False),
    ],
)
def test_an_error_has_a_code_a_message_and_data(
    mesh: Home, method: str, params: dict[str, Any], kind: str, code: int, retryable: bool
) -> None:
    with mesh.rpc() as rpc:
        error = rpc.answer(method, **params)["error"]
    assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (code, kind, retryable)
    assert isinstance(error["message"], str)
    assert isinstance(error["data"]["hint"], str)


WRONG_TYPES = [
    ("send", {"target": 5, "message": "x"}),
    ("send", {"target": "bob", "message": ["x"]}),
    ("send", {"target": "bob", "message": "x", "within": "soon"}),
    ("send", {"target": "bob", "message": "x", "private": "yes"}),
    ("inbox", {"name": "bob", "limit": 1.5}),
    ("inbox", {"name": None}),
    ("cli", {"argv": "who"}),
    ("cli", {"argv": [1]}),
    ("hello", {"name": {}}),
    ("cancel", {}),
]


@pytest.mark.parametrize(("method", "params"), WRONG_TYPES)
def test_parameters_of_a_wrong_type_are_refused_by_name(mesh: Home, method: str, params: dict[str, Any]) -> None:
    with mesh.rpc() as rpc:
        error = rpc.answer(method, **params)["error"]
    assert (error["code"], error["data"]["kind"]) == (-32602, "usage")
    assert error["message"].startswith(f"{method}: ")


@pytest.mark.parametrize("params", [b"[]", b"null", b'"x"', b"5", b"true"])
def test_parameters_that_are_no_object_are_refused(mesh: Home, params: bytes) -> None:
    with mesh.rpc() as rpc:
        rpc.raw(b'{"jsonrpc":"2.0","id":1,"method":"status","params":%s}\n' % params)
        answer = rpc.read()
        assert answer["id"] == 1
        assert answer["error"]["data"]["kind"] == "usage"


DEEP = 100_000
NO_REQUESTS: dict[str, tuple[bytes, int, Any]] = {
    "garbage": (b"\x00\x01garbage", -32700, None),
    "http": (b"GET / HTTP/1.1\r", -32700, None),
    "a cut line": (b'{"jsonrpc":"2.0","id":1', -32700, None),
    "invalid UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', -32700, None),
    "a number": (b"5", -32600, None),
    "an empty object": (b"{}", -32600, None),
    "no method": (b'{"jsonrpc":"2.0","id":8}', -32600, 8),
    "a method that is no text": (b'{"id":"x","method":5}', -32600, "x"),
    "an id that is a list": (b'{"id":[1],"method":"hello"}', -32600, None),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"hello"}]', -32600, None),
    "deep arrays": (b"[" * DEEP + b"]" * DEEP, -32600, None),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, -32600, None),
}


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_what_is_no_request_is_answered_and_the_connection_goes_on(mesh: Home, kind: str) -> None:
    """An error that says what to send, with the id if there was one; then the next line counts again."""
    line, code, request_id = NO_REQUESTS[kind]
    with mesh.rpc() as rpc:
        rpc.raw(line + b"\n")
        answer = rpc.read()
        assert (answer["error"]["code"], answer["id"]) == (code, request_id)
        assert answer["error"]["data"]["hint"] == "send one JSON-RPC 2.0 object a line"
        assert rpc.call("hello")["version"] == __version__
    assert alive(mesh)


HOSTILE_PARAMETERS: dict[str, bytes] = {
    "invalid UTF-8 in a text": b'{"target":"bob","message":"a\xffb"}',
    "a lone surrogate": rb'{"target":"bob","message":"a\ud800b"}',
    "depth in an unknown field": b'{"target":"bob","message":"x","deep":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number without end": b'{"target":"bob","message":"x","within":1e999}',
    "not a number": b'{"target":"bob","message":"x","within":NaN}',
    "a huge limit": b'{"target":"bob","message":"x","within":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("kind", HOSTILE_PARAMETERS)
def test_hostile_parameters_are_refused_or_ignored_never_an_internal_error(mesh: Home, kind: str) -> None:
    before = len(mesh.log())  # others share this daemon
    with mesh.rpc() as rpc:
        rpc.raw(b'{"jsonrpc":"2.0","id":1,"method":"send","params":%s}\n' % HOSTILE_PARAMETERS[kind])
        answer = rpc.read()
        if "error" in answer:
            assert answer["error"]["data"]["kind"] in ("usage", "parse", "invalid_request"), answer
        else:
            assert answer["result"]["status"] == "sent"
            assert kind not in ("invalid UTF-8 in a text", "a lone surrogate")
        assert rpc.call("hello")
    assert "Traceback" not in mesh.log()[before:]


def test_notifications_are_not_answered_whatever_is_in_them(mesh: Home) -> None:
    before = len(mesh.log())  # others share this daemon
    with mesh.rpc() as rpc:
        for line in (
            b'{"method":"hello"}',
            b'{"method":"nothing"}',
            b'{"method":"send","params":{"target":"a/b","message":"x"}}',
            b'{"method":"cli.ack","params":{"n":"x"}}',
            b'{"method":"cli.ack","params":[]}',
            b'{"method":"cli.ack","params":{"n":99}}',
        ):
            rpc.raw(line + b"\n")
        rpc.raw(b'{"id":"last","method":"hello"}\n')
        assert rpc.read()["id"] == "last"
    assert "Traceback" not in mesh.log()[before:]


@pytest.mark.parametrize("request_id", [0, -1, 2**40, 1.5, "text", "\u2028", None])
def test_an_answer_carries_the_id_of_its_request(mesh: Home, request_id: Any) -> None:
    with mesh.rpc() as rpc:
        rpc.raw(json.dumps({"id": request_id, "method": "hello"}).encode() + b"\n")
        answer = rpc.read()
        assert answer["id"] == request_id
        assert answer["jsonrpc"] == "2.0"


def test_two_requests_of_one_id_are_both_answered(mesh: Home, name: str) -> None:
    with mesh.rpc() as rpc:
        rpc.raw(b'{"id":1,"method":"listen","params":{"name":"%s","timeout":0.3}}\n' % name.encode())
        rpc.raw(b'{"id":1,"method":"hello"}\n')
        assert "result" in rpc.read()
        assert rpc.read()["error"]["data"]["kind"] == "timeout"


def test_blank_lines_and_carriage_returns_are_tolerated(mesh: Home) -> None:
    with mesh.rpc() as rpc:
        rpc.raw(b'\n  \n\r\n{"id":5,"method":"hello"}\r\n')
        assert rpc.read()["id"] == 5


def test_a_running_call_can_be_cancelled(mesh: Home, name: str) -> None:
    with mesh.rpc() as rpc:
        waiting = rpc.send("listen", name=name, timeout=60)
        assert rpc.call("status")
        asked = rpc.send("cancel", id=waiting)
        answers = {answer["id"]: answer for answer in (rpc.read(), rpc.read())}
        assert answers[asked]["result"] == {"cancelled": True}
        assert answers[waiting]["error"]["data"]["kind"] == "cancelled"
        assert rpc.call("cancel", id="no such") == {"cancelled": False}


def _half_a_line(client: socket.socket) -> None:
    client.sendall(b'{"jsonrpc":"2.0","id":1,"meth')


def _nothing(client: socket.socket) -> None:
    pass


def _half_closed(client: socket.socket) -> None:
    client.sendall(b'{"jsonrpc":"2.0"')
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b""


def _garbage(client: socket.socket) -> None:
    client.sendall(bytes(range(256)) * 100)


@pytest.mark.parametrize("act", [_half_a_line, _nothing, _half_closed, _garbage])
def test_a_client_that_goes_in_any_state_harms_nobody(mesh: Home, act: Callable[[socket.socket], None]) -> None:
    with mesh.rpc() as witness:
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(mesh.socket)
                act(client)
        assert witness.call("hello")
    assert alive(mesh)


def test_a_half_closed_client_gets_the_answers_to_what_it_asked(mesh: Home) -> None:
    """As `echo … | nc -N -U` does."""
    with mesh.rpc() as rpc:
        first, second = rpc.send("hello"), rpc.send("status")
        rpc.socket.shutdown(socket.SHUT_WR)
        assert {rpc.read()["id"], rpc.read()["id"]} == {first, second}
        with pytest.raises(EOFError):
            rpc.read()
