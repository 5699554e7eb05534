"""Daemons, stores and clients are killed, stopped and ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from tests.faults.history import Hosts
from tests.faults.machines import Machine
from tests.faults.readers import Reader
from tests.faults.scenario import ANY, EXTERNAL, Act, Stage, fault, under_load, whole
from tests.faults.scene import EMBEDDED, RECOVERED, Scene, Setup, a_scene, on_store
from tests.faults.slow_disk import SlowDisk
from tests.faults.writers import OneByOne
from tests.helper import Home, Store, program, wait_until
from tests.store.servers import is_up, state

_SLOW_SYNC = 300  # milliseconds


def _some(scene: Scene) -> list[Machine]:
    """One machine, the other, or both: each in its turn."""
    turns = [*([machine] for machine in scene.machines), scene.machines]
    return turns[len(scene.recovered) % len(turns)]


def restart_killed(scene: Scene, machines: list[Machine]) -> None:
    scene.volley()
    for machine in machines:
        machine.home.kill()
    scene.moment(0, 0.3)
    for machine in machines:
        machine.home.start()


@fault("kill -9 daemon", rounds=6, short=5, long=30, stores=ANY)
def kill_daemon(scene: Scene) -> None:
    restart_killed(scene, _some(scene))


@fault("kill -9 daemon, 4 KB texts", rounds=4, long=24, setup=Setup(size=4096))
def kill_daemon_4k(scene: Scene) -> None:
    """The journal is written anew meanwhile."""
    restart_killed(scene, _some(scene))


@fault("kill -9 daemon, then the store is away for 2 s", rounds=3)
def kill_daemon_without_store(scene: Scene) -> None:
    scene.store.pause()
    restart_killed(scene, _some(scene))
    scene.rest(2)
    scene.store.resume()


@fault("SIGTERM daemon and start", rounds=4, short=2, stores=ANY)
def end_daemon(scene: Scene) -> None:
    for machine in _some(scene):
        assert machine.home.stop() == 0
        machine.home.start()


@fault("SIGTERM daemon in the middle of a kill of the store", rounds=3)
def end_daemon_without_store(scene: Scene) -> None:
    scene.store.kill()
    for machine in _some(scene):
        machine.home.stop()
        machine.home.start()
    scene.store.start()


@fault("daemon stopped 1 s", rounds=4)
def stop_daemon(scene: Scene) -> None:
    _stop_daemon(scene, 1)


@fault("daemon stopped 30 s", rounds=1, long=2)
def stop_daemon_30(scene: Scene) -> None:
    _stop_daemon(scene, 30)


def _stop_daemon(scene: Scene, seconds: float) -> None:
    with scene.random.choice(scene.machines).stopped():
        scene.rest(seconds)


@fault("daemon away while 4,000 messages are sent to it", rounds=1, long=6, setup=Setup(rate=600))
def receiver_away(scene: Scene) -> None:
    """More than a stream holds: whatever is not refused is kept."""
    scene.b.home.kill()
    with contextlib.suppress(AssertionError):  # whoever is told `busy` sends less
        scene.history.wait_for_sent(scene.history.sent + 4000, 20)
    scene.b.home.start()


@fault("reader killed before it confirms", rounds=6, short=4, stores=ANY)
def kill_reader(scene: Scene) -> None:
    for reader in scene.live:
        reader.kill_next()


@fault("kill -9 store (everysec)", rounds=6, short=5, long=30)
def kill_store(scene: Scene) -> None:
    scene.volley()
    scene.store.kill()
    scene.volley()
    scene.moment(0, 0.3)
    scene.store.start()


@fault("SIGTERM store and start", rounds=3)
def end_store(scene: Scene) -> None:
    scene.store.process.terminate()
    scene.store.process.wait(60)
    scene.store.start()


@fault("store stopped 8 s", rounds=1, long=6)
def stop_store(scene: Scene) -> None:
    _stop_store(scene, 8)


@fault("store stopped 30 s", rounds=1, long=2)
def stop_store_30(scene: Scene) -> None:
    _stop_store(scene, 30)


def _stop_store(scene: Scene, seconds: float) -> None:
    scene.store.pause()
    scene.rest(seconds)
    scene.store.resume()


@fault("kill -9 store and daemon of the receiver at once", rounds=4, long=20)
def kill_both(scene: Scene) -> None:
    scene.volley()
    scene.store.kill()
    scene.b.home.kill()
    scene.store.start()
    scene.b.home.start()


@fault("kill -9 store and daemon of the senders at once", rounds=4, short=2, long=20)
def kill_store_and_senders(scene: Scene) -> None:
    """Whoever had the last acknowledgements is gone with what it knew."""
    scene.volley()
    scene.store.kill()
    scene.a.home.kill()
    scene.store.start()
    scene.a.home.start()


# --- the embedded store ---


def kill_embedded(home: Home) -> None:
    """kill -9 of the server that the daemon keeps; the daemon starts it again."""
    pid = wait_until(lambda: state(home).get("pid"), "the store's process is known", RECOVERED)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@fault("embedded: kill -9 of store, daemon, or both", rounds=6, short=6, long=40, stores=[EMBEDDED])
def kill_any_embedded(scene: Scene) -> None:
    which = ("store", "daemon", "both")[len(scene.recovered) % 3]
    scene.volley()
    if which != "daemon":
        kill_embedded(scene.a.home)
    if which != "store":
        scene.a.home.kill()
        scene.a.home.start()
    wait_until(lambda: is_up(scene.a.home), "the store is up", RECOVERED)


@whole("embedded: kill -9 of the store in mid-sync of 300 ms", rounds=4, short=4, long=50, stores=[EMBEDDED])
def kill_slow_embedded(stage: Stage) -> None:
    """While a sync is under way the server may answer before it has written: what it answered must not be gone."""
    disk = SlowDisk(stage.folder / "disk", "*appendonly*", ms=_SLOW_SYNC)
    with a_scene(stage.folder, stage.kind, stage.seed, Setup(env_a=disk.env)) as scene:
        _killed_in_sync(stage, scene, disk, kill_embedded_again)


@whole("store killed (kill -9) in mid-sync of 300 ms (everysec)", rounds=4, short=4, long=50, stores=EXTERNAL)
def kill_slow_store(stage: Stage) -> None:
    disk = SlowDisk(stage.folder / "disk", "*appendonly*", ms=_SLOW_SYNC)
    with a_store_with(disk, stage) as store, on_store(stage.folder, store, stage.seed, Setup()) as scene:
        _killed_in_sync(stage, scene, disk, kill_store)


def kill_embedded_again(scene: Scene) -> None:
    scene.volley()
    kill_embedded(scene.a.home)
    scene.volley()


def _killed_in_sync(stage: Stage, scene: Scene, disk: SlowDisk, kill: Act) -> None:
    """Also of what is sent to one whom nobody hosts; each second time the senders' daemon is killed in that second."""
    unhosted = Reader(scene.b.label, scene.b.home, "dora", scene.history)
    scene.writers.append(scene.writer(OneByOne, "to-dora", scene.a, [unhosted.name], rate=10))

    def act(scene: Scene) -> None:
        scene.flow(150)
        begun = disk.begun()
        wait_until(lambda: disk.begun() > begun, "a sync is under way", RECOVERED)
        kill(scene)
        if len(scene.recovered) % 2:
            restart_killed(scene, [scene.a])
        wait_until(lambda: is_up(scene.a.home), "the store is up", RECOVERED)

    def host(scene: Scene) -> None:
        scene.b.register(unhosted.name)
        scene.history.write(Hosts(unhosted.name))
        scene.readers.append(unhosted)

    under_load(stage, scene, act, then=host)


@contextlib.contextmanager
def a_store_with(disk: SlowDisk, stage: Stage) -> Iterator[Store]:
    """A server that sees this disk."""
    folder, starter = stage.folder / "store", stage.folder / "server"
    folder.mkdir(parents=True)
    settings = " ".join(f"{name}='{value}'" for name, value in disk.env.items())
    starter.write_text(f'#!/bin/sh\n{settings} exec {program(stage.kind)} "$@"\n')
    starter.chmod(0o700)
    store = Store(str(starter), folder, *Setup().options)
    try:
        yield store
    finally:
        disk.mend()
        store.close()
