"""The commands, without any client on PATH, or with one that does not do what it should."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from meshctl.install import codex, plugin
from tests.install.user import OUR_PROGRAM, User

CLIENTS = ["claude", "codex", "gemini"]

# What a user may have before: the comments, the spacing and the order are theirs.
BEFORE = {
    ".claude.json": '{\n  "numStartups": 7,\n  "mcpServers": {\n    "other": {"command": "x"}\n  },\n  "z": []\n}',
    ".claude/settings.json": (
        '{"model": "opus",\n "permissions": {"allow": ["Bash(ls)"], "deny": []},\n "hooks": {"Stop": [\n'
        '   {"hooks": [{"type": "command", "command": "say done"}]}\n ]}}\n'
    ),
    ".codex/config.toml": '# mine\r\nmodel = "x" # best\r\n\r\n[mcp_servers.other] # keep\r\ncommand = "x"',
    ".gemini/settings.json": '{\n\t// mine\n\t"ui": {"theme": "x"}, /* c */\n\t"mcpServers": {} // none\n}\n',
}


@pytest.fixture
def settled(user: User) -> User:
    """A user who has configured all clients."""
    for name, text in BEFORE.items():
        user.file(name, text)
    return user


def servers(user: User, client: str, *, project: bool = False) -> Any:
    """The MCP servers as the client's file has them; comments are blanked."""
    import tomllib

    top = user.project if project else user.home
    name = {
        "claude": ".mcp.json" if project else ".claude.json",
        "codex": ".codex/config.toml",
        "gemini": ".gemini/settings.json",
    }[client]
    text = (top / name).read_bytes().decode()
    if client == "codex":
        return tomllib.loads(text)["mcp_servers"]
    return json.loads(re.sub(r"//.*|/\*.*?\*/", "", text))["mcpServers"]


@pytest.mark.parametrize("client", CLIENTS)
def test_installed_twice_and_taken_out_every_byte_is_as_before(settled: User, client: str) -> None:
    before = settled.files()
    shown = settled.meshctl("install", client, "--yes")
    assert "edited: " in shown
    assert "Restart running sessions" in shown
    entry = servers(settled, client)["agent-mesh"]
    assert (entry["command"], entry["args"]) == (OUR_PROGRAM, ["mcp"])
    copies = settled.backups()
    assert copies
    assert [copy.read_bytes() for copy in copies] == [_text(before, copy) for copy in copies]
    installed = settled.files()
    assert settled.meshctl("install", client).startswith("already installed for ")
    assert settled.files() == installed
    settled.meshctl("uninstall", client, "--yes")
    for copy in settled.backups():
        copy.unlink()
    if client == "gemini":  # an empty object is not told from one of ours
        settings = str(settled.home / ".gemini/settings.json")
        before[settings] = before[settings][0], b'{\n\t// mine\n\t"ui": {"theme": "x"} /* c */ // none\n}\n'
    assert settled.files() == before
    assert settled.meshctl("uninstall", client).startswith("not installed for ")
    assert settled.files() == before


def _text(files: dict[str, tuple[int, bytes | str]], copy: Path) -> bytes | str:
    return files[re.sub(r"\.[\d-]+\.bak$", "", str(copy))][1]


@pytest.mark.parametrize("options", [[], ["--project"]])
@pytest.mark.parametrize("client", CLIENTS)
def test_of_an_installation_from_nothing_nothing_is_left(user: User, client: str, options: list[str]) -> None:
    user.meshctl("install", client, "--yes", "--allow-tools", *options)
    assert servers(user, client, project=bool(options))["agent-mesh"]["command"] == OUR_PROGRAM
    top, other = (user.project, user.home) if options else (user.home, user.project)
    assert list(other.iterdir()) == []
    user.meshctl("uninstall", client, "--yes", *options)
    assert user.files() == {}
    assert [path for path in top.iterdir() if options] == []


@pytest.mark.parametrize("client", CLIENTS)
def test_print_only_shows_and_says_the_same_as_the_deed(settled: User, client: str) -> None:
    before = settled.files()
    planned = settled.json("install", client, "--print", "--allow-tools")
    shown = settled.meshctl("install", client, "--print", "--allow-tools")
    assert settled.files() == before
    assert planned["changed"] is False
    assert shown.endswith("nothing was changed\n")
    done = settled.json("install", client, "--yes", "--allow-tools")
    assert done["changed"] is True
    assert done["program"] == OUR_PROGRAM
    said = [(step["kind"], step["what"], step["lines"]) for step in done["steps"]]
    assert [(step["kind"], step["what"], step["lines"]) for step in planned["steps"]] == said
    for _, what, lines in said:
        assert f"would edit: {what}\n" in shown
        assert all(f"  {line}\n" in shown for line in lines)


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("client", CLIENTS)
def test_without_a_terminal_and_without_yes_nothing_is_done(settled: User, client: str, command: str) -> None:
    if command == "uninstall":
        settled.meshctl("install", client, "--yes")
    before = settled.files()
    done = settled.run(command, client)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no terminal" in done.stderr
    assert "--yes" in done.stderr
    assert settled.files() == before


@pytest.mark.parametrize("keys", ["n\n", "\n", "\x04", "yess\n"])
def test_only_yes_is_yes(user: User, keys: str) -> None:
    code, shown = user.answer(keys, "install", "codex")
    assert code == 1
    assert f"would edit: {user.home}/.codex/config.toml\n" in shown
    assert "nothing was changed" in shown
    assert user.files() == {}


def test_yes_is_yes(user: User) -> None:
    code, shown = user.answer("y\n", "install", "codex")
    assert code == 0
    assert "edited: " in shown
    assert servers(user, "codex")["agent-mesh"]["args"] == ["mcp"]


def test_an_interrupt_at_the_question_changes_nothing(user: User) -> None:
    code, shown = user.answer("^C", "install", "claude")
    assert code == 130
    assert "Traceback" not in shown
    assert user.files() == {}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["claud"], "did you mean claude?"),
        (["emacs"], "one of: claude, codex, gemini"),
        ([], "required: CLIENT"),
        (["codex", "--prject"], "unrecognized arguments"),
    ],
)
def test_bad_arguments_are_named(user: User, arguments: list[str], what: str) -> None:
    done = user.run("install", *arguments)
    assert done.returncode == 2
    assert what in done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_the_home_folder_is_no_project(user: User, client: str) -> None:
    user.project = user.home
    done = user.run("install", client, "--project", "--yes")
    assert done.returncode == 2
    assert "leave out --project" in done.stderr
    assert user.files() == {}


def test_a_folder_that_is_gone_is_no_project(user: User) -> None:
    user.through = ["/bin/sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh"]
    user.env["PATH"] = "/usr/bin:/bin"
    done = user.run("install", "codex", "--project", "--yes")
    assert done.returncode == 1
    assert "the current folder is gone" in done.stderr


def test_the_error_is_in_the_json_too(user: User) -> None:
    user.file(".codex/config.toml", "model = [")
    done = user.run("install", "codex", "--yes", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "not_changed"


# --- entries that are there already ---

OLD = {"command": "/old/bin/agent-mesh", "args": ["serve"]}


def entry(user: User, client: str, **values: Any) -> None:
    """The client's file, with this entry of our name."""
    if client == "codex":
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        user.file(".codex/config.toml", f"[mcp_servers.agent-mesh]\n{lines}")
    else:
        name = {"claude": ".claude.json", "gemini": ".gemini/settings.json"}[client]
        user.file(name, json.dumps({"mcpServers": {"agent-mesh": values}}, indent=2))


@pytest.mark.parametrize("client", CLIENTS)
def test_an_entry_of_another_installation_gets_the_new_program_and_keeps_the_rest(user: User, client: str) -> None:
    entry(user, client, **OLD, description="mine", cwd="/somewhere")
    user.meshctl("install", client, "--yes")
    found = servers(user, client)["agent-mesh"]
    assert found == {"command": OUR_PROGRAM, "args": ["mcp"], "description": "mine", "cwd": "/somewhere"}
    user.meshctl("uninstall", client, "--yes")
    assert user.meshctl("uninstall", client).startswith("not installed")


def test_an_entry_of_codex_that_is_written_inline_is_installed_and_taken_out_like_any_other(user: User) -> None:
    mine = '[mcp_servers] # mine\nother = {command = "x"} # keep\n'
    path = user.file(
        ".codex/config.toml", f'{mine}agent-mesh = {{command = "/old/bin/agent-mesh", args = ["serve"]}}\n'
    )
    user.meshctl("install", "codex", "--yes")
    assert servers(user, "codex")["agent-mesh"] == {"command": OUR_PROGRAM, "args": ["mcp"]}
    assert user.meshctl("install", "codex") == "already installed for Codex\n"
    user.meshctl("uninstall", "codex", "--yes")
    assert path.read_text() == mine


@pytest.mark.parametrize("client", ["codex", "gemini"])
def test_what_the_owner_added_to_our_entry_is_left_alone(user: User, client: str) -> None:
    entry(user, client, command=OUR_PROGRAM, args=["mcp"], description="mine")
    before = user.files()
    assert user.meshctl("install", client).startswith("already installed")
    assert user.files() == before


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "foreign", [{"command": "ssh", "args": ["host", "meshctl", "mcp"]}, {"url": "http://x/mcp"}, {"command": 1}]
)
def test_an_entry_of_our_name_that_is_not_ours_is_left_alone(
    user: User, client: str, command: str, foreign: dict[str, Any]
) -> None:
    entry(user, client, **foreign)
    if client == "claude" and command == "uninstall":
        assert user.meshctl(command, client).startswith("not installed")
    else:
        assert "that is not ours" in user.refused(command, client, "--yes")


def test_an_environment_of_the_installing_shell_is_not_written_down(user: User) -> None:
    """Codex is given names, which it passes on from each session's own environment."""
    user.env["AGENT_MESH_REDIS_URL"] = "redis://:secret@host"
    user.env["AGENT_MESH_NAME"] = "installer"
    for client in CLIENTS:
        user.meshctl("install", client, "--yes")
    assert "secret" not in str(user.files())
    assert "installer" not in str(user.files())
    assert servers(user, "codex")["agent-mesh"]["env_vars"] == codex.FORWARDED


def test_codex_passes_on_every_variable_that_is_documented() -> None:
    """But for those of `serve --http`, which no client starts."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    documented = {name for name in re.findall(r"`(AGENT_MESH_\w+)`", readme) if "_HTTP_" not in name}
    assert documented <= set(codex.FORWARDED)


@pytest.mark.parametrize(
    ("client", "variable", "file"),
    [
        ("claude", "CLAUDE_CONFIG_DIR", "settings.json"),
        ("claude", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("gemini", "GEMINI_CLI_HOME", ".gemini/settings.json"),
    ],
)
def test_a_client_whose_files_are_elsewhere_is_followed(
    user: User, tmp_path: Path, client: str, variable: str, file: str
) -> None:
    user.env[variable] = str(tmp_path / "elsewhere")
    user.meshctl("install", client, "--yes")
    assert (tmp_path / "elsewhere" / file).exists()
    assert user.files() == {}
    assert user.meshctl("install", client).startswith("already installed")


# --- Claude Code without its program ---


def settings(user: User) -> Any:
    return json.loads((user.home / ".claude" / "settings.json").read_text())


def test_without_the_program_servers_and_hooks_stand_in_the_files(settled: User) -> None:
    """settings.json never holds servers; the user's own hook stays, and stays first."""
    settled.meshctl("install", "claude", "--yes")
    found = settings(settled)
    assert "mcpServers" not in found
    assert found["hooks"]["Stop"][0] == {"hooks": [{"type": "command", "command": "say done"}]}
    ours = {
        event: [group for group in groups if group != found["hooks"]["Stop"][0]]
        for event, groups in found["hooks"].items()
    }
    assert ours == plugin.hooks(OUR_PROGRAM)


def test_hooks_of_another_installation_are_replaced_and_changed_ones_kept(user: User) -> None:
    user.meshctl("install", "claude", "--yes")
    path = user.home / ".claude" / "settings.json"
    text = path.read_text()
    changed = text.replace('"timeout": 10', '"timeout": 20')
    path.write_text(changed)
    assert user.meshctl("install", "claude").startswith("already installed")
    path.write_text(changed.replace(OUR_PROGRAM, "/old/meshctl"))
    user.meshctl("install", "claude", "--yes")
    assert path.read_text() == text


def test_a_hook_of_ours_in_a_group_of_the_users_goes_alone(user: User) -> None:
    mine = {"type": "command", "command": "say 'meshctl hook'"}
    ours = {"type": "command", "command": "'/o l d/meshctl' hook -"}
    group = {"matcher": "Bash", "hooks": [mine, ours]}
    path = user.file(".claude/settings.json", json.dumps({"hooks": {"PostToolUse": [group, {"hooks": [ours]}]}}))
    user.meshctl("uninstall", "claude", "--yes")
    assert json.loads(path.read_text()) == {"hooks": {"PostToolUse": [{"matcher": "Bash", "hooks": [mine]}]}}


@pytest.mark.parametrize(
    "hooks", ['"x"', "[]", '{"Stop": 1}', '{"Stop": ["x"]}', '{"Stop": [{"hooks": {}}]}', '{"Stop": [{"hooks": "x"}]}']
)
def test_hooks_that_are_built_otherwise_are_left_alone(user: User, hooks: str) -> None:
    path = user.file(".claude/settings.json", f'{{"hooks": {hooks}}}')
    for command in ("install", "uninstall"):
        assert f"{path} cannot be edited" in user.refused(command, "claude", "--yes")


def test_hooks_that_are_no_commands_are_somebody_elses(user: User) -> None:
    odd = [None, 1, {}, {"command": 1}, {"command": "'unclosed"}, {"type": "http", "url": "x"}, {"command": ""}]
    path = user.file(".claude/settings.json", json.dumps({"hooks": {"Stop": [{"hooks": odd}]}}))
    text = path.read_text()
    user.meshctl("install", "claude", "--yes")
    user.meshctl("uninstall", "claude", "--yes")
    assert path.read_text() == text


def test_tools_are_allowed_only_when_asked_for(settled: User) -> None:
    shown = settled.meshctl("install", "claude", "--yes")
    assert '"mcp__agent-mesh" to permissions.allow in ' in shown
    assert settings(settled)["permissions"]["allow"] == ["Bash(ls)"]
    settled.meshctl("install", "claude", "--yes", "--allow-tools")
    assert settings(settled)["permissions"]["allow"] == ["Bash(ls)", "mcp__agent-mesh"]
    assert settled.meshctl("install", "claude", "--allow-tools").startswith("already installed")


def test_a_plugin_needs_the_program_to_go(user: User) -> None:
    user.file(".claude/settings.json", '{"enabledPlugins": {"agent-mesh@agent-mesh": true}}')
    assert "put claude on PATH" in user.refused("uninstall", "claude", "--yes")


# --- clients that fail ---


def test_a_command_of_the_client_that_fails_is_shown_with_its_words(user: User) -> None:
    user.file(".gemini/settings.json", '{"a": 1}')
    user.has("gemini", 'echo "no \033[31mway" >&2; exit 3')
    said = user.refused("install", "gemini", "--yes")
    assert "failed with exit code 3:\nno \\e[31mway\n" in said


def test_a_command_that_says_well_done_and_did_nothing_is_found_out(user: User) -> None:
    user.has("gemini", "exit 0")
    said = user.refused("install", "gemini", "--yes")
    assert "every step ended well, and yet this is still to be done: " in said


def test_the_steps_before_the_one_that_failed_are_told(user: User) -> None:
    user.has("claude", "exit 1")
    done = user.run("install", "claude", "--yes", "--json")
    assert done.returncode == 1
    [step] = json.loads(done.stdout)["error"]["data"]["steps"]
    assert (step["kind"], step["what"]) == ("write", f"{user.home}/.local/share/agent-mesh/claude-plugin")


def test_a_client_is_run_with_its_files_copied_before(user: User) -> None:
    """And without a terminal: a question of its own would wait for ever."""
    path = user.file(".gemini/settings.json", '{"a": 1}')
    servers = json.dumps({"a": 2, "mcpServers": {"agent-mesh": {"command": OUR_PROGRAM, "args": ["mcp"]}}})
    user.has("gemini", f"read answer; echo '{servers}' > {path}; echo \"$@\" > {user.home}/arguments")
    shown = user.meshctl("install", "gemini", "--yes")
    [copy] = user.backups()
    assert copy.read_text() == '{"a": 1}'
    assert f"  backup: {copy}\n" in shown
    assert (user.home / "arguments").read_text() == f"mcp add -s user agent-mesh {OUR_PROGRAM} mcp\n"


def test_a_program_that_cannot_be_run_is_named(user: User) -> None:
    path = user.bin / "gemini"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    assert f"cannot run {path}: No such file or directory" in user.refused("install", "gemini", "--yes")


def test_an_interrupt_between_steps_says_how_to_go_on(user: User) -> None:
    """The first command of the client interrupts us, as ^C at a terminal would."""
    user.has("claude", "kill -INT $PPID; sleep 1")
    done = user.run("install", "claude", "--yes")
    assert done.returncode == 130
    assert "interrupted after 1 of 3 steps\n  next: repeat the command, it goes on there\n" in done.stderr
    assert os.path.exists(user.home / ".local" / "share" / "agent-mesh" / "claude-plugin" / ".mcp.json")
