"""docker/Dockerfile: linted, and its steps carried out without an engine."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshd import __version__
from tests.docker.dockerfile import Image, context, steps
from tests.docker.secrets_made import DOCKER, setup
from tests.docker.test_compose import SERVICES
from tests.helper import free_port
from tests.packaging.building import ROOT
from tests.packaging.changed_root import mounting

FILE = DOCKER / "Dockerfile"


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint") or shutil.which("hadolint", path=os.path.dirname(sys.executable))
    if program is None:
        pytest.skip("hadolint is not installed: tests/run installs it")
    done = subprocess.run([program, FILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_nothing_but_the_base_image_comes_from_a_registry() -> None:
    """A frontend would be one more image that builds ours, from wherever its tag points: ours needs none."""
    assert not re.search(r"^#\s*syntax\s*=", FILE.read_text(), re.MULTILINE | re.IGNORECASE)
    bases = {rest.split()[0] for instruction, rest in steps(FILE.read_text()) if instruction == "FROM"}
    assert bases == {"python:${PYTHON}"}


def test_the_context_holds_no_secret_and_all_that_is_copied(tmp_path: Path) -> None:
    sent = context(tmp_path / "context", ROOT, DOCKER / "Dockerfile.dockerignore")
    assert not (sent / "docker").exists()
    for instruction, rest in steps(FILE.read_text()):
        if instruction == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (sent / source).exists()


def test_the_last_stage_holds_no_builder() -> None:
    last = FILE.read_text().rpartition("\nFROM ")[2]
    assert "apt-get" not in last
    assert "pip install" not in last
    assert "pip uninstall" in last


RUN = """
check "$W/{stage}/root"
{demo} > "$W/demo" || {{ cat "$W/demo"; exit 1; }}
mount -o remount,ro "$W/{stage}/root"
for folder in {volumes}; do
    # An empty volume is given the owner and the mode that the folder has in the image.
    owner=$(stat -c %u:%g "$W/{stage}/root$folder") mode=$(stat -c %a "$W/{stage}/root$folder")
    mount -t tmpfs -o "mode=$mode" none "$W/{stage}/root$folder"
    chown "$owner" "$W/{stage}/root$folder"
done
{daemon} 2> "$W/log" & daemon=$!
trap 'kill -9 $daemon; cat "$W/log"' EXIT
healthy {health}
{version}
{register}
{send}
{inbox}
{write} 2> /dev/null && exit 1
{mcp} > "$W/mcp" 2>&1 & mcp=$!
healthy {mcp_health}
kill $mcp; wait $mcp; echo "mcp ended with $?"
kill $daemon; wait $daemon; echo "meshd ended with $?"
trap - EXIT
"""
FUNCTIONS = """
set -eu
W=$1 PYTHON=$2
mount -t tmpfs -o mode=755 none "$W"
check() { ! chroot "$1" /opt/base/bin/python -m pip --version 2> /dev/null; }
healthy() {
    for k in $(seq 100); do "$@" > "$W/health" 2>&1 && return; sleep 0.1; done
    cat "$W/health"
    exit 1
}
"""


@pytest.mark.timeout(600)
def test_its_steps_make_a_daemon_that_runs_on_a_read_only_root(tmp_path: Path) -> None:
    """As the image's user, with nothing but its volumes to write to; then MCP beside it, as in the compose file."""
    if os.getuid() != 0:
        pytest.skip("only root may become the image's user")
    tmp_path.chmod(0o755)
    (tmp_path / "root").mkdir()
    mount = mounting(tmp_path / "root")
    image = Image(FILE, context(tmp_path / "context", ROOT, DOCKER / "Dockerfile.dockerignore"))
    port = str(free_port())
    mcp = SERVICES["mcp"]
    token = setup(tmp_path / "docker") / "http-token"
    given = {key: value for key, value in mcp["environment"].items() if not key.endswith("_FILE")}
    given["AGENT_MESH_HTTP_TOKEN"] = token.read_text()
    run = RUN.format(
        stage=image.stage,
        volumes=" ".join(image.volumes),
        demo=image.inside(["meshctl", "demo"]),
        daemon=image.inside(image.command),
        health=image.inside(image.health),
        version=image.inside(["meshctl", "version"]),
        register=image.inside(["meshctl", "register", "bob"]),
        send=image.inside(["meshctl", "send", "bob", "hi", "--from", "alice"]),
        inbox=image.inside(["meshctl", "inbox", "bob"]),
        write=image.inside(["touch", "/tmp/x"]),
        mcp=image.inside([word.replace("8765", port) for word in mcp["command"]], **given),
        mcp_health=image.inside([word.replace("8765", port) for word in mcp["healthcheck"]["test"][1:]]),
    )
    script = FUNCTIONS + image.script + run
    python = os.path.realpath(sys.executable)
    done = subprocess.run([*mount, "sh", "-c", script, "sh", tmp_path / "root", python], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    said = done.stdout
    assert f"agent-mesh {__version__}\n" in said
    assert "[DIRECT from alice] hi\n" in said
    assert said.endswith("mcp ended with 0\nmeshd ended with 0\n")
    assert not processes_of(int(image.user.split(":")[0]))


def processes_of(user: int) -> list[str]:
    """The command lines of this user's processes; one that has ended and is not yet waited for has none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == user:
                found.append((folder / "cmdline").read_text())
    return [line for line in found if line]


def test_it_runs_as_nobody_who_owns_anything() -> None:
    image = Image(FILE, ROOT)
    assert image.user == "10001:10001"
    assert set(image.volumes) == {"/var/lib/agent-mesh", "/run/agent-mesh"}
    assert image.env["AGENT_MESH_SOCKET"].startswith("/run/agent-mesh/")
    for name in ("meshd", "mcp"):
        mounted = {volume.split(":")[1] for volume in SERVICES[name]["volumes"]}
        mounted |= {tmpfs.split(":")[0] for tmpfs in SERVICES[name].get("tmpfs", [])}
        assert mounted == set(image.volumes)
    assert shlex.join(image.command) == "meshd"
