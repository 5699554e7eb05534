"""Who may import whom, with the reason of each rule; and what a client's process must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper import Home
from tests.shim.client import Client, a_session

ROOT = Path(__file__).parent.parent / "meshd"

# Each room of the house and its floor: a room imports from its own floor's room and from lower floors only.
FLOORS: dict[str, int] = {
    "errors": 0,
    "paths": 0,
    "core": 1,
    "settings": 2,
    "disk": 2,
    "system": 2,
    "observing": 2,
    "store": 3,
    "sending": 4,
    "waking": 4,
    "receiving": 5,
    "hosting": 7,
    "service": 6,
    "commands": 8,
    "control": 9,
    "mcp": 9,
    "__main__": 10,
}
WHY_DOWN = (
    "imports go down only (control, mcp → commands → hosting → receiving, sending → store, disk → core): "
    "what decides must be testable without what executes, and a circle can be taken apart by nobody"
)
WHY_CORE = (
    "core decides and does no I/O: time comes in as an argument and effects go out as values, "
    "so that any history can be replayed in a test without a store, a clock or a disk"
)
WHY_STORE = "store is the only room that imports redis: so there is one place for its retries, timeouts and errors"
WHY_SDK = (
    "mcp is the only room that imports the MCP SDK, and a process of its own: the SDK costs a second and more memory "
    "than all the rest, which neither the daemon, through which each message goes, nor any client is to pay"
)
WHY_BACKGROUND = (
    "a task is started by meshd/observing/background.py: it has a name there, and what ends it is logged; the error of "
    "a bare task is told to nobody, and the task itself may vanish while it runs"
)
WHY_CLOCK = (
    "wall time and monotonic time are told apart by type (meshd/core/clock.py): where a moment comes from "
    "time.time() it is a bare float, and nobody notices when it is compared with the other clock's"
)
WHY_NO_CIRCLE = (
    "no module imports another that leads back to it, inside a function neither: modules in a circle can be "
    "understood, tested and moved only together"
)
WHY_PATHS = "every meshctl imports meshd.paths and pays for what it loads: the standard library's os and sys only"

NO_IO = {
    "asyncio", "redis", "socket", "ssl", "select", "selectors", "subprocess", "threading", "multiprocessing", "os",
    "io", "pathlib", "shutil", "tempfile", "signal", "logging", "time", "datetime", "fcntl", "mmap", "sqlite3",
    "urllib", "http", "concurrent", "platformdirs", "importlib", "sys", "glob", "builtins",
}  # fmt: skip
SDK = {"mcp", "mcp_types", "anyio", "pydantic", "pydantic_core", "starlette", "uvicorn", "httpx2", "sse_starlette"}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The folder below meshd, or the module's own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, everywhere: bool = True, types: bool = True) -> Iterator[tuple[int, str]]:
    """Line and full name of each import.

    Those inside functions too, if `everywhere`; and those below `if TYPE_CHECKING`, if `types`.
    """
    tree = ast.parse(path.read_text())
    unloaded = {
        part
        for node in ast.walk(tree)
        if not types and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for part in ast.walk(statement)
    }
    for node in ast.walk(tree) if everywhere else tree.body:
        if node in unloaded:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides which room it reaches into"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def broken(rule: str, where: list[str]) -> str:
    return "\n".join([*where, f"reason of the rule: {rule}"])


def test_every_module_has_its_floor() -> None:
    """A new folder or module must be given its place here, or nothing is checked for it."""
    assert {room(path) for path in modules()} - {"__init__"} <= set(FLOORS)


def test_imports_go_down_only() -> None:
    wrong = []
    for path in modules():
        here = room(path)
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] == "meshd" and len(parts) > 1 and parts[1] in FLOORS and here in FLOORS:
                there = parts[1]
                if there != here and FLOORS[there] >= FLOORS[here]:
                    wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {there}")
            elif parts[0] in ("meshctl", "tests"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: the daemon imports {parts[0]}")
    assert not wrong, broken(WHY_DOWN, wrong)


def test_core_does_no_io() -> None:
    wrong = []
    for path in modules():
        if room(path) != "core":
            continue
        for line, name in imports(path):
            if name.split(".")[0] in NO_IO or (
                name.startswith("meshd.") and name.split(".")[1] not in ("core", "errors")
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: imports {name}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: calls {node.func.id}()")
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: reads the environment")
    assert not wrong, broken(WHY_CORE, wrong)


def test_only_the_store_s_room_imports_redis() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in modules()
        for line, name in imports(path)
        if name.split(".")[0] in ("redis", "hiredis") and room(path) != "store"
    ]
    assert not wrong, broken(WHY_STORE, wrong)


def test_only_mcp_s_room_imports_the_sdk() -> None:
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: imports {name}"
        for path in [*modules(), *sorted((ROOT.parent / "meshctl").rglob("*.py"))]
        for line, name in imports(path)
        if name.split(".")[0] in SDK and not path.is_relative_to(ROOT / "mcp")
    ]
    assert not wrong, broken(WHY_SDK, wrong)


def test_tasks_are_started_in_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: calls {node.func.attr}()"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("create_task", "ensure_future")
        and path.name != "background.py"
    ]
    assert not wrong, broken(WHY_BACKGROUND, wrong)


def test_the_clock_is_read_in_one_place() -> None:
    """Above the floors that have no clock of their own: there a moment has the type of the clock that it is from."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: calls time.{node.func.attr}()"
        for path in modules()
        if FLOORS.get(room(path), 0) >= FLOORS["store"] and room(path) not in ("service", "control", "mcp", "__main__")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "time"
        and node.func.attr in ("time", "monotonic")
    ]
    assert not wrong, broken(WHY_CLOCK, wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """`if TYPE_CHECKING` does not count, for nothing is loaded by it; an import inside a function does."""
    files = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for package in (ROOT, ROOT.parent / "meshctl")
        for path in sorted(package.rglob("*.py"))
    }
    leads = {name: set(imported(name, path, files)) for name, path in files.items()}
    # Whoever is led to by none of those that are left, or leads to none of them, is in no circle.
    left = set(leads)
    while out := {name for name in left if not leads[name] & left or not any(name in leads[n] for n in left)}:
        left -= out
    circles = [f"{name} imports {', '.join(sorted(leads[name] & left))}" for name in sorted(left)]
    assert not circles, broken(WHY_NO_CIRCLE, circles)


def imported(module: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that it loads; not the package that it is in."""
    for _, name in imports(path, types=False):
        while name and name not in files:
            name = name.rpartition(".")[0]
        if name and name != module and not module.startswith(f"{name}."):
            yield name


def test_paths_costs_nothing() -> None:
    loaded = {name.split(".")[0] for _, name in imports(ROOT / "paths.py", everywhere=False)}
    assert loaded <= {"os", "sys"}, broken(WHY_PATHS, sorted(loaded))


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import asyncio", test_core_does_no_io),
        ("from os import environ", test_core_does_no_io),
        ("from meshd.store.link import Link", test_core_does_no_io),
        ("def f():\n    import redis", test_only_the_store_s_room_imports_redis),
        ("def f():\n    from mcp.types import Tool", test_only_mcp_s_room_imports_the_sdk),
        ("from meshd.receiving.agent import Agent", test_imports_go_down_only),
        ("from meshd import receiving", test_imports_go_down_only),
    ],
)
def test_a_broken_rule_is_found_and_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, rule: object
) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "bad.py").write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert callable(rule)
    with pytest.raises(AssertionError, match="reason of the rule"):
        rule()


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"meshd/a.py": "from meshd import b", "meshd/b.py": "import meshd.a"}, True),
        ({"meshd/a.py": "import meshd.b", "meshd/b.py": "def f():\n    from meshd.a import x"}, True),
        (
            {
                "meshd/a.py": "from meshd.b import c",
                "meshd/b/c.py": "from meshctl.d import e",
                "meshctl/d.py": "from meshd import a",
            },
            True,
        ),
        ({"meshd/a.py": "import meshd.b", "meshd/b.py": "if TYPE_CHECKING:\n    from meshd.a import x"}, False),
        ({"meshd/a.py": "import meshd.b", "meshd/b.py": "", "meshctl/c.py": "from meshd import a, b"}, False),
    ],
    ids=["two", "in a function", "three", "types only", "none"],
)
def test_a_circle_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], circle: bool
) -> None:
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "meshd")
    if circle:
        with pytest.raises(AssertionError, match="reason of the rule"):
            test_no_modules_import_each_other_in_a_circle()
    else:
        test_no_modules_import_each_other_in_a_circle()


# --- the client's fast path ---

WHY_FAST = (
    "a call of meshctl must cost what starting an interpreter costs: each of these modules is worth "
    "milliseconds in every call; what needs them belongs into the daemon, or into meshctl.commands.dispatch"
)
HEAVY = {
    "asyncio", "msgspec", "redis", "json", "re", "argparse", "socket", "typing", "subprocess", "contextlib", "pathlib",
    "enum", "selectors", "logging", "platformdirs", "tempfile", "functools", "collections", "dataclasses", "hashlib",
}  # fmt: skip
OURS = {"_json", "_socket", "meshctl", "meshctl.__main__", "meshctl.client", "meshd", "meshd.paths"}
CALL = """
import sys
result = sys.argv[1]
sys.argv[1:] = {arguments!r}
from meshctl.__main__ import main
code = main()
open(result, "w").write("\\n".join(sys.modules))
raise SystemExit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [["send", "bob", "hi", "--from", "alice"], ["inbox", "bob"], ["who", "--json"], ["inbox", "no such name"]],
    ids=["send", "inbox", "who", "usage error"],
)
def test_a_call_of_the_client_loads_nothing_that_costs(home: Home, arguments: list[str]) -> None:
    """Against a daemon that runs: only two C modules and our own three files, beyond what `site` has loaded."""
    home.start()
    bare = modules_of(home, "import sys; open(sys.argv[1], 'w').write('\\n'.join(sys.modules))", 0)
    loaded = modules_of(home, CALL.format(arguments=arguments), 2 if "no such name" in arguments else 0) - bare
    costly = sorted(HEAVY & {name.split(".")[0] for name in loaded})
    assert not costly, broken(WHY_FAST, costly)
    assert loaded <= OURS, broken(WHY_FAST, sorted(loaded - OURS))


@pytest.mark.parametrize(
    ("arguments", "own"),
    [(["version"], {"version"}), (["path"], {"path"}), (["path", "notify", "bob"], {"path"}), (["--help"], set()),
     (["send", "--help"], set()), (["help", "send"], set())],
    ids=" ".join,
)  # fmt: skip
def test_what_is_answered_without_a_parser_loads_nothing_that_costs(
    home: Home, arguments: list[str], own: set[str]
) -> None:
    bare = modules_of(home, "import sys; open(sys.argv[1], 'w').write('\\n'.join(sys.modules))", 0)
    loaded = modules_of(home, CALL.format(arguments=arguments), 0) - bare
    ours = OURS | {"meshctl.commands", "meshctl.commands.direct"} | {f"meshctl.commands.{name}" for name in own}
    assert loaded <= ours, broken(WHY_FAST, sorted(loaded - ours))


WHY_TOMLKIT = "tomlkit takes longer to load than a daemon to answer: only install, uninstall and doctor edit TOML"


def test_starting_the_daemon_loads_no_editor_of_toml(home: Home) -> None:
    """Each command that finds no daemon asks the service, which shares the writing of files with `install`."""
    loaded = modules_of(home, CALL.format(arguments=["up"]), 0)
    assert "meshctl.service.here" in loaded
    assert "tomlkit" not in loaded, broken(WHY_TOMLKIT, [])


def modules_of(home: Home, code: str, expected: int) -> set[str]:
    """All modules that are loaded after this code has run, which writes them into the file that it is given."""
    result = home.path / "modules"
    env = {k: v for k, v in home.env.items() if not k.startswith(("PYTHON", "COV"))}
    command = [sys.executable, "-c", code, str(result)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == expected, done.stdout + done.stderr
    return set(result.read_text().split("\n"))


# --- the shim that each session of a client keeps ---

WHY_LIGHT = (
    "each session of each client holds a shim for as long as it lives, and waits for it to begin: "
    "what needs more belongs into the gateway, which all of them share"
)
SHIM = OURS | {
    "meshctl.shim", "meshctl.shim.reaching", "meshctl.shim.unanswered", "meshctl.inbox_socket",
    "select",  # it is C
}  # fmt: skip
MOST_MEMORY = 2 * 1024  # KiB, beyond what an interpreter that does nothing takes
SESSION = """
import sys
result = sys.argv[1]
sys.argv[1:] = ["mcp"]
from meshctl.__main__ import main
code = main()
open(result, "w").write("\\n".join(sys.modules))
raise SystemExit(code)
"""


@pytest.fixture
def shim(mesh: Home, tmp_path: Path, name: str) -> Iterator[Client]:
    """A session that has been in use. At its end it writes down what it has loaded."""
    # Python's own switches in our environment load modules, too.
    command = ("env", "-u", "PYTHONWARNINGS", sys.executable, "-c", SESSION, str(tmp_path / "loaded"))
    with a_session(mesh, tmp_path / name, command=command) as client:
        client.result(client.request("tools/list"))
        client.ok("mesh_send", to=name, message="hello")
        assert client.texts() == ["hello"]
        yield client


def test_a_session_loads_nothing_that_costs(mesh: Home, shim: Client, tmp_path: Path) -> None:
    assert shim.end() == 0
    bare = modules_of(mesh, "import sys; open(sys.argv[1], 'w').write('\\n'.join(sys.modules))", 0)
    loaded = set((tmp_path / "loaded").read_text().split("\n")) - bare
    assert "meshctl.shim" in loaded
    costly = sorted((HEAVY | SDK | {"signal"}) & {name.split(".")[0] for name in loaded})
    assert not costly, broken(WHY_LIGHT, costly)
    assert loaded <= SHIM, broken(WHY_LIGHT, sorted(loaded - SHIM))


def test_a_session_costs_little_memory(shim: Client) -> None:
    """Beyond what this interpreter takes to do nothing, which is another number in each version."""

    idle = [sys.executable, "-I", "-S", "-c", "import os; os.write(1, b'.'); os.read(0, 1)"]
    with subprocess.Popen(idle, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bare:
        assert bare.stdout is not None
        assert bare.stdout.read(1) == b"."
        floor = own_memory(bare.pid)
        bare.communicate(b".")
    more = own_memory(shim.process.pid) - floor
    assert more <= MOST_MEMORY, broken(WHY_LIGHT, [f"{more} KiB more than the {floor} of a bare interpreter"])


def own_memory(pid: int) -> int:
    """KiB that are this process's alone: how much of Python's own files is in memory is no cost of one session."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")))
