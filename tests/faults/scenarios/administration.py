"""What an administrator does to a store that is in use. What he takes out of it is told as lost."""

from __future__ import annotations

import redis

from tests.faults.scenario import Stage, fault, under_load, whole
from tests.faults.scene import Scene, Setup, a_scene

_DEBUG = (*Setup().options, "--enable-debug-command", "yes")
_PASSWORD = "another-horse"


@fault("SCRIPT FLUSH", rounds=4, short=1)
def script_flush(scene: Scene) -> None:
    with scene.store.client() as client:
        client.script_flush()


@fault("CLIENT KILL TYPE normal", rounds=6, short=6, long=24)
def client_kill(scene: Scene) -> None:
    with scene.store.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")


@fault("CLIENT PAUSE 7 s", rounds=1, long=8)
def client_pause(scene: Scene) -> None:
    with scene.store.client() as client:
        client.client_pause(7000)
    scene.rest(7.2)


@fault("maxmemory small (OOM) 2 s", rounds=2, short=1)
def out_of_memory(scene: Scene) -> None:
    _configured(scene, "maxmemory", "1", "0")


@fault("min-replicas-to-write 2 s", rounds=2)
def no_replicas(scene: Scene) -> None:
    _configured(scene, "min-replicas-to-write", "1", "0")


def _configured(scene: Scene, name: str, broken: str, well: str) -> None:
    with scene.store.client() as client:
        client.config_set(name, broken)
        scene.rest(2)
        client.config_set(name, well)


@fault("DEBUG SLEEP 3", rounds=2, setup=Setup(options=_DEBUG))
def debug_sleep_3(scene: Scene) -> None:
    _sleep(scene, 3)


@fault("DEBUG SLEEP 7", rounds=1, long=6, setup=Setup(options=_DEBUG))
def debug_sleep_7(scene: Scene) -> None:
    _sleep(scene, 7)


def _sleep(scene: Scene, seconds: int) -> None:
    """The whole server, so that its answer comes late, too."""
    with redis.Redis(unix_socket_path=scene.store.socket, protocol=2, socket_timeout=60) as client:
        client.execute_command("DEBUG", "SLEEP", str(seconds))


# --- what it holds is taken out ---


@fault("FLUSHALL", rounds=4, short=2, kept=False)
def flush(scene: Scene) -> None:
    with scene.store.client() as client:
        client.flushall()


@fault("FLUSHALL while the receiver is away", rounds=2, short=1, kept=False)
def flush_away(scene: Scene) -> None:
    scene.b.home.kill()
    scene.flow(60)
    flush(scene)
    scene.flow(20)
    scene.b.home.start()


@fault("FLUSHALL while the receiver is away, and the senders' daemon restarts", rounds=2, short=1, kept=False)
def flush_away_restart(scene: Scene) -> None:
    """What was taken is told of also by those who do not remember what they sent."""
    scene.b.home.kill()
    scene.flow(60)
    assert scene.a.home.stop() == 0
    flush(scene)
    scene.a.home.start()
    scene.flow(20)
    scene.b.home.start()


@fault("FLUSHALL while the receiver is away; its daemon ends and starts before the loss was told", rounds=2, kept=False)
def flush_away_untold(scene: Scene) -> None:
    flush_away(scene)
    scene.flow(60)
    assert scene.b.home.stop() == 0
    scene.b.home.start()


@fault("FLUSHALL twice; its daemon is away each time, and nobody was told between", rounds=2, short=1, kept=False)
def flush_away_twice(scene: Scene) -> None:
    """A loss that a daemon has counted is not forgotten with what it wrote into the store of it."""
    flush_away(scene)
    scene.flow(60)
    assert scene.b.home.stop() == 0
    flush(scene)
    scene.b.home.start()


@fault("DEL of one stream", rounds=4, kept=False)
def delete(scene: Scene) -> None:
    with scene.store.client() as client:
        client.delete(f"mesh:to_{scene.random.choice(['bob', 'carol', 'anna'])}")


@fault("DEL of one stream while the receiver is away", rounds=2, kept=False)
def delete_away(scene: Scene) -> None:
    scene.b.home.kill()
    scene.flow(60)
    with scene.store.client() as client:
        client.delete(f"mesh:to_{scene.random.choice(['bob', 'carol'])}")
    scene.flow(20)
    scene.b.home.start()


@fault("RENAME of a stream", rounds=4, kept=False)
def rename(scene: Scene) -> None:
    key = f"mesh:to_{scene.random.choice(['bob', 'carol', 'anna'])}"
    with scene.store.client() as client:
        if client.exists(key):
            client.rename(key, f"{key}_aside")


_KEYS = ("to_bob", "to_carol", "group", "all", "gate:audit", "presence", "registry:bob", "lease:bob", "read:bob")
_FAMILIES = ("count:*", "gate:rate:*", "id:*")


@fault("WRONGTYPE at each key", rounds=12, short=0, long=24, kept=False)
def wrong_type(scene: Scene) -> None:
    """A key is replaced by something else for a moment, one after the other, and then is gone."""
    names = [*_KEYS, *_FAMILIES]
    name = names[len(scene.recovered) % len(names)]
    with scene.store.client() as client:
        keys = (
            sorted(client.scan_iter(match=f"mesh:{name}", count=10_000)) if "*" in name else [f"mesh:{name}".encode()]
        )
        for key in keys[-20:]:
            another = client.type(key) != b"set"
            with client.pipeline(transaction=True) as both:  # else the key may be there again
                both.delete(key)
                both.sadd(key, "in the way") if another else both.set(key, "in the way")
                both.execute()
        scene.history.note(f"{name} is in the way: {len(keys)} keys")
        scene.rest(0.7)
        client.delete(*keys[-20:])


# --- who may come in ---


@whole("password changed", rounds=2, short=0, long=20)
def password_changed(stage: Stage) -> None:
    """The new one stands in the URL's file a moment later."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        for machine in scene.machines:
            file = machine.home.path / "url"
            del machine.home.env["AGENT_MESH_REDIS_URL"]
            machine.home.env["AGENT_MESH_REDIS_URL_FILE"] = str(file)
        _write_url(scene, "")
        under_load(stage, scene, _change_password, then=_take_any_password)


def _take_any_password(scene: Scene) -> None:
    """For whoever looks into the store at the end."""
    last = f"{_PASSWORD}{len(scene.recovered) - 1}"
    with redis.Redis(unix_socket_path=scene.store.socket, protocol=2, password=last) as client:
        client.execute_command("ACL", "SETUSER", "default", "nopass")


def _change_password(scene: Scene) -> None:
    number = len(scene.recovered)
    before = f"{_PASSWORD}{number - 1}" if number else None
    with redis.Redis(unix_socket_path=scene.store.socket, protocol=2, password=before) as client:
        client.config_set("requirepass", f"{_PASSWORD}{number}")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    scene.rest(1)
    _write_url(scene, f":{_PASSWORD}{number}@")


def _write_url(scene: Scene, account: str) -> None:
    for machine in scene.machines:
        file = machine.home.path / "url"
        file.write_text(machine.way.url.replace("redis://", f"redis://{account}") + "\n")
        file.chmod(0o600)


@fault("access list narrowed 2 s", rounds=2)
def access_narrowed(scene: Scene) -> None:
    with scene.store.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval", "-xread")
        scene.rest(2)
        client.execute_command("ACL", "SETUSER", "default", "+@all")
