"""Completion in real shells: on a terminal, as a person types."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshctl import completion
from meshctl.install import CLIENTS as INSTALLED_CLIENTS
from meshd.commands.arguments import HELP, JSON, arguments
from meshd.commands.daemon import CLIENTS, PATHS, SHELLS
from meshd.commands.table import COMMANDS, SHOWN
from tests.helper import Home, a_home
from tests.packaging.terminal import Terminal, terminal

START = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(meshctl completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(meshctl completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "meshctl completion fish | source"),
}


def programs(folder: Path) -> str:
    """A PATH on which `meshctl` and `agent-mesh` are this project's."""
    folder.mkdir()
    for name in ("meshctl", "agent-mesh"):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m meshctl "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shell(name: str) -> list[str]:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: tests/run installs it")
    return START[name][0]


def environment(home: Home, path: str) -> dict[str, str]:
    return home.env | {"PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8", "PS1": "$ "}


@pytest.fixture(scope="module")
def two_known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A daemon that knows `bob-1` and `carol`, and nobody else: what other tests registered would be offered too."""
    with a_home(tmp_path_factory.mktemp("two-known") / "home") as home:
        for name in ("bob-1", "carol"):
            home.meshctl("register", name)
        yield home


@pytest.fixture(scope="module", params=SHELLS)
def typed(
    request: pytest.FixtureRequest, two_known: Home, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    """A shell with our completion."""
    folder = tmp_path_factory.mktemp(request.param)
    command = shell(request.param)
    with terminal(command, environment(two_known, programs(folder / "bin")), str(folder)) as made:
        made.run(START[request.param][1])
        yield made


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("meshctl dereg", "meshctl deregister"),
        ("agent-mesh dereg", "agent-mesh deregister"),
        ("meshctl --json dereg", "meshctl --json deregister"),
        ("meshctl help dereg", "meshctl help deregister"),
        ("meshctl comple", "meshctl completion"),
        ("meshctl send b", "meshctl send bob-1"),
        ("meshctl send -p b", "meshctl send -p bob-1"),
        ("meshctl send --within 5 b", "meshctl send --within 5 bob-1"),
        ("meshctl send -- b", "meshctl send -- bob-1"),
        ("meshctl send bob-1 b", "meshctl send bob-1 b"),
        ("meshctl send --from c", "meshctl send --from carol"),
        ("meshctl send --from=c", "meshctl send --from=carol"),
        ("meshctl send --exp", "meshctl send --expect-reply"),
        ("meshctl send bob-1 hi --exp", "meshctl send bob-1 hi --expect-reply"),
        ("meshctl send -- --exp", "meshctl send -- --exp"),
        ("meshctl --ver", "meshctl --version"),
        ("meshctl inbox c", "meshctl inbox carol"),
        ("meshctl path so", "meshctl path socket"),
        ("meshctl path notify c", "meshctl path notify carol"),
        ("meshctl install co", "meshctl install codex"),
        ("meshctl completion z", "meshctl completion zsh"),
        ("meshctl nonsense b", "meshctl nonsense b"),
    ],
)
def test_tab_completes(typed: Terminal, line: str, words: str) -> None:
    assert typed.completed(line) == words.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [("meshctl se", ["send", "serve"]), ("meshctl send --", ["--from", "--private", "--json", "--help"])],
)
def test_several_candidates_are_listed(typed: Terminal, line: str, offered: list[str]) -> None:
    typed.type(f"{line}\t\t")
    shown = typed.until(offered[-1])
    for word in offered[:-1]:
        shown += "" if word in shown else typed.until(word)
    typed.type("\x03")
    typed.run("true")


@pytest.mark.parametrize("name", SHELLS)
def test_without_a_daemon_there_are_no_names_and_none_is_started(lone: Home, tmp_path: Path, name: str) -> None:
    command = shell(name)
    with terminal(command, environment(lone, programs(tmp_path / "bin")), str(tmp_path)) as typed:
        typed.run(START[name][1])
        assert typed.completed("meshctl send b") == ["meshctl", "send", "b"]
        assert typed.completed("meshctl dereg") == ["meshctl", "deregister"]
    assert not os.path.exists(lone.socket)


HOSTILE = [
    "$(touch ran)",
    "`touch ran`",
    "b;touch ran",
    "b ob",
    "b'",
    'b"',
    "b\\",
    "*",
    "b*",
    "-bad",
    "bö\x1b[2J",
]


@pytest.mark.parametrize("name", SHELLS)
def test_what_is_no_name_is_neither_run_nor_offered(mesh: Home, tmp_path: Path, name: str) -> None:
    """Names cannot hold such characters; an answer that does is not the daemon's, or the daemon is broken."""
    command = shell(name)
    path = programs(tmp_path / "bin")
    script = completion.script(name)
    (tmp_path / "answer").write_text("\n".join([*HOSTILE, "bob", ""]))
    (tmp_path / "bin" / "meshctl").write_text(f"#!/bin/sh\ncat {shlex.quote(str(tmp_path / 'answer'))}\n")
    (tmp_path / "script").write_text(script)
    with terminal(command, environment(mesh, path), str(tmp_path)) as typed:
        typed.run("autoload -Uz compinit; compinit -u -D; . ./script" if name == "zsh" else "source ./script")
        assert typed.completed("meshctl send ") == ["meshctl", "send", "bob"]
        assert typed.completed("meshctl send b") == ["meshctl", "send", "bob"]
    assert not (tmp_path / "ran").exists()


def test_bash_knows_every_option_of_every_command(tmp_path: Path) -> None:
    """In one bash, with the completion function called as bash calls it, under the strictest settings."""
    calls = "".join(
        f"COMP_WORDS=(meshctl {name} -) COMP_CWORD=2\n_meshctl\necho {name} ${{COMPREPLY[*]}}\n" for name in SHOWN
    )
    done = bash(completion.script("bash") + calls)
    found = {line.split()[0]: set(line.split()[1:]) for line in done.splitlines()}
    for name, command in SHOWN.items():
        taken = [*arguments(command), JSON, HELP]
        assert found[name] == {flag for argument in taken for flag in argument.flags}


def test_bash_completes_a_value_in_one_word_with_its_option() -> None:
    """As it is where `=` does not break words."""
    script = completion.script("bash")
    calls = "COMP_WORDS=(meshctl path --json no) COMP_CWORD=3; _meshctl; echo ${COMPREPLY[*]}\n"
    calls += "meshctl() { echo bob; }; command() { meshctl; }\n"
    calls += "COMP_WORDS=(meshctl send --from=b) COMP_CWORD=2; _meshctl; echo ${COMPREPLY[*]}\n"
    assert bash(script + calls).splitlines() == ["notify", "--from=bob"]


def bash(script: str) -> str:
    shell("bash")
    done = subprocess.run(["bash", "-u"], input=script, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def test_fish_shows_what_each_command_does(tmp_path: Path) -> None:
    shell("fish")
    script = f"{completion.script('fish')}\ncomplete -C 'meshctl '\ncomplete -C 'meshctl events -'\n"
    env = os.environ | {"HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["fish", "--no-config"], input=script, capture_output=True, text=True, check=True, env=env)
    lines = done.stdout.splitlines()
    for name, command in SHOWN.items():
        assert f"{name}\t{command.help}" in lines
    assert {"-f\tstay, and print events as they come", "--follow\tstay, and print events as they come"} <= set(lines)
    assert not done.stderr


@pytest.mark.parametrize("name", SHELLS)
def test_a_script_is_printed_without_a_daemon(lone: Home, name: str) -> None:
    assert lone.meshctl("completion", name) == completion.script(name)
    assert lone.json("completion", name) == {"shell": name, "script": completion.script(name)}
    assert "complete " not in lone.meshctl("--help")
    assert not os.path.exists(lone.socket)


def test_an_unknown_shell_is_refused(lone: Home) -> None:
    done = lone.run("completion", "tcsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "one of: bash, zsh, fish" in done.stderr


def test_words_in_the_table_are_those_that_are_understood(lone: Home) -> None:
    for what in PATHS:
        lone.meshctl("path", what, *(["bob"] if what in ("notify", "pending") else []))
    assert set(CLIENTS) == set(INSTALLED_CLIENTS)
    assert not set(COMMANDS) - set(SHOWN) - {"complete"}


def test_complete_answers_with_names(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    assert name in mesh.meshctl("complete", "hosted").splitlines()
    assert name in mesh.json("complete", "agents")["names"]


def test_complete_knows_agents_elsewhere(home: Home, other: Home) -> None:
    other.meshctl("register", "far")
    home.meshctl("register", "near")
    assert home.meshctl("complete", "agents") == "far\nnear\n"
    assert home.meshctl("complete", "hosted") == "near\n"


def test_complete_is_silent_without_a_daemon(lone: Home) -> None:
    done = lone.run("complete", "agents")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not os.path.exists(lone.socket)


def test_complete_does_not_wait_for_a_daemon_that_hangs(lone: Home) -> None:
    """Somebody sits before a shell that does nothing until this ends."""
    lone.start()
    assert lone.daemon is not None
    lone.daemon.send_signal(signal.SIGSTOP)
    done = lone.run("complete", "agents")
    lone.daemon.send_signal(signal.SIGCONT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
