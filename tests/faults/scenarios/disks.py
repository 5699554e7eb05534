"""The disk below a machine's files, or below the store's, is full, slow, failing, read-only or gone."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator

from tests.faults.broken import fill
from tests.faults.scenario import Stage, under_load, whole
from tests.faults.scenarios.processes import a_store_with, kill_embedded, kill_store
from tests.faults.scene import EMBEDDED, RECOVERED, Scene, Setup, a_scene, on_store
from tests.faults.slow_disk import SlowDisk
from tests.helper import wait_until
from tests.store.servers import is_up

Act = Callable[[Scene, SlowDisk], None]


@contextlib.contextmanager
def _broken(disk: SlowDisk) -> Iterator[None]:
    disk.break_()
    try:
        yield
    finally:
        disk.mend()


def _receiver_s(files: str, name: str, *, calls: str, ms: int = 0, every: int = 1, error: int = 0, short: int = 0,
                rounds: int = 3) -> Callable[[Act], Act]:  # fmt: skip
    """A scenario in which calls of b's daemon on some of its files meet trouble."""

    def decorate(act: Act) -> Act:
        @whole(name, rounds=rounds, short=short)
        def run(stage: Stage) -> None:
            pattern = str(stage.folder / "b" / files)
            disk = SlowDisk(stage.folder / "disk", pattern, calls=calls, ms=ms, every=every, error=error, broken=False)
            with a_scene(stage.folder, stage.kind, stage.seed, Setup(env_b=disk.env)) as scene:
                under_load(stage, scene, lambda scene: act(scene, disk))

        return act

    return decorate


_STATE, _CACHE = ".local/state/agent-mesh/*", ".cache/agent-mesh/*"


@_receiver_s(_STATE, "state folder full 3 s", calls="write", error=errno.ENOSPC, short=1)
def state_full(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.rest(3)


@_receiver_s(_STATE, "state folder full, then kill -9", calls="write", error=errno.ENOSPC)
def state_full_kill(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.rest(1)
        scene.b.home.kill()
    scene.b.home.start()


@_receiver_s(_STATE, "state folder read-only 3 s", calls="write", error=errno.EROFS, rounds=2)
def state_read_only(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.rest(3)


@_receiver_s(_CACHE, "cache folder (notify log) full 3 s", calls="write", error=errno.ENOSPC)
def cache_full(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.rest(3)


@_receiver_s(_STATE, "receiver's every 5th sync fails, kill -9", calls="fsync,fdatasync", error=errno.EIO, every=5)
def syncs_fail(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.flow(60)
        scene.b.home.kill()
    scene.b.home.start()


@_receiver_s(_STATE, "receiver's syncs take 100 ms, kill -9", calls="fsync,fdatasync", ms=100, short=2)
def syncs_slow(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.flow(60)
        scene.b.home.kill()
    scene.b.home.start()


@_receiver_s(_STATE, "receiver's disk hangs for 8 s", calls="write,fsync,fdatasync", ms=8000, rounds=1)
def disk_hangs(scene: Scene, disk: SlowDisk) -> None:
    with _broken(disk):
        scene.rest(1)
    scene.rest(7)


# --- a real disk: as root, in a mount namespace of the daemon's own ---


@whole("state folder on a small disk, full 3 s", rounds=2)
def small_disk(stage: Stage) -> None:
    if os.geteuid() != 0:
        stage.troubles.append("needs root: a disk is mounted")
        return
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        state = scene.b.home.state
        state.mkdir(parents=True, mode=0o700)
        mount = f'mount -t tmpfs -o size=4m,mode=700 small {state} && exec "$@"'
        scene.b.home.through = ("unshare", "-m", "sh", "-c", mount, "sh")
        under_load(stage, scene, _fill_for_a_while)


def _fill_for_a_while(scene: Scene) -> None:
    filler = f"/proc/{scene.b.pid}/root{scene.b.home.state}/filler"
    fill(filler)
    scene.rest(3)
    os.unlink(filler)


@whole("state folder removed under load, then kill -9", rounds=2, short=1, kept=False)
def state_removed(stage: Stage) -> None:
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        under_load(stage, scene, _remove_state)


def _remove_state(scene: Scene) -> None:
    """What was unread there is gone with it, unless the store still has it; what is hosted has to be said again."""
    shutil.rmtree(scene.b.home.state, ignore_errors=True)  # the daemon goes on writing there
    scene.flow(60)
    scene.b.home.kill()
    scene.b.home.start()
    wait_until(lambda: is_up(scene.b.home), "the store is up", RECOVERED)
    for name in ("bob", "carol"):
        scene.b.register(name)


# --- the store's disk ---


@whole("store's folder full 3 s (everysec)", rounds=2, short=1)
def store_full(stage: Stage) -> None:
    """It refuses writes, and says so."""
    disk = SlowDisk(stage.folder / "disk", "*appendonly*", calls="write", error=errno.ENOSPC, broken=False)

    def act(scene: Scene) -> None:
        with _broken(disk):
            scene.rest(3)

    with a_store_with(disk, stage) as store, on_store(stage.folder, store, stage.seed, Setup()) as scene:
        under_load(stage, scene, act)


@whole("store's folder full (everysec), then kill -9", rounds=3)
def store_full_kill(stage: Stage) -> None:
    disk = SlowDisk(stage.folder / "disk", "*appendonly*", calls="write", error=errno.ENOSPC, broken=False)

    def act(scene: Scene) -> None:
        with _broken(disk):
            scene.rest(1)
            scene.store.kill()
        scene.store.start()

    with a_store_with(disk, stage) as store, on_store(stage.folder, store, stage.seed, Setup()) as scene:
        under_load(stage, scene, act)


@whole("store's every 3rd sync fails (EIO, everysec)", rounds=3)
def store_syncs_fail(stage: Stage) -> None:
    disk = SlowDisk(stage.folder / "disk", "*appendonly*", error=errno.EIO, every=3, broken=False)

    def act(scene: Scene) -> None:
        with _broken(disk):
            scene.rest(2)
            kill_store(scene)

    with a_store_with(disk, stage) as store, on_store(stage.folder, store, stage.seed, Setup()) as scene:
        under_load(stage, scene, act)


@whole("embedded store's folder full 3 s, then kill -9 of both", rounds=2, short=1, stores=[EMBEDDED])
def embedded_full(stage: Stage) -> None:
    disk = SlowDisk(stage.folder / "disk", "*appendonly*", calls="write", error=errno.ENOSPC, broken=False)

    def act(scene: Scene) -> None:
        with _broken(disk):
            scene.rest(3)
            kill_embedded(scene.a.home)
            scene.a.home.kill()
        scene.a.home.start()
        wait_until(lambda: is_up(scene.a.home), "the store is up", RECOVERED)

    with a_scene(stage.folder, stage.kind, stage.seed, Setup(env_a=disk.env)) as scene:
        under_load(stage, scene, act)
