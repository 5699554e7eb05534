"""The manual pages: complete, and rendered by the real programs without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import errors
from meshd.commands.arguments import arguments
from meshd.commands.table import COMMANDS, SHOWN
from meshd.mcp.http import address
from meshd.settings import Settings
from tests.packaging.building import ROOT, SHARED, files_below, part, run

PAGES = ["man1/meshctl.1", "man8/meshd.8", "man5/agent-mesh.toml.5", "man1/agent-mesh.1"]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    run(sys.executable, "packaging/generate.py", folder)
    return folder


def shown(share: Path, page: str, width: int = 400) -> str:
    """The page as `man` shows it. It must have no word of complaint."""
    if shutil.which("man") is None:
        pytest.skip("man is not installed: tests/run installs it")
    env = os.environ | {"MANWIDTH": str(width), "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANPATH": str(share / "man")}
    command = ["man", "--warnings", "-E", "UTF-8", "-P", "cat", "-l", str(share / "man" / page)]
    done = subprocess.run(command, env=env, cwd=share / "man", capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_all_files_are_made(share: Path) -> None:
    assert files_below(share) == SHARED


def test_the_same_sources_make_the_same_files(share: Path, tmp_path: Path) -> None:
    """From any folder, and where Python does not look for modules beside the script, as under pipx."""
    env = {"PYTHONHASHSEED": "1", "PYTHONSAFEPATH": "1"}
    run(sys.executable, ROOT / "packaging" / "generate.py", tmp_path, cwd=tmp_path, env=env)
    for name in SHARED:
        assert (tmp_path / name).read_bytes() == (share / name).read_bytes()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [64, 80, 200])
def test_man_renders_without_a_warning(share: Path, page: str, width: int) -> None:
    text = shown(share, page, width)
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"):
        assert f"\n{heading}\n" in text


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("device", ["utf8", "ascii", "ps"])
def test_groff_renders_without_a_warning(share: Path, page: str, device: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed: tests/run installs it")
    command = ["groff", "-man", "-s", "-ww", "-b", "-z", f"-T{device}", page]
    done = subprocess.run(command, cwd=share / "man", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_old_name_leads_to_the_same_page(share: Path) -> None:
    assert shown(share, PAGES[3]) == shown(share, PAGES[0])


def test_every_command_with_all_that_it_takes_is_told(share: Path) -> None:
    sections = re.split(r"\n   (?=\S)", shown(share, PAGES[0]))
    told = {section.split("\n")[0]: section for section in sections}
    assert not {name for name, command in COMMANDS.items() if command.hidden} & set(told)
    for name, command in SHOWN.items():
        assert command.example.replace("…", "...") in told[name]
        for argument in arguments(command):
            assert re.search(
                rf"^ +{re.escape(argument.flags[0] if argument.flags else argument.metavar)}", told[name], re.M
            )
            assert argument.help in told[name]


def test_every_setting_is_told(share: Path) -> None:
    text = shown(share, PAGES[2])
    for key in Settings.__struct_fields__:
        assert re.search(rf"^ +{key} \(", text, re.M)


@pytest.mark.parametrize("page", PAGES[:2])
def test_every_variable_is_told(share: Path, page: str) -> None:
    readme = (ROOT / "README.md").read_text()
    known = {*re.findall(r"`(AGENT_MESH_\w+)`", readme), address.TOKEN, address.TOKEN_FILE, address.HOSTS}
    assert known <= set(re.findall(r"AGENT_MESH_\w+", shown(share, page)))


def test_every_exit_code_is_told() -> None:
    def codes(error: type[errors.MeshError]) -> Iterator[int]:
        yield error.exit_code
        for kind in error.__subclasses__():
            yield from codes(kind)

    assert set(codes(errors.MeshError)) <= set(part("manual.prose").EXIT_CODES)


def test_the_daemon_s_options_are_those_that_it_takes() -> None:
    told = part("manual.pages").MESHD_OPTIONS
    help_text = run(sys.executable, "-m", "meshd", "--help")
    assert {option.split()[0] for option in told} == set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_text, re.M))


def test_files_are_where_the_page_says(tmp_path: Path) -> None:
    """With nothing set but HOME and XDG_RUNTIME_DIR."""
    if sys.platform != "linux":
        pytest.skip("the page tells Linux's places")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_MESH_", "XDG_"))}
    env = keep | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    code = (
        "from meshd import paths as p; print(p.config_file(), p.socket_path(), p.notify_log('NAME'),"
        " p.journal('x').removesuffix('x.journal'), p.store_dir() + '/', p.daemon_log(), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, cwd=ROOT)
    told = part("manual.prose").FILES
    places = [name.replace("~", str(tmp_path)).replace("$XDG_RUNTIME_DIR", f"{tmp_path}/run") for name in told]
    assert done.stdout.split() == places


@pytest.mark.parametrize(
    "text",
    [".not a macro", "'nor this", "a\\fBb", 'say "hi" and `ls`', "~/x ^ -- …", "\\", "--a-b", "x\\-y", "a.b", "\\&"],
)
def test_no_text_is_taken_for_a_macro(text: str, tmp_path: Path) -> None:
    roff = part("manual.roff")
    page = roff.Page("name", 1, "what", "0")
    page.heading("TEXT")
    page.example(text)
    page.item(roff.bold(text), text.replace("`", ""))
    (tmp_path / "page.1").write_text(page.text)
    (tmp_path / "man").mkdir()
    lines = [line.strip() for line in shown(tmp_path, "../page.1").splitlines()]
    plain = text.replace("…", "...")
    assert lines[lines.index("TEXT") + 1 :][:1] == [plain]
    assert plain.replace("`", "") in " ".join(lines[lines.index("TEXT") + 2 :])


def test_a_character_without_an_escape_is_an_error() -> None:
    with pytest.raises(ValueError, match="no escape"):
        part("manual.roff").escape("📨")
