"""The configuration: what is wrong is named, a variable wins, and a password is never told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd import settings
from meshd.errors import ConfigError
from meshd.settings import Settings
from meshd.store.endpoint import from_url
from meshd.store.redaction import redacted

SECRET = "hunter2"


def load(tmp_path: Path, text: str = "", **variables: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return settings.load({f"AGENT_MESH_{name.upper()}": value for name, value in variables.items()}, str(file))


def refusal(tmp_path: Path, text: str = "", **variables: str) -> str:
    """All that the error tells."""
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text, **variables)
    return f"{refused.value.message} {refused.value.hint} {refused.value.to_rpc()}"


def test_the_defaults_are_the_contract_s(tmp_path: Path) -> None:
    """SPEC.md, section 8; a file that is missing is no error."""
    assert settings.load({}, str(tmp_path / "none")) == Settings()
    got = Settings()
    assert (got.url, got.prefix, got.gate_enforce, got.gate_limit) == (None, "mesh", False, 40)
    assert (got.escalate_to, got.max_message) == ("watchdog", 65536)


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    """And what it does not say, the file says."""
    got = load(tmp_path, 'gate_limit = 7\nprefix = "a"\n', gate_limit="9")
    assert (got.gate_limit, got.prefix) == (9, "a")
    assert load(tmp_path, "gate_limit = 7", gate_limit="").gate_limit == 7


@pytest.mark.parametrize(("value", "meant"), [("1", True), ("0", False), ("true", True), ("false", False)])
def test_a_switch_in_the_environment(tmp_path: Path, value: str, meant: bool) -> None:
    assert load(tmp_path, gate_enforce=value).gate_enforce is meant


def test_an_empty_url_variable_switches_back_to_the_embedded_store(tmp_path: Path) -> None:
    assert load(tmp_path, 'redis_url = "redis://host"', redis_url="").url is None


@pytest.mark.parametrize(
    ("key", "near"),
    [("gate_limt", "gate_limit"), ("redis_ulr", "redis_url"), ("Prefix", "prefix"), ("escalate-to", "escalate_to")],
)
def test_a_typo_is_named_with_what_was_meant(tmp_path: Path, key: str, near: str) -> None:
    said = refusal(tmp_path, f'"{key}" = "{SECRET}"')
    assert repr(key) in said
    assert repr(near) in said
    assert "config.toml" in said
    assert SECRET not in said


@pytest.mark.parametrize("key", ["socket", "no_autostart"])
def test_what_only_the_environment_says_is_told_so(tmp_path: Path, key: str) -> None:
    assert f"AGENT_MESH_{key.upper()}" in refusal(tmp_path, f'{key} = "1"')


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('gate_limit = "many"', "gate_limit"),
        ("gate_limit = 0", "gate_limit"),
        ("gate_limit = 1.5", "gate_limit"),
        ("max_message = 0", "max_message"),
        ("max_message = 1048577", "max_message"),
        ('gate_enforce = "perhaps"', "gate_enforce"),
        ('escalate_to = "not a name"', "escalate_to"),
        ('name = "b b"', "name"),
        ('name = ""', "name"),
        ('prefix = "a b"', "prefix"),
        ('prefix = ""', "prefix"),
        (f'prefix = "{"x" * 65}"', "prefix"),
        ("redis_url = 5", "redis_url"),
        ('redis_url = ["redis://u:hunter2@h"]', "redis_url"),
        ('redis_url = "redis+cluster://h"\nprefix = "mesh"', "prefix"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_its_source(tmp_path: Path, text: str, key: str) -> None:
    said = refusal(tmp_path, text)
    assert f"config.toml: {key}: " in said
    assert SECRET not in said


def test_a_wrong_variable_is_named_as_one(tmp_path: Path) -> None:
    assert "AGENT_MESH_GATE_LIMIT: gate_limit" in refusal(tmp_path, "gate_limit = 7", gate_limit="many")


@pytest.mark.parametrize(
    "text", ["=", f'redis_url = "redis://u:{SECRET}@h', f"redis_url = redis://u:{SECRET}@h", '"a" = \xff']
)
def test_a_broken_file_is_refused_without_its_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as refused:
        settings.load({}, str(file))
    assert str(file) in refused.value.message
    assert SECRET not in str(refused.value.to_rpc())


def test_a_cluster_gets_a_prefix_of_one_slot(tmp_path: Path) -> None:
    """Unless one is set that has a hash tag."""
    assert load(tmp_path, redis_url="redis+cluster://h:1").prefix == "{mesh}"
    assert load(tmp_path, redis_url="redis+cluster://h:1", prefix="a{b}").prefix == "a{b}"


def test_the_url_in_a_file(tmp_path: Path) -> None:
    """Read when it is asked for; a URL that is set itself goes first."""
    secret = tmp_path / "url"
    secret.write_text(f"redis://u:{SECRET}@h\n")
    assert load(tmp_path, redis_url_file=str(secret)).url == f"redis://u:{SECRET}@h"
    assert load(tmp_path, redis_url_file=str(secret), redis_url="redis://x").url == "redis://x"


@pytest.mark.parametrize("key", ["redis_url", "redis_url_file"])
def test_a_variable_wins_over_the_file_whichever_of_the_two_it_is(tmp_path: Path, key: str) -> None:
    files = {name: tmp_path / name for name in ("file", "variable")}
    for name, file in files.items():
        file.write_text(f"redis://{name}")
    value = str(files["variable"]) if key == "redis_url_file" else "redis://variable"
    for text in ('redis_url = "redis://file"', f'redis_url_file = "{files["file"]}"'):
        assert load(tmp_path, text, **{key: value}).url == "redis://variable"
        assert load(tmp_path, text, redis_url="").url is None
        assert load(tmp_path, text, redis_url_file="").url == "redis://file"


def test_a_relative_path_to_the_url_is_refused_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon runs in no folder that a user would think of. A variable's is the caller's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "url").write_text("redis://h")
    assert "config.toml: redis_url_file: " in refusal(tmp_path, 'redis_url_file = "url"')
    assert load(tmp_path, 'redis_url_file = "~/url"').url == "redis://h"
    assert load(tmp_path, redis_url_file="url").url == "redis://h"


def test_the_name_is_the_files_alone(tmp_path: Path) -> None:
    """A variable says it of whoever calls the daemon, and not of whoever has started it."""
    assert load(tmp_path, 'name = "cfg"', name="a b").name == "cfg"
    assert load(tmp_path, name="alice").name is None


@pytest.mark.parametrize("content", [None, b"", b" \n", b"redis://u:hunter2@h\xff"])
def test_a_url_file_of_no_use_is_named(tmp_path: Path, content: bytes | None) -> None:
    secret = tmp_path / "url"
    if content is not None:
        secret.write_bytes(content)
    said = refusal(tmp_path, redis_url_file=str(secret))
    assert str(secret) in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:badport/0",
        "redis://:hunter2/more@host",
        "redis://user:ab?hunter2@host",
        "redis://user:hunter2?ab@host",
        "redis://host:x?password=hunter2",
        "redis://host:x?password=a@hunter2",
        "redis://user:hunter2#ab@host:x",
        "redis://[hunter2@host",
        "rediss://user:hunter2@host?socket_timeout=hunter2",
        "unix://user:hunter2@?db=x",
        "redis://user:hunter2@host/notanumber",
        "redis+sentinel://user:hunter2@host:26379",
        "redis+sentinel://user:hunter2@host:x/service",
        "redis+sentinel://user:hunter2@host/service/db",
        "redis+cluster://user:hunter2@:1,",
        "http://user:hunter2@host",
        "user:hunter2@host",
        "hunter2",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    """Whatever part of it a parser takes for a port, a path or a query."""
    with pytest.raises(ConfigError) as refused:
        from_url(url, "mesh")
    assert SECRET not in str(refused.value.to_rpc())
    assert "hunter" not in str(refused.value.to_rpc())


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("redis://u:hunter2@127.0.0.1:1/0?bogus=hunter2", "bogus"),
        ("unix:///x?bogus=1", "bogus"),
        ("redis://h?protocol=3", "protocol"),
        ("redis://h?socket_timeout=5", "socket_timeout"),
        ("redis://h?credential_provider=hunter2", "credential_provider"),
        ("redis://h?max_connections=5&password=hunter2", "max_connections"),
        ("redis://h?ssl_ca_certs=/hunter2", "ssl_ca_certs"),
        ("rediss://u:hunter2@h?ssl_cert_reqs=hunter2&db=1", "ssl_cert_reqs"),
        ("redis+sentinel://u:hunter2@h/service?bogus=1", "bogus"),
        ("redis+sentinel://h/service?health_check_interval=hunter2", "health_check_interval"),
        ("redis+cluster://h?ssl=1", "ssl"),
        ("rediss+cluster://h?ssl_cert_reqs=bogus", "ssl_cert_reqs"),
    ],
)
def test_an_option_that_no_connection_can_have_is_named_without_its_value(url: str, option: str) -> None:
    """When the URL is read, and not by a connection that fails long after."""
    with pytest.raises(ConfigError) as refused:
        from_url(url, "mesh")
    assert f"the option '{option}' is unknown, or its value is not one for it" in refused.value.message
    assert "hunter" not in str(refused.value.to_rpc())


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@h:1/2?client_name=x&socket_keepalive=yes&health_check_interval=3",
        "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=no&ssl_ca_certs=/x",
        "unix:///x?db=3&password=p",
        "redis+sentinel://u:p@h1,h2:2/service/3?client_name=x",
        "rediss+cluster://h?ssl_cert_reqs=required",
    ],
)
def test_options_that_a_connection_can_have_are_taken(url: str) -> None:
    from_url(url, "mesh")


@given(
    st.sampled_from(
        ["redis://u:{}@host:6379/0", "unix://u:{}@/tmp/s", "redis://h/0?password={}", "redis://:{}@h?db=1"]
    ),
    st.text(alphabet="abc:/?#@%&[] ", min_size=1).map(lambda s: f"XX{s}XX"),
)
def test_a_url_is_shown_without_its_password(shape: str, password: str) -> None:
    """Even one that should have been encoded and was not."""
    assert "XX" not in redacted(shape.format(password))


def test_a_url_is_shown_with_its_place() -> None:
    assert redacted("redis://u:p@host:6379/0?db=1") == "redis://host:6379/0"
    assert redacted("unix:///tmp/s") == "unix:///tmp/s"
