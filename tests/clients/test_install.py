"""`meshctl install` and `uninstall` with the real Claude Code, Codex and Gemini CLI, each in a new home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshctl.install import plugin
from tests.clients.messages_api import Answer, Call, MessagesApi, Request
from tests.helper import Home, a_home, wait_until

pytestmark = pytest.mark.timeout(300)  # each command of a client starts a whole runtime

MODULES = Path(__file__).parent / "node_modules"
NATIVE = {"claude": MODULES / "@anthropic-ai" / "claude-code-linux-x64" / "claude"}
OUR_PROGRAM = str(Path(sys.executable).parent / "meshctl")
SHIPPED = Path(__file__).parents[2] / "packaging" / "claude-plugin"


def client(name: str) -> Path:
    """The client's program, or the test is skipped with the reason."""
    path = NATIVE.get(name, MODULES / ".bin" / name)
    if not path.exists():
        why = os.environ.get("AGENT_MESH_TESTS_NO_CLIENTS") or f"{name} is not installed: use tests/clients/run"
        pytest.skip(why)
    return path


class User:
    """A user with a new home and a project, and all clients on PATH. `home` has the daemon that a client starts."""

    def __init__(self, home: Home, project: Path, programs: Path) -> None:
        self.home = home
        self.project = project
        self.settings = home.path / ".claude" / "settings.json"
        self.copy = home.path / ".local" / "share" / "agent-mesh" / "claude-plugin"
        node = MODULES / ".bin"
        # From nothing: the variables of a session in which the tests themselves run would change a client's ways.
        self.env = {
            "HOME": str(home.path),
            "XDG_RUNTIME_DIR": home.env["XDG_RUNTIME_DIR"],
            "PATH": os.pathsep.join([str(programs), str(node), "/usr/local/bin", "/usr/bin", "/bin"]),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        }

    def run(self, *command: str) -> str:
        """What a program prints in the project's folder; it must succeed."""
        done = subprocess.run(
            command,
            env=self.env,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout}"
        return done.stdout

    def meshctl(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "meshctl", *arguments)

    def json(self, *command: str) -> Any:
        return json.loads(self.run(*command))

    def file(self, name: str, text: str) -> Path:
        path = self.home.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    programs, project = tmp_path / "bin", tmp_path / "project"
    programs.mkdir()
    project.mkdir()
    for name in ("claude", "codex", "gemini"):
        path = NATIVE.get(name, MODULES / ".bin" / name)
        if path.exists():
            (programs / name).symlink_to(path)
    with a_home(tmp_path / "home") as home:
        yield User(home, project, programs)


# --- Claude Code ---


@pytest.mark.parametrize("manifest", ["", *plugin.MANIFESTS])
def test_the_shipped_plugin_is_valid(user: User, manifest: str) -> None:
    client("claude")
    assert "Validation passed" in user.run("claude", "plugin", "validate", "--strict", str(SHIPPED / manifest))


def test_claude_has_the_plugin_and_reaches_its_server(user: User) -> None:
    """The installed copy is valid, enabled, read in place, and its server answers; the second time nothing is done."""
    client("claude")
    shown = user.meshctl("install", "claude", "--yes")
    assert '"mcp__plugin_agent-mesh_agent-mesh" to permissions.allow in ' in shown
    assert "Restart running sessions of Claude Code" in shown
    assert "Validation passed" in user.run("claude", "plugin", "validate", "--strict", str(user.copy))
    [found] = user.json("claude", "plugin", "list", "--json")
    assert (found["id"], found["scope"], found["enabled"]) == (plugin.ID, "user", True)
    assert found["readFromFolder"] == str(user.copy)
    assert found["mcpServers"] == {"agent-mesh": {"command": OUR_PROGRAM, "args": ["mcp"]}}
    assert f"plugin:agent-mesh:agent-mesh: {OUR_PROGRAM} mcp - ✔ Connected" in user.run("claude", "mcp", "list")
    assert "Connected" in user.run("claude", "mcp", "get", "plugin:agent-mesh:agent-mesh")
    before = user.settings.read_bytes()
    assert user.meshctl("install", "claude") == "already installed for Claude Code\n"
    assert user.settings.read_bytes() == before


def test_uninstalled_claudes_settings_say_what_they_said(user: User) -> None:
    """Claude Code puts them into an order of its own; a link stays a link."""
    client("claude")
    text = '{\n  "model": "opus",\n  "permissions": {\n    "allow": [\n      "Bash(ls)"\n    ]\n  }\n}\n'
    real = user.file("dotfiles/claude.json", text)
    user.settings.parent.mkdir()
    user.settings.symlink_to(real)
    user.meshctl("install", "claude", "--yes", "--allow-tools")
    assert json.loads(real.read_text())["permissions"]["allow"] == ["Bash(ls)", "mcp__plugin_agent-mesh_agent-mesh"]
    user.meshctl("uninstall", "claude", "--yes")
    assert user.settings.is_symlink()
    assert json.loads(real.read_text()) == json.loads(text)
    assert user.json("claude", "plugin", "list", "--json") == []
    assert user.json("claude", "plugin", "marketplace", "list", "--json") == []
    assert not user.copy.exists()
    assert user.meshctl("uninstall", "claude") == "not installed for Claude Code\n"


def test_an_upgrade_writes_the_copy_again(user: User) -> None:
    """Claude Code reads the new one; nothing is installed a second time."""
    client("claude")
    user.meshctl("install", "claude", "--yes")
    server = user.copy / plugin.MCP
    server.write_text(server.read_text().replace(OUR_PROGRAM, "/old/meshctl"))
    shown = user.meshctl("install", "claude", "--yes")
    assert f"wrote: {user.copy}\n  + .mcp.json\nran: " in shown
    assert "plugin install" not in shown
    [found] = user.json("claude", "plugin", "list", "--json")
    assert found["mcpServers"]["agent-mesh"]["command"] == OUR_PROGRAM


def test_claude_takes_a_project_for_itself(user: User, tmp_path: Path) -> None:
    """Two projects have the plugin; one can give it up, and the other keeps it."""
    client("claude")
    one, two = user.project, tmp_path / "two"
    two.mkdir()
    for user.project in (one, two):
        user.meshctl("install", "claude", "--yes", "--project")
        assert json.loads((user.project / ".claude" / "settings.json").read_text())["enabledPlugins"] == {
            plugin.ID: True
        }
        assert user.meshctl("install", "claude", "--project").startswith("already installed")
    assert not user.settings.exists()
    user.project = one
    user.meshctl("uninstall", "claude", "--yes", "--project")
    assert not (one / ".claude" / "settings.json").exists()
    user.project = two
    [found] = user.json("claude", "plugin", "list", "--json")
    assert (found["scope"], found["enabled"], found["projectPath"]) == ("project", True, str(two))
    assert user.meshctl("install", "claude", "--project").startswith("already installed")
    user.meshctl("uninstall", "claude", "--yes", "--project")
    assert not user.copy.exists()


def test_the_plugin_takes_the_place_of_entries_in_the_files(user: User) -> None:
    """Installed where `claude` was not on PATH, or by 0.1: afterwards the server and the hooks are there once."""
    client("claude")
    path = user.env["PATH"]
    user.env["PATH"] = "/usr/bin:/bin"
    user.meshctl("install", "claude", "--yes")
    assert json.loads((user.home.path / ".claude.json").read_text())["mcpServers"]["agent-mesh"]
    user.env["PATH"] = path
    assert f"agent-mesh: {OUR_PROGRAM} mcp - ✔ Connected" in user.run("claude", "mcp", "list")
    user.meshctl("install", "claude", "--yes")
    assert "hooks" not in json.loads(user.settings.read_text())
    assert user.run("claude", "mcp", "list").count("agent-mesh:agent-mesh: ") == 1
    assert "mcpServers" not in json.loads((user.home.path / ".claude.json").read_text())


def test_a_session_without_a_user_runs_a_tool_and_ends(user: User, api: MessagesApi) -> None:
    """No rule but the one of --allow-tools; `claude -p` ends only when every hook has, so none may wait."""
    client("claude")

    def model(request: Request) -> Answer:
        return request.results[0].text if request.results else Call(request.tool("mesh_who"), {})

    api.script = model
    user.env |= {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "sk-ant-api03-no-account-behind-this-key"}
    user.meshctl("install", "claude", "--yes", "--allow-tools")
    user.meshctl("register", "bob")
    assert '"agent":"bob"' in user.run("claude", "-p", "who is there?")


# --- Codex ---

CODEX = '# mine\r\nmodel = "x" # best\r\n\r\n[mcp_servers.other] # keep\r\ncommand = "x"\r\n'


def test_codex_has_the_server(user: User) -> None:
    client("codex")
    path = user.file(".codex/config.toml", CODEX)
    path.chmod(0o640)
    user.meshctl("install", "codex", "--yes", "--allow-tools")
    found = user.run("codex", "mcp", "get", "agent-mesh", "--json")
    transport = json.loads(found[found.index("{") :])["transport"]  # a warning may stand before it
    assert (transport["type"], transport["command"], transport["args"]) == ("stdio", OUR_PROGRAM, ["mcp"])
    assert {"AGENT_MESH_NAME", "XDG_RUNTIME_DIR"} <= set(transport["env_vars"])
    assert "default_tools_approval_mode: approve" in user.run("codex", "mcp", "get", "agent-mesh")
    assert "agent-mesh" in user.run("codex", "mcp", "list")
    assert user.meshctl("install", "codex") == "already installed for Codex\n"
    user.meshctl("uninstall", "codex", "--yes")
    assert (path.read_bytes().decode(), path.stat().st_mode & 0o777) == (CODEX, 0o640)


def test_codex_takes_a_trusted_project_for_itself(user: User) -> None:
    client("codex")
    config = user.file(".codex/config.toml", f'[projects."{user.project}"]\ntrust_level = "trusted"\n')
    before = config.read_bytes()
    user.meshctl("install", "codex", "--yes", "--project")
    assert OUR_PROGRAM in user.run("codex", "mcp", "list")
    assert config.read_bytes() == before
    user.meshctl("uninstall", "codex", "--yes", "--project")
    assert list(user.project.iterdir()) == []


def test_what_codex_itself_added_is_ours_to_change_and_to_remove(user: User) -> None:
    client("codex")
    path = user.file(".codex/config.toml", "# mine\n")
    user.run("codex", "mcp", "add", "agent-mesh", "--env", "A=b", "--", "/old/bin/agent-mesh", "serve")
    user.meshctl("install", "codex", "--yes")
    found = user.run("codex", "mcp", "get", "agent-mesh", "--json")
    transport = json.loads(found[found.index("{") :])["transport"]
    assert (transport["command"], transport["args"], transport["env"]) == (OUR_PROGRAM, ["mcp"], {"A": "b"})
    user.meshctl("uninstall", "codex", "--yes")
    assert path.read_text() == "# mine\n"


# --- Gemini CLI ---


@pytest.mark.parametrize("project", [False, True])
def test_gemini_has_the_server_and_reaches_it(user: User, project: bool) -> None:
    client("gemini")
    options = ["--project"] if project else []
    path = (user.project if project else user.home.path) / ".gemini" / "settings.json"
    path.parent.mkdir()
    text = '{\n  // mine\n  "ui": {\n    "theme": "x"\n  }\n}'
    path.write_text(text)
    user.meshctl("install", "gemini", "--yes", *options)
    user.meshctl("up")  # Gemini CLI gives a server five seconds
    connected = f"✓ agent-mesh: {OUR_PROGRAM} mcp (stdio) - Connected"
    wait_until(lambda: connected in user.run("gemini", "mcp", "list"), "it is connected", 90)
    assert user.meshctl("install", "gemini", *options).startswith("already installed")
    user.meshctl("uninstall", "gemini", "--yes", *options)
    assert "agent-mesh" not in user.run("gemini", "mcp", "list")
    assert path.read_text() == text


def test_gemini_trusts_the_tools_only_when_asked_for(user: User) -> None:
    client("gemini")
    path = user.home.path / ".gemini" / "settings.json"
    user.meshctl("install", "gemini", "--yes")
    assert json.loads(path.read_text())["mcpServers"]["agent-mesh"] == {"command": OUR_PROGRAM, "args": ["mcp"]}
    user.meshctl("uninstall", "gemini", "--yes")
    assert not path.exists()
    user.meshctl("install", "gemini", "--yes", "--allow-tools")
    assert json.loads(path.read_text())["mcpServers"]["agent-mesh"]["trust"] is True


@pytest.mark.parametrize("name", ["claude", "codex", "gemini"])
def test_print_runs_nothing_of_the_client(user: User, name: str) -> None:
    """Even a look with a client's own command would leave files."""
    client(name)
    shown = user.meshctl("install", name, "--print")
    assert shown.endswith("nothing was changed\n")
    assert list(user.home.path.iterdir()) == []
    assert list(user.project.iterdir()) == []


def test_the_programs_are_the_real_ones(user: User) -> None:
    """So that no test above can pass because of another program of that name."""
    for name in ("claude", "codex", "gemini"):
        found = shutil.which(name, path=user.env["PATH"])
        assert found is None or os.path.realpath(found) == os.path.realpath(client(name))
