"""docker/compose.yml and docker/setup: what refers to what, who can reach what, and where the secrets are."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from meshd.control import cli
from meshd.settings import ENVIRONMENT_ONLY, Settings
from tests.docker.secrets_made import DOCKER, copied, setup

yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed: tests/run installs it")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = "agent-mesh"
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_it_has_store_daemon_and_mcp() -> None:
    assert set(SERVICES) == {"redis", "meshd", "mcp"}


@each_service
def test_what_it_refers_to_is_there(service: dict[str, Any], tmp_path: Path) -> None:
    made = setup(tmp_path / "docker").parent
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (source.startswith("./") and (made / source).is_file())
    for secret in service["secrets"]:
        assert (made / COMPOSE["secrets"][secret]["file"]).is_file()
    assert set(service.get("depends_on", [])) <= set(SERVICES)
    if "build" in service:
        context = DOCKER / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()


def test_our_image_is_built_once_and_never_pulled() -> None:
    """Compose asks a registry first, else; and two builds at once of one name can make each other fail."""
    ours = [service for service in SERVICES.values() if service["image"] == OURS]
    assert [service["pull_policy"] for service in ours] == ["never"] * len(ours)
    assert sum("build" in service for service in ours) == 1


@each_service
def test_up_waits_for_its_health_and_not_for_long(service: dict[str, Any]) -> None:
    """`up --wait`: the first check comes after one interval, and a condition would add one interval to another."""
    assert service["healthcheck"]["interval"] == "10s"
    assert isinstance(service.get("depends_on", []), list)


def test_the_daemon_s_check_is_the_image_s() -> None:
    check = SERVICES["meshd"]["healthcheck"]["test"]
    assert check[0] == "CMD"
    assert f"CMD {json.dumps(check[1:])}\n" in (DOCKER / "Dockerfile").read_text()


@each_service
def test_it_may_do_no_more_than_it_must(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "the mesh must not be open to the network"
    if service["image"] != OURS:
        assert re.fullmatch(r"[a-z/]+:\d[\w.-]+", service["image"]), "a tag that moves makes another mesh each day"


@each_service
def test_secrets_come_as_files_only(service: dict[str, Any]) -> None:
    given = {f"/run/secrets/{name}" for name in service["secrets"]}
    for variable, value in service.get("environment", {}).items():
        assert variable.removeprefix("AGENT_MESH_").lower() in {*Settings.__struct_fields__, *ENVIRONMENT_ONLY}
        assert "@" not in value
        if variable.endswith("_FILE"):
            assert value in given
        assert not re.search(r"(URL|TOKEN|PASSWORD)$", variable)
    assert "secrets/redis-url" not in str(service.get("command")) + str(service.get("entrypoint"))


def test_nobody_is_given_a_secret_that_is_not_its_own() -> None:
    assert {name: service["secrets"] for name, service in SERVICES.items()} == {
        "redis": ["users.acl"],
        "meshd": ["redis-url"],
        "mcp": ["http-token"],
    }


def test_its_commands_are_understood() -> None:
    command = SERVICES["mcp"]["command"]
    assert command[0] == "meshctl"
    parsed = cli.parse(command[1:])
    assert isinstance(parsed, cli.Parsed)
    assert parsed.command.name == "serve"
    assert SERVICES["mcp"]["ports"][0].endswith(f":{command[command.index('--port') + 1]}")
    assert SERVICES["redis"]["entrypoint"][1] in {v.split(":")[1] for v in SERVICES["redis"]["volumes"]}


# --- setup ---


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_secrets_are_random_closed_and_kept(tmp_path: Path) -> None:
    first, other = setup(tmp_path / "one"), setup(tmp_path / "other")
    before = contents(first)
    assert set(before) == {"users.acl", "redis-url", "redis-url-host", "http-token"}
    assert not set(before.values()) & set(contents(other).values())
    assert contents(setup(tmp_path / "one")) == before
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in first.iterdir()} == {0o444}


def test_the_store_is_given_a_digest_of_the_password_that_the_daemons_are_given(tmp_path: Path) -> None:
    made = contents(setup(tmp_path / "docker", REDIS_PORT="7000"))
    inside = re.fullmatch(r"redis://mesh:([0-9a-f]{48})@redis:6379/0\n", made["redis-url"])
    outside = re.fullmatch(r"redis://mesh:([0-9a-f]{48})@127\.0\.0\.1:7000/0\n", made["redis-url-host"])
    assert inside
    assert outside
    assert inside[1] == outside[1]
    assert f"#{hashlib.sha256(inside[1].encode()).hexdigest()} " in made["users.acl"]
    assert inside[1] not in made["users.acl"]


def test_what_was_begun_and_not_finished_is_made_anew(tmp_path: Path) -> None:
    folder = setup(tmp_path / "docker")
    before = contents(folder)
    (folder / "users.acl").unlink()
    after = contents(setup(tmp_path / "docker"))
    assert after["redis-url"] != before["redis-url"]
    assert after["http-token"] == before["http-token"]
    password = after["redis-url"].split(":")[2].split("@")[0]
    assert hashlib.sha256(password.encode()).hexdigest() in after["users.acl"]


def test_what_cannot_be_made_at_random_is_not_made(tmp_path: Path) -> None:
    """Without the tool for it the password would be empty, and stay so."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "mkdir", "chmod", "rmdir", "cat", "mv", "sed", "cut", "tr"):
        give(tool, tools)
    copy = copied(tmp_path / "docker")
    for tool in ("od", "sha256sum"):
        done = subprocess.run([copy / "setup"], env={"PATH": str(tools)}, capture_output=True, text=True)
        assert done.returncode == 1
        assert f": is {tool} " in done.stderr
        assert "docker compose" not in done.stdout
        assert not contents(copy / "secrets")
        give(tool, tools)
    assert len(contents(setup(copy, PATH=str(tools)))) == 4


def give(tool: str, folder: Path) -> None:
    found = shutil.which(tool)
    assert found is not None
    (folder / tool).symlink_to(found)


def test_the_store_can_read_its_configuration_in_a_clone_that_is_closed(tmp_path: Path) -> None:
    """Compose hands it over with the mode that the file has here, as it does with a secret."""
    copy = copied(tmp_path / "docker")
    for path in copy.iterdir():
        path.chmod(0o700 if path.name == "setup" else 0o600)
    setup(copy)
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    for name in (name for name in mounted if name.startswith("./")):
        assert stat.S_IMODE((copy / name).stat().st_mode) & 0o444 == 0o444
    assert stat.S_IMODE((copy / "redis.acl").stat().st_mode) == 0o600


def test_what_it_says_can_be_typed_wherever_the_clone_is(tmp_path: Path) -> None:
    copy = copied(tmp_path / "my clones" / "docker")
    # A CDPATH has `cd` print where it went, or go elsewhere.
    (tmp_path / "other" / "docker").mkdir(parents=True)
    variables = os.environ | {"CDPATH": f"{tmp_path / 'other'}:.", "REDIS_PORT": "7000"}
    done = subprocess.run(["docker/setup"], cwd=copy.parent, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    up, export = (shlex.split(line) for line in done.stdout.splitlines() if line.startswith("    "))
    assert up[:5] == ["REDIS_PORT=7000", "docker", "compose", "-f", str(copy / "compose.yml")]
    assert export[1] == f"AGENT_MESH_REDIS_URL_FILE={copy / 'secrets' / 'redis-url-host'}"
    assert not (tmp_path / "other" / "docker" / "secrets").exists()


def test_another_port_changes_the_host_s_url_and_no_password(tmp_path: Path) -> None:
    before = contents(setup(tmp_path / "docker", REDIS_PORT=""))
    after = contents(setup(tmp_path / "docker", REDIS_PORT="7000"))
    assert after.pop("redis-url-host") == before.pop("redis-url-host").replace(":6379/", ":7000/")
    assert after == before
    assert ":7000/" in contents(setup(tmp_path / "docker", REDIS_PORT=""))["redis-url-host"]


def test_a_folder_that_an_engine_made_in_a_secret_s_place_is_replaced(tmp_path: Path) -> None:
    """Versions of Compose that mount by path alone make one, when the mesh is started before its secrets are there."""
    copy = copied(tmp_path / "docker")
    for secret in COMPOSE["secrets"].values():
        (copy / secret["file"]).mkdir(parents=True)
    assert all(contents(setup(copy)).values())
