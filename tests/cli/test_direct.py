"""What is answered without a parser is what the parser would have said; and what leans on private parts of Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.commands import direct, dispatch, path
from meshd import paths
from meshd.commands.table import COMMANDS
from meshd.control import help as helps
from meshd.core.names import is_name
from tests.helper import Home

ASKED = [
    *([word] for word in ("help", "--help", "-h", "version", "--version", "path")),
    *([name, "--help"] for name in COMMANDS),
    ["send", "-h"],
    ["help", "listen"],
    ["version", "--json"],
    ["--json", "path"],
    *(["path", what] for what in path.PLAIN),
    ["path", "notify", "bob"],
    ["path", "pending", "a_b-1", "--json"],
    ["path", "socket", "--json"],
    ["path", ""],
]
NOT_DIRECT = [
    ["path", "notify"],
    ["path", "notify", "no such name"],
    ["path", "notify", "bob", "carol"],
    ["path", "nothing"],
    ["path", "--jsn"],
    ["version", "now"],
    ["help", "nothing"],
    ["help", "../help/send"],
    ["SEND", "--help"],
    [helps.OVERVIEW, "--help"],
    ["send", "--help", "--json"],
    ["send", "--timeout", "--help"],
    ["help", "--json"],
    [],
]


@pytest.mark.parametrize("arguments", ASKED, ids=" ".join)
def test_the_short_way_says_what_the_parser_says(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert direct.answer(arguments) == 0
    short = capfd.readouterr()
    assert dispatch.main(arguments) == 0
    assert short == capfd.readouterr()
    assert short.out


@pytest.mark.parametrize("arguments", NOT_DIRECT, ids=" ".join)
def test_all_else_is_left_to_the_parser(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert direct.answer(arguments) is None
    assert capfd.readouterr() == ("", "")


def test_help_without_its_files_is_the_parser_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(direct, "TEXTS", str(tmp_path))
    assert direct.answer(["send", "--help"]) is None


def test_the_kept_texts_of_help_are_what_the_command_table_gives() -> None:
    kept = {file.stem: file.read_text() for file in Path(direct.TEXTS).iterdir()}
    assert kept == helps.texts(), "run packaging/generate.py --kept"
    assert direct.OVERVIEW == helps.OVERVIEW
    assert all(name.isascii() and name.isalpha() and name.islower() for name in COMMANDS)


def test_help_does_not_depend_on_the_terminal(home: Home) -> None:
    home.env |= {"COLUMNS": "40", "FORCE_COLOR": "1"}
    assert home.meshctl("send", "--help") == helps.texts()["send"]
    assert max(map(len, helps.texts()["send"].splitlines())) > 60


@given(st.text("aZ9_-.é\n", max_size=70) | st.just("a" * 64) | st.just("a" * 65))
def test_a_path_is_known_by_a_name_that_is_one(name: str) -> None:
    assert path.is_known("notify", name) == is_name(name)


@pytest.mark.parametrize("named", ["", "/x", "/x/", "relative", "~/x"])
@pytest.mark.parametrize("home", ["/h", "/h/", "/", "relative", None])
def test_the_folders_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch, named: str, home: str | None) -> None:
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, named)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert paths.cache_dir() == platformdirs.user_cache_dir("agent-mesh", appauthor=False)
    assert paths.state_dir() == platformdirs.user_state_dir("agent-mesh", appauthor=False)
    assert os.path.dirname(paths.config_file()) == platformdirs.user_config_dir("agent-mesh", appauthor=False)


# --- private modules of Python that are not as they were ---

WITHOUT = {
    "no _json": "sys.modules['_json'] = None",
    "a scanner that asks for more": (
        "import _json; made = _json.make_scanner; _json.make_scanner = lambda c: (c.something_new, made(c))[1]"
    ),
    "a scanner that answers otherwise": "import _json; _json.make_scanner = lambda c: lambda text, at: ([], at)",
    "a writer that is gone": "import _json; del _json.encode_basestring",
}


@pytest.mark.parametrize("change", WITHOUT.values(), ids=WITHOUT)
def test_the_client_works_where_the_c_part_of_json_is_another(home: Home, change: str) -> None:
    home.start()
    home.meshctl("register", "bob")
    run = f"import sys; import json; {change}; from meshctl.__main__ import main; sys.exit(main())"
    for arguments, out in ((["send", "bob", 'é\t"\n', "--from", "alice"], "sent "), (["inbox", "bob"], "é")):
        command = [sys.executable, "-c", run, *arguments]
        done = subprocess.run(command, env=home.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert out in done.stdout
        assert done.stderr == ""


def test_a_scanner_is_given_what_any_version_asks_for() -> None:
    """Python 3.15 asks for `array_hook`, too."""
    run = (
        "import _json, sys; made = _json.make_scanner; "
        "_json.make_scanner = lambda context: (context.array_hook, made(context))[1]; "
        "import meshctl.client; sys.exit('json' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", run], check=True)


@pytest.mark.parametrize("name", ["_socket", "_signal"])
def test_the_public_module_takes_the_place_of_a_private_one_that_is_gone(name: str) -> None:
    run = (
        f"import sys, socket, signal; sys.modules[{name!r}] = None; import meshctl.shim, meshctl.hook; "
        "from meshctl.client import socket; from meshctl.shim.reaching import signal; "
        f"print((socket.__module__, signal.__name__)[{name == '_signal'}])"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name.removeprefix("_")
