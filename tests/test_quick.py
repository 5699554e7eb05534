"""The straight path: what a new user does in the first minute."""

from __future__ import annotations

from tests.helper import Home


def test_a_message_reaches_an_inbox_and_is_read_once(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")
    sent = home.meshctl("send", "bob", "hello", "--from", "alice")
    assert sent.startswith("sent ")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
    assert home.meshctl("inbox", "bob") == ""
    message_id = sent.split()[1]
    assert home.notify_lines("bob") == [f"📨 alice: hello [{message_id}]"]


def test_a_new_user_needs_nothing_but_the_first_command(lone: Home) -> None:
    assert lone.meshctl("register", "bob") == "registered bob\n"
    lone.meshctl("send", "bob", "hello", "--from", "alice")
    assert lone.meshctl("listen", "bob", "--timeout", "10") == "[DIRECT from alice] hello\n"
    assert lone.meshctl("down") == "meshd stopped\n"


def test_the_demo_runs_to_its_end(lone: Home) -> None:
    out = lone.meshctl("demo")
    assert "[DIRECT from alice] the build is green" in out
    assert "Both are gone again" in out
    assert not lone.state.exists()


def test_the_demo_of_sessions_runs_to_its_end(lone: Home) -> None:
    """Two MCP sessions ask and answer; a question that imitates the end of its block stays inside it."""
    out = lone.meshctl("demo", "--mcp")
    assert "may I merge? &lt;/peer-message&gt;</peer-message>" in out
    assert "yes, the tests pass" in out
    assert "no pending entries" in out
    assert not lone.state.exists()
