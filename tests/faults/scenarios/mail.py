"""Much mail at once, and broadcasts that are behind it. The sender is one connection with many messages in flight."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from tests.faults.history import EVERYBODY, Hosts, Intends, Outcome
from tests.faults.leaks import peak
from tests.faults.readers import LiveReader, Reader
from tests.faults.scenario import ANY, Stage, whole
from tests.faults.scene import Scene, Setup, a_scene
from tests.faults.slow_disk import SlowDisk
from tests.faults.writers import fate_of
from tests.helper import wait_until
from tests.mesh.peer import hosted, receiving
from tests.store.servers import is_up

_FLYING = 200
_BURST = 6000
_CHATTER = 10_000
_SIZES = (200, 5_000, 20_000, 60_000)  # bytes
_SENDERS = 50
_MEMORY = 300  # MiB, that a daemon has at most


class Quiet:
    """A scene with no load of its own: its machines run, and names are hosted as they are asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._seqs: dict[str, int] = {}
        for machine in scene.machines:
            machine.home.start()
            wait_until(functools.partial(is_up, machine.home), "the store is up", 60)

    def host(self, reader: Reader) -> None:
        with reader.home.rpc() as rpc:
            rpc.call("register", name=reader.name)
        wait_until(lambda: receiving(reader.home, reader.name), f"{reader.name} receives", 60)
        self.scene.history.write(Hosts(reader.name))

    def reader(self, name: str) -> Reader:
        """One on `b`."""
        return Reader(self.scene.b.label, self.scene.b.home, name, self.scene.history)

    def send(
        self, senders: str | Sequence[str], target: str, count: int = 1, *, private: bool = True, size: int = 0
    ) -> None:
        """So many messages from `a`, by these in turn, as fast as they are taken; each once, whatever becomes of it."""
        ids: dict[str, str] = {}
        for _, sender in zip(range(count), itertools.cycle([senders] if isinstance(senders, str) else senders)):
            seq = self._seqs[sender] = self._seqs.get(sender, -1) + 1
            ids[f"{sender}-{seq}"] = sender
        self.scene.history.write(
            *(Intends(sender, target, one, int(one.rpartition("-")[2])) for one, sender in ids.items())
        )
        flying: dict[int, str] = {}
        ended: list[Outcome] = []
        with self.scene.a.home.rpc() as rpc:
            for message_id, sender in ids.items():
                told = {"message": message_id.ljust(size, "."), "from_": sender, "id": message_id}
                if target == EVERYBODY:
                    flying[rpc.send("broadcast", **told)] = message_id
                else:
                    flying[rpc.send("send", target=target, private=private, **told)] = message_id
                if len(flying) >= _FLYING:
                    ended.append(_ended(rpc.read(), flying))
            while flying:
                ended.append(_ended(rpc.read(), flying))
        self.scene.history.write(*ended)

    def settle(self, *readers: Reader) -> None:
        """Read all that comes, and what the hints say."""
        self.scene.readers = list(readers)
        self.scene.settle()
        for reader in readers:
            reader.look_up()


def _ended(answer: dict[str, Any], flying: dict[int, str]) -> Outcome:
    return Outcome(flying.pop(answer["id"]), *fate_of(answer))


def unread(reader: Reader) -> int:
    return int((hosted(reader.home, reader.name) or {"unread": 0})["unread"])


def _burst(stage: Stage, names: Iterable[str], *, is_hosted: bool) -> None:
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        quiet = Quiet(scene)
        for name in names:
            reader = quiet.reader(name)
            if is_hosted:
                quiet.host(reader)
            quiet.send(f"to-{name}", name, _BURST)
            if not is_hosted:
                quiet.host(reader)
            quiet.settle(reader)


@whole("burst of 6,000 from one connection", rounds=2, short=1, long=20)
def burst(stage: Stage) -> None:
    """Whatever is acknowledged is received; the rest is `busy`."""
    _burst(stage, [f"bob{n}" for n in range(stage.rounds)], is_hosted=True)


@whole("burst of 6,000 to a name that nobody hosts", rounds=2, short=1, long=20)
def burst_unhosted(stage: Stage) -> None:
    """A mailbox that nobody reads is full at some time, and loses nothing to what comes later."""
    _burst(stage, [f"bob{n}" for n in range(stage.rounds)], is_hosted=False)


@whole("burst of 6,000 to one who is away", rounds=2, short=1, long=20)
def burst_away(stage: Stage) -> None:
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        quiet = Quiet(scene)
        for number in range(stage.rounds):
            reader = quiet.reader(f"bob{number}")
            quiet.host(reader)
            assert scene.b.home.stop() == 0
            quiet.send(f"to-{reader.name}", reader.name, _BURST)
            scene.b.home.start()
            quiet.settle(reader)


def _bursts(stage: Stage, ms: int) -> None:
    """Bursts of every size by 50 senders on one connection, while bob is read; his machine's syncs take `ms`."""
    disk = SlowDisk(stage.folder / "disk", "*", ms=ms, broken=ms > 0)
    with a_scene(stage.folder, stage.kind, stage.seed, Setup(env_a=disk.env, env_b=disk.env)) as scene:
        quiet, senders = Quiet(scene), [f"s{n}" for n in range(_SENDERS)]
        quiet.host(scene.bob)
        scene.live = [LiveReader(scene.bob, stage.seed)]
        scene.live[0].start()
        for number in range(stage.rounds):
            quiet.send(senders, "bob", _BURST, size=_SIZES[number % len(_SIZES)])
        disk.mend()
        scene.stop()
        quiet.settle(scene.bob)
        _bounded(stage, scene)


def _bounded(stage: Stage, scene: Scene) -> None:
    for machine in scene.machines:
        most = peak(machine.home) >> 20
        scene.history.note(f"{machine.label}: {most} MiB at most")
        stage.expect(most < _MEMORY, f"{machine.label}'s daemon had {most} MiB")


@whole("17 bursts of 6,000 by 50 senders, 200 B to 60 KB", rounds=4, long=17, stores=ANY)
def bursts(stage: Stage) -> None:
    _bursts(stage, 0)


@whole("17 bursts of 6,000 by 50 senders, 200 B to 60 KB; syncs take 30 ms", rounds=4, long=17, stores=ANY)
def bursts_30(stage: Stage) -> None:
    _bursts(stage, 30)


@whole("17 bursts of 6,000 by 50 senders, 200 B to 60 KB; syncs take 500 ms", rounds=4, long=17, stores=ANY)
def bursts_500(stage: Stage) -> None:
    _bursts(stage, 500)


def _behind_chatter(stage: Stage, *, met: bool, restart: bool) -> None:
    """One broadcast, then 2,500 messages between two others, while its receiver is away."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        quiet = Quiet(scene)
        bob = quiet.reader("bob")
        carol = Reader("a", scene.a.home, "carol", scene.history)
        quiet.host(bob)
        quiet.host(carol)
        for number in range(stage.rounds):
            caller = f"caller{number}"
            if met:
                quiet.send(caller, EVERYBODY)
                wait_until(lambda: unread(bob), "bob has the first")
                bob.drain()
            assert scene.b.home.stop() == 0
            quiet.send(caller, EVERYBODY)
            quiet.send(f"chatter{number}", "carol", _CHATTER, private=False)
            if restart:
                assert scene.a.home.stop() == 0
                scene.a.home.start()
            scene.b.home.start()
            quiet.settle(bob, carol)


@whole("broadcast to one who is away, while others talk", rounds=3, short=1, long=16)
def broadcast_behind(stage: Stage) -> None:
    _behind_chatter(stage, met=False, restart=False)


@whole("broadcast to one who is away, while others talk; its sender was met", rounds=2, long=16)
def broadcast_behind_met(stage: Stage) -> None:
    _behind_chatter(stage, met=True, restart=False)


@whole("broadcast to one who is away, while others talk; its sender's daemon restarted", rounds=2, long=16)
def broadcast_behind_restart(stage: Stage) -> None:
    _behind_chatter(stage, met=True, restart=True)
