"""The store goes back: an older copy of its log, or a replica that was behind. What that takes is told."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.faults.scenario import Stage, fault, under_load, whole
from tests.faults.scene import Scene, Setup, on_store
from tests.faults.way import Way
from tests.helper import Store, wait_until
from tests.store.servers import a_store

_REPLICATED = (*Setup().options, "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "8mb")


def _copy(scene: Scene) -> Path:
    """Of the log, as it is just now."""
    copy = scene.store.folder / f"copy-{len(scene.recovered)}"
    shutil.copytree(scene.store.folder / "appendonlydir", copy)
    return copy


def _restore(scene: Scene, copy: Path) -> None:
    scene.store.kill()
    shutil.rmtree(scene.store.folder / "appendonlydir")
    shutil.copytree(copy, scene.store.folder / "appendonlydir")
    scene.store.start()


@fault("older copy of the log restored", rounds=3, short=2, kept=False)
def restored(scene: Scene) -> None:
    copy = _copy(scene)
    scene.flow(100)
    _restore(scene, copy)


@fault("older copy of the log restored, receiver away", rounds=2, short=1, kept=False)
def restored_away(scene: Scene) -> None:
    copy = _copy(scene)
    scene.b.home.kill()
    scene.flow(100)
    _restore(scene, copy)
    scene.flow(20)
    scene.b.home.start()


class Pair:
    """A primary with a replica that follows through a way of its own."""

    def __init__(self, stage: Stage, primary: Store, stack: contextlib.ExitStack) -> None:
        self.primary = primary
        self._stage = stage
        self._stack = stack
        self._count = 0
        self._follow()

    def _follow(self) -> None:
        self._count += 1
        self.link = Way(self.primary)
        self._stack.callback(self.link.close)
        port = self.link.url.rpartition(":")[2]
        folder = self._stage.folder / f"replica-{self._count}"
        options = (*_REPLICATED, "--replicaof", f"127.0.0.1 {port}")
        self.replica = self._stack.enter_context(a_store(self._stage.kind, folder, *options))
        wait_until(self._is_in_step, "the replica follows", 60)

    def _is_in_step(self) -> bool:
        with self.replica.client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def promote(self, scene: Scene) -> None:
        """The primary dies, all ways lead to its replica; another replica follows that one from now on."""
        self.primary.kill()
        with self.replica.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        for machine in scene.machines:
            machine.way.lead_to(self.replica)
        self.primary = self.replica
        scene.use(self.primary)
        self._follow()


@contextlib.contextmanager
def replicated(stage: Stage) -> Iterator[tuple[Scene, Pair]]:
    with (
        contextlib.ExitStack() as stack,
        a_store(stage.kind, stage.folder / "store", *_REPLICATED) as store,
        on_store(stage.folder, store, stage.seed, Setup()) as scene,
    ):
        yield scene, Pair(stage, store, stack)


@whole("replica promoted, in step", rounds=3, short=1, kept=False)
def in_step(stage: Stage) -> None:
    with replicated(stage) as (scene, pair):
        under_load(stage, scene, pair.promote)


def _behind(scene: Scene, pair: Pair) -> None:
    pair.link.freeze()
    scene.rest(1.5)


@whole("replica promoted, 1.5 s behind", rounds=2, short=1, kept=False)
def behind(stage: Stage) -> None:
    with replicated(stage) as (scene, pair):

        def act(scene: Scene) -> None:
            _behind(scene, pair)
            pair.promote(scene)

        under_load(stage, scene, act)


@whole("replica promoted, behind; receiver away", rounds=2, short=0, kept=False)
def behind_away(stage: Stage) -> None:
    with replicated(stage) as (scene, pair):

        def act(scene: Scene) -> None:
            scene.b.home.kill()
            _behind(scene, pair)
            pair.promote(scene)
            scene.flow(20)
            scene.b.home.start()

        under_load(stage, scene, act)


@whole("replica promoted, behind; senders' daemon restarted", rounds=2, short=1, kept=False)
def behind_restart(stage: Stage) -> None:
    """While the receiver is away: only the senders' daemon knew of what is gone."""
    with replicated(stage) as (scene, pair):

        def act(scene: Scene) -> None:
            scene.b.home.kill()
            _behind(scene, pair)
            assert scene.a.home.stop() == 0
            pair.promote(scene)
            scene.a.home.start()
            scene.flow(20)
            scene.b.home.start()

        under_load(stage, scene, act)


@whole("replica promoted, behind; senders' daemon killed", rounds=2, short=0, kept=False)
def behind_kill(stage: Stage) -> None:
    with replicated(stage) as (scene, pair):

        def act(scene: Scene) -> None:
            scene.b.home.kill()
            _behind(scene, pair)
            scene.a.home.kill()
            pair.promote(scene)
            scene.a.home.start()
            scene.flow(20)
            scene.b.home.start()

        under_load(stage, scene, act)


@whole("replica promoted, behind; senders say no more", rounds=1, short=1, long=20, kept=False)
def behind_silence(stage: Stage) -> None:
    """Nothing comes after what is gone, so that no count of a later message shows it. Each round is a scene of its own
    in one history, whose last word is the loss."""
    with replicated(stage) as (scene, pair):
        scene.begin()
        for number in range(stage.rounds):
            if number:
                scene.hush(False)
                scene.flow()
            scene.b.home.kill()
            _behind(scene, pair)
            scene.hush(True)
            pair.promote(scene)
            scene.b.home.start()
            scene.settle()
        scene.finish(closing=False)
        stage.take(scene)
