"""A name moves between the machines while its old holder is stopped, cut off, or in the middle of something."""

from __future__ import annotations

import contextlib
import functools
import select
from collections.abc import Callable, Iterator

from tests.faults.history import MayRepeat
from tests.faults.machines import Machine, answer_of
from tests.faults.readers import LiveReader, Reader
from tests.faults.scenario import Stage, under_load, whole
from tests.faults.scenarios.mail import Quiet, unread
from tests.faults.scene import Scene, Setup, a_scene
from tests.helper import Rpc, RpcError, wait_until

_UNREAD = 10
_BACKLOG = 3000


class Moving:
    """A name that b hosts, with unread mail, and its readers at both machines."""

    def __init__(self, quiet: Quiet, name: str, unread: int = _UNREAD) -> None:
        scene = quiet.scene
        self.name = name
        self.quiet = quiet
        self._read_there = 0
        self.a = Reader("a", scene.a.home, name, scene.history)
        self.b = Reader("b", scene.b.home, name, scene.history)
        quiet.host(self.b)
        self.send(unread)
        self.received(self.b, unread)

    def send(self, count: int) -> None:
        self.quiet.send(f"to-{self.name}", self.name, count)

    @staticmethod
    def received(reader: Reader, count: int) -> None:
        wait_until(lambda: unread(reader) >= count, f"{reader.name} has {count} at {reader.place}", 60)

    def take_over(self, machine: Machine) -> None:
        machine.register(self.name, "--takeover")

    def read_at_a(self, count: int) -> None:
        """Read at the new holder, until so many were read there in all. What does not come is judged at the end."""

        def complete() -> bool:
            self._read_there += self.a.drain()
            return self._read_there >= count

        with contextlib.suppress(AssertionError):
            wait_until(complete, "all is read at the new holder")

    def goes_on(self) -> None:
        """What is sent now comes at a, which is read to its end; and b has let the name go."""
        wait_until(lambda: not self.quiet.scene.b.hosts(self.name), f"b has let {self.name} go", 120)
        self.send(2)
        self.quiet.settle(self.a, self.b)


Act = Callable[[Scene, Moving], None]


def _moves(name: str, *, rounds: int = 3, short: int = 0, long: int = 20) -> Callable[[Act], Act]:
    def decorate(act: Act) -> Act:
        @whole(name, rounds=rounds, short=short, long=long)
        def run(stage: Stage) -> None:
            with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
                quiet = Quiet(scene)
                for number in range(stage.rounds):
                    moving = Moving(quiet, f"bob{number}")
                    act(scene, moving)
                    moving.goes_on()
                stage.take(scene)

        return act

    return decorate


@_moves("takeover from a stopped daemon, inbox waiting", rounds=4, short=3)
def stopped_inbox(scene: Scene, moving: Moving) -> None:
    """A call that waits when the daemon goes on, on an open connection."""
    _asked_while_stopped(scene, moving, lambda: None)


@_moves("takeover from a stopped daemon, inbox waiting; its connections are reset", rounds=4, short=2)
def stopped_inbox_cut(scene: Scene, moving: Moving) -> None:
    """As when a lid is opened: what was connected is no more, and the store can be reached at once."""
    _asked_while_stopped(scene, moving, scene.b.way.cut)


def _asked_while_stopped(scene: Scene, moving: Moving, then: Callable[[], None]) -> None:
    with scene.b.home.rpc() as rpc:
        rpc.call("status")
        with scene.b.stopped():
            request = rpc.send("inbox", name=moving.name, ack="explicit")
            moving.take_over(scene.a)
            moving.read_at_a(_UNREAD)
        then()
        select.select([rpc.socket], [], [], 1.0)
        _given(moving.b, rpc, answer_of(rpc, request))


def _given(reader: Reader, rpc: Rpc, answer: dict[str, object]) -> None:
    """An answer to an `inbox` that was asked before."""
    result = answer.get("result")
    if isinstance(result, dict):
        take, receipt, _ = reader.given(result)
        if receipt is not None:
            with contextlib.suppress(RpcError):
                reader.confirm(rpc, take, receipt)


@_moves("takeover from a stopped daemon, reader waiting", rounds=4, short=2)
def stopped_reader(scene: Scene, moving: Moving) -> None:
    """Its mail came while it was stopped, so that it lies in its connection."""
    moving.b.drain()
    reader = LiveReader(moving.b, scene.random.randrange(1000), dies=0)
    reader.start()
    try:
        with scene.b.stopped():
            moving.send(5)
            moving.take_over(scene.a)
            moving.send(5)
            moving.read_at_a(10)
        wait_until(lambda: not scene.b.hosts(moving.name), "b has let it go", 120)
    finally:
        reader.stop()
        reader.join(60)


@_moves("takeover from a machine that is cut off", rounds=3, short=1)
def cut_off(scene: Scene, moving: Moving) -> None:
    """The two cannot learn of each other, and b's lease runs: it may hand out the same, and is to stop when it is
    connected again."""
    scene.random.choice([scene.b.way.refuse, scene.b.way.freeze, scene.b.way.half_open])()
    moving.take_over(scene.a)
    moving.read_at_a(_UNREAD)
    scene.history.write(MayRepeat("b", moving.name))
    moving.b.drain()
    scene.history.write(MayRepeat("b", moving.name, over=True))
    scene.b.way.heal()
    wait_until(lambda: not scene.b.hosts(moving.name), "b has let it go", 120)
    moving.b.drain()


@_moves("takeover with a hand-over under way", rounds=4, short=2)
def under_way(scene: Scene, moving: Moving) -> None:
    """What a client of the old holder has in its hands is unread at the new one, and read there alone."""
    with scene.b.home.rpc() as rpc:
        take, receipt, _ = moving.b.read(rpc, 1000)
        assert receipt is not None
        moving.take_over(scene.a)
        if scene.random.random() < 0.5:
            moving.read_at_a(_UNREAD)
        with contextlib.suppress(RpcError):
            moving.b.confirm(rpc, take, receipt)
    moving.read_at_a(_UNREAD)


@_moves("lease lost, name taken, both read", rounds=4, short=2)
def lease_lost(scene: Scene, moving: Moving) -> None:
    with scene.store.client() as client:
        client.delete(f"mesh:lease:{moving.name}")
    if scene.a.home.run("register", moving.name).returncode != 0:
        moving.b.drain()  # b has noticed first: it is its name still
        moving.take_over(scene.a)
        return
    for reader in scene.random.sample([moving.a, moving.b], 2):
        reader.drain()


@_moves("read, killed after 50 ms; name taken", rounds=4)
def killed_after_reading(scene: Scene, moving: Moving) -> None:
    """That it was read is in the store by then."""
    moving.b.drain()
    scene.rest(0.05)
    scene.b.home.kill()
    moving.take_over(scene.a)
    moving.read_at_a(0)
    scene.b.home.start()


@whole("takeover of a backlog over the stream's bound", rounds=2, long=10)
def backlog(stage: Stage) -> None:
    """All of it moves, a part is read there, and the rest moves back."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        quiet = Quiet(scene)
        for number in range(stage.rounds):
            moving = Moving(quiet, f"bob{number}", 0)
            while (there := unread(moving.b)) < _BACKLOG:
                # In pieces, so that the stream has room for each.
                moving.send(500)
                moving.received(moving.b, there + 500)
            moving.take_over(scene.a)
            with scene.a.home.rpc() as rpc:
                take, receipt, _ = moving.a.read(rpc, 100)
                assert receipt is not None
                moving.a.confirm(rpc, take, receipt)
            moving.take_over(scene.b)
            quiet.settle(moving.b, moving.a)
        stage.take(scene)


@whole("takeover in turn under load", rounds=4, short=2, long=16)
def in_turn(stage: Stage) -> None:
    """Both machines have a reader of bob at all times."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene, _another_reader(scene):
        under_load(stage, scene, _move_bob)


def _move_bob(scene: Scene) -> None:
    there, here = (scene.a, scene.b) if scene.b.hosts("bob") else (scene.b, scene.a)
    there.register("bob", "--takeover")
    wait_until(functools.partial(_has_let_go, here), "the old holder has let it go", 120)


def _has_let_go(machine: Machine) -> bool:
    return not machine.hosts("bob")


@contextlib.contextmanager
def _another_reader(scene: Scene) -> Iterator[None]:
    """Of bob, at a."""
    reader = Reader(scene.a.label, scene.a.home, "bob", scene.history)
    scene.readers.append(reader)
    scene.live.append(LiveReader(reader, scene.random.randrange(1000)))
    yield
