"""docker/compose.yml and docker/setup: what refers to what, who can reach what, and where the secrets are."""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from meshd.control import cli
from meshd.settings import ENVIRONMENT_ONLY, Settings
from tests.docker.secrets_made import DOCKER, setup

yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed: tests/run installs it")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
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
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for name in service.get("depends_on", {}):
        assert "healthcheck" in SERVICES[name] or SERVICES[name]["image"] == "agent-mesh"
    if "build" in service:
        context = DOCKER / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()


@each_service
def test_it_may_do_no_more_than_it_must(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "the mesh must not be open to the network"
    if "build" not in service:  # ours is built here
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
