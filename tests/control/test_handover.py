"""Mail for programs: read when it was taken, explicitly or by what the socket tells, and unread again if not."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.helper import Home, Rpc, RpcError, wait_until


def start_with_mail(home: Home, *texts: str) -> None:
    home.start()
    with home.rpc() as rpc:
        rpc.call("register", name="bob")
        for text in texts or ("hello",):
            rpc.call("send", target="bob", message=text, from_="alice")
        wait_until(lambda: len(peek(rpc)) == len(texts or ("hello",)), "all are there")


def peek(rpc: Rpc) -> list[str]:
    return [message["text"] for message in rpc.call("inbox", name="bob", peek=True)["messages"]]


def take(rpc: Rpc) -> list[str]:
    return [message["text"] for message in rpc.call("inbox", name="bob")["messages"]]


def test_explicit_mail_is_read_when_it_is_confirmed(home: Home) -> None:
    start_with_mail(home, "one", "two")
    with home.rpc() as rpc, home.rpc() as witness:
        result = rpc.call("inbox", name="bob", ack="explicit")
        assert [m["text"] for m in result["messages"]] == ["one", "two"]
        assert rpc.call("hello")  # asking for more confirms nothing
        assert peek(witness) == ["one", "two"]
        assert take(witness) == []  # in nobody else's hands meanwhile
        assert rpc.call("confirm", receipt=result["receipt"]) == {"confirmed": 2}
        assert peek(witness) == []
        with pytest.raises(RpcError, match="no such receipt"):
            rpc.call("confirm", receipt=result["receipt"])


def test_explicit_mail_is_unread_again_when_the_connection_ends_before_the_confirmation(home: Home) -> None:
    start_with_mail(home, "one", "two")
    with home.rpc() as rpc:
        rpc.call("inbox", name="bob", ack="explicit")
    with home.rpc() as rpc:
        wait_until(lambda: take(rpc) == ["one", "two"], "both can be taken again")


def test_a_receipt_is_worth_nothing_on_another_connection(home: Home) -> None:
    start_with_mail(home)
    with home.rpc() as rpc, home.rpc() as thief:
        receipt = rpc.call("inbox", name="bob", ack="explicit")["receipt"]
        with pytest.raises(RpcError, match="no such receipt"):
            thief.call("confirm", receipt=receipt)
        assert rpc.call("confirm", receipt=receipt) == {"confirmed": 1}


def test_explicit_listen_and_the_items_of_a_monitor_have_receipts_of_their_own(home: Home) -> None:
    start_with_mail(home, "one", "two")
    with home.rpc() as rpc:
        heard = rpc.call("listen", name="bob", ack="explicit")
        assert heard["message"]["text"] == "one"
        rpc.send("monitor", name="bob", ack="explicit")
        item = rpc.read()["params"]["item"]
        assert item["text"] == "two"
        assert rpc.call("confirm", receipt=item["receipt"]) == {"confirmed": 1}
        assert peek(rpc) == ["one"]
        assert rpc.call("confirm", receipt=heard["receipt"]) == {"confirmed": 1}
        assert peek(rpc) == []


def test_implicit_mail_is_read_when_the_client_has_taken_the_answer_and_asks_again(home: Home) -> None:
    start_with_mail(home)
    with home.rpc() as rpc, home.rpc() as witness:
        assert take(rpc) == ["hello"]
        rpc.call("hello")
        wait_until(lambda: peek(witness) == [], "it is read")


def test_implicit_mail_is_read_when_the_client_has_taken_the_answer_and_closes(home: Home) -> None:
    start_with_mail(home)
    with home.rpc() as rpc:
        assert take(rpc) == ["hello"]
    with home.rpc() as witness:
        wait_until(lambda: peek(witness) == [], "it is read")


def test_implicit_mail_is_read_a_moment_after_it_was_taken(home: Home) -> None:
    start_with_mail(home)
    with home.rpc() as rpc, home.rpc() as witness:
        assert take(rpc) == ["hello"]
        wait_until(lambda: peek(witness) == [], "it is read")


def answered(home: Home) -> bool:
    """Whether a reader has the one message in its hands: no other can take it."""
    with home.rpc() as rpc:
        return not rpc.call("inbox", name="bob", ack="explicit")["messages"]


def test_implicit_mail_that_nobody_took_out_of_the_socket_is_unread_again(home: Home) -> None:
    """Not when the client sends more, for it may not have read; only what it took is read."""
    start_with_mail(home)
    with home.rpc() as rpc, home.rpc() as witness:
        rpc.send("inbox", name="bob")
        wait_until(lambda: answered(home), "the answer was sent")
        rpc.send("hello")
        rpc.send("status")
        assert witness.call("hello")
        assert peek(witness) == ["hello"]
    with home.rpc() as rpc:
        wait_until(lambda: take(rpc) == ["hello"], "it can be taken again")


@pytest.mark.parametrize("reads", [True, False])
def test_implicit_mail_of_a_half_closed_client_counts_only_if_it_reads_its_answer(home: Home, reads: bool) -> None:
    start_with_mail(home)
    with home.rpc() as rpc:
        rpc.send("inbox", name="bob")
        rpc.socket.shutdown(socket.SHUT_WR)
        if reads:
            assert rpc.read()["result"]["messages"][0]["text"] == "hello"
        else:
            wait_until(lambda: answered(home), "the answer was sent")
    with home.rpc() as rpc:
        if reads:
            wait_until(lambda: peek(rpc) == [], "it is read")
        else:
            wait_until(lambda: take(rpc) == ["hello"], "it can be taken again")


def test_mail_that_was_not_confirmed_survives_kill_9_of_the_daemon(home: Home) -> None:
    start_with_mail(home, "one", "two")
    with home.rpc() as rpc:
        result = rpc.call("inbox", name="bob", limit=1, ack="explicit")
        rpc.call("confirm", receipt=result["receipt"])
        rpc.call("inbox", name="bob", ack="explicit")
        home.kill()
    home.start()
    with home.rpc() as rpc:
        assert take(rpc) == ["two"]


def test_pipelined_sends_of_one_sender_arrive_in_order(home: Home) -> None:
    """Sent without waiting, over more than one read of the receiver."""
    home.start()
    count = 1500
    with home.rpc() as rpc:
        rpc.call("register", name="bob")
        for k in range(count):
            rpc.send("send", target="bob", message=str(k), from_="alice")
        for _ in range(count):
            assert "result" in rpc.read()
        received: list[str] = []

        def more() -> bool:
            received.extend(take(rpc))
            return len(received) >= count

        wait_until(more, "all have arrived")
    assert received == [str(k) for k in range(count)]


def test_two_readers_share_the_mail_and_nothing_comes_twice(home: Home) -> None:
    count = 200
    home.start()
    with home.rpc() as one, home.rpc() as two:
        one.call("register", name="bob")
        for k in range(count):
            one.send("send", target="bob", message=str(k), from_="alice")
        received: list[str] = []
        for _ in range(count):
            assert "result" in one.read()
        for _ in range(count // 2):
            for rpc in (one, two):
                rpc.send("listen", name="bob", timeout=20)
        for _ in range(count // 2):
            received += [rpc.read()["result"]["message"]["text"] for rpc in (one, two)]
    assert sorted(map(int, received)) == list(range(count))


def test_a_whole_command_line_can_be_called_by_a_program(home: Home) -> None:
    """`cli`: output comes as `cli.write` and counts as handed over once it was acknowledged."""
    start_with_mail(home)
    with contextlib.ExitStack() as stack:
        rpc = stack.enter_context(home.rpc())
        rpc.send("cli", argv=["inbox", "bob"])
        written = rpc.read()
        assert written["method"] == "cli.write"
        assert (written["params"]["fd"], written["params"]["text"]) == (1, "[DIRECT from alice] hello\n")
        witness = stack.enter_context(home.rpc())
        assert peek(witness) == ["hello"]
        rpc.raw(b'{"method":"cli.ack","params":{"n":%d}}\n' % written["params"]["ack"])
        result = rpc.read()["result"]
        assert (result["code"], result["out"], result["err"]) == (0, "", "")
        assert peek(witness) == []
