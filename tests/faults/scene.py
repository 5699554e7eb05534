"""Two machines under load, whose every send and every hand-over is written down: what a scenario breaks.

Machine `b` has bob, who is read live, and carol, who is read at the end; machine `a` has anna, who is read live. Each
machine has senders of its own, and its own way to the store. With the embedded store, which belongs to one machine,
both are the same one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.faults.checker import SILENT, TAKEN, judge
from tests.faults.history import EVERYBODY, Hosts, Recorder
from tests.faults.leaks import Footprint, clients_of, endless_keys, footprint
from tests.faults.machines import Machine, clock_library
from tests.faults.readers import LiveReader, Reader
from tests.faults.writers import OneByOne, Volleys, Windowed, Writer
from tests.helper import Home, Store, wait_until
from tests.mesh.peer import receiving
from tests.store.servers import a_store, is_up

EMBEDDED = "embedded"
RECOVERED = 60.0  # seconds; a mesh that needs longer has not recovered
_PROBE = 1.0  # seconds after which an acknowledged probe that did not come is followed by another
_CLIENTS = 20  # more than before
_PATIENCE = 10.0  # seconds without anything new, after which what is missing is lost
_W = TypeVar("_W", bound=Writer)
_LOG = ("--appendonly", "yes", "--save", "")


@dataclass(frozen=True)
class Setup:
    """How a scene is set: the store's options, all senders' messages a second together, those of one more who writes to
    bob alone, bytes of a text, and further variables of each machine's programs."""

    options: tuple[str, ...] = _LOG
    rate: float = 150.0
    to_bob: float = 0.0
    size: int = 40
    env_a: Mapping[str, str] = field(default_factory=dict)
    env_b: Mapping[str, str] = field(default_factory=dict)
    clock: bool = False  # b has a clock that can be set
    private: bool = True  # no copies of direct messages in the group


class Lone(Machine):
    """A machine with the embedded store, and no way to it."""

    def __init__(self, label: str, path: Path) -> None:
        self.label = label
        self.home = Home(path)

    def close(self) -> None:
        self.home.close()


class Prober(Writer):
    """Finds out whether mail flows from its machine to a name that is read live."""

    def reach(self, name: str, deadline: float) -> bool:
        """Whether one of the messages sent from now on is acknowledged and handed out within `deadline` seconds."""
        until = time.monotonic() + deadline
        sent: list[str] = []
        try:
            while time.monotonic() < until and not any(self._history.was_handed(name, one) for one in sent):
                sent.append(self._intend(name))
                while self._attempt(name, sent[-1]) != "sent" and time.monotonic() < until:
                    time.sleep(0.02)  # the pace of a client that tries again
                self._history.wait_for_handed(name, sent[-1], _PROBE)
        finally:
            self._hang_up()
        return any(self._history.was_handed(name, one) for one in sent)


class Scene:
    """What a round of a scenario is given."""

    def __init__(self, a: Machine, b: Machine, store: Store | None, history: Recorder, seed: int, setup: Setup) -> None:
        self.a, self.b = a, b
        self.history = history
        self.random = random.Random(seed)
        self.setup = setup
        self.recovered: list[float] = []  # seconds, of each round
        self.troubles: list[str] = []  # what is wrong beside the history
        self._store = store
        self._before: dict[str, Footprint] = {}
        self._clients = 0  # of the store, before
        self.bob = Reader(b.label, b.home, "bob", history)
        self.carol = Reader(b.label, b.home, "carol", history)
        self.anna = Reader(a.label, a.home, "anna", history)
        self._hosted = [self.bob, self.carol, self.anna]
        self.readers = list(self._hosted)
        self.live = [LiveReader(reader, seed + n) for n, reader in enumerate((self.bob, self.anna))]
        self._volleys = [self.writer(Volleys, f"v-{m.label}-{t}", m, [t]) for m, t in ((a, "bob"), (b, "anna"))]
        self.writers = [*self._writers(), *self._volleys]
        self._probers = [self.writer(Prober, f"probe-{m.label}-{t}", m, [t]) for m, t in ((a, "bob"), (b, "anna"))]

    @property
    def store(self) -> Store:
        """The external store."""
        assert self._store is not None
        return self._store

    @property
    def machines(self) -> list[Machine]:
        return [self.a] if self.a is self.b else [self.a, self.b]

    def writer(self, kind: type[_W], name: str, machine: Machine, targets: list[str], rate: float = 1.0) -> _W:
        """A sender of this scene; it is not started, and its lines are not closed."""
        setup = self.setup
        return kind(name, machine.home, targets, self.history, rate, size=setup.size, private=setup.private)

    def _writers(self) -> list[Writer]:
        """Half one by one, half with a window; two of three on `a`, and one of each that broadcasts."""
        kinds = (OneByOne, Windowed)
        plan = [
            *((kind, self.a, ["bob", "carol"]) for kind in kinds * 2),
            *((kind, self.b, ["anna", "carol"]) for kind in kinds),
        ]
        share = self.setup.rate / (len(plan) + 0.5)
        made = [self.writer(kind, f"s{n}", machine, to, share) for n, (kind, machine, to) in enumerate(plan)]
        if self.setup.to_bob:
            made.append(self.writer(Windowed, "much", self.a, ["bob"], self.setup.to_bob))
        return made + [self.writer(kind, f"all{n}", self.a, [EVERYBODY], share / 4) for n, kind in enumerate(kinds)]

    # --- a run ---

    def begin(self) -> None:
        """Start all; returns when mail flows both ways."""
        for machine in self.machines:
            machine.home.start()
            wait_until(functools.partial(is_up, machine.home), "the store is up", 60)
        for reader in self._hosted:
            with reader.home.rpc() as rpc:
                rpc.call("register", name=reader.name)
        for reader in self._hosted:
            wait_until(functools.partial(receiving, reader.home, reader.name), f"{reader.name} receives", 60)
            self.history.write(Hosts(reader.name))
        for thread in (*self.live, *self.writers):
            thread.start()
        self.flow()
        self.reach()
        self._before = {machine.label: footprint(machine.home) for machine in self.machines}
        self._clients = clients_of(self._store) if self._store is not None else 0

    def flow(self, messages: int = 30) -> None:
        """Returns when so many more messages were acknowledged: the load is there to be disturbed."""
        wanted = self.history.sent + messages
        assert self.history.wait_for_sent(wanted, RECOVERED), f"no {messages} messages are acknowledged"

    def moment(self, least: float = 0.02, most: float = 0.4) -> None:
        """Some time: the moment of a fault is what is tested."""
        self.rest(self.random.uniform(least, most))

    def rest(self, seconds: float) -> None:
        """How long a fault lasts is what is tested."""
        time.sleep(seconds)

    def reach(self) -> float:
        """Seconds until, in both directions, a new message is acknowledged and handed to its live reader."""
        begin = time.monotonic()
        names = ("bob", "anna")
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            found = pool.map(lambda prober, name: prober.reach(name, RECOVERED), self._probers, names)
            for prober, name, reached in zip(self._probers, names, found, strict=True):
                assert reached, f"{prober.name} does not reach {name} within {RECOVERED:g} s"
        return time.monotonic() - begin

    def volley(self) -> None:
        """Some messages as one piece at each machine, for what happens in the next moment."""
        for volleys in self._volleys:
            volleys.fire()

    def hush(self, quiet: bool) -> None:
        """The senders pause, or go on. Returns when what they had begun has ended."""
        for writer in self.writers:
            writer.quiet = quiet
        if quiet:
            wait_until(lambda: all(writer.idle for writer in self.writers), "the senders pause", RECOVERED)

    def use(self, store: Store) -> None:
        """Another server is the store from now on."""
        self._store = store

    def recover(self) -> None:
        """To be called when a fault is over."""
        self.recovered.append(self.reach())

    def stop(self) -> None:
        """End the load."""
        threads: list[Writer | LiveReader] = [*self.writers, *self.live]
        for thread in threads:
            thread.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(120)
                assert not thread.is_alive(), f"{thread.name} hangs"

    def finish(self, *, closing: bool = True) -> None:
        """The load ends, all is sent to its end and read to its end, and what the hints say is written down.

        `closing`: each sender has one more message for each target.
        """
        self.stop()
        for writer in self.writers if closing else ():
            try:
                writer.close_lines()
            except AssertionError as error:
                self.troubles.append(str(error))
        self.settle()
        for reader in self.readers:
            reader.look_up()
        self._compare()

    def settle(self) -> None:
        """Read everything, until nothing is missing that was not told, or nothing new has come for long."""
        quiet_since, pause = time.monotonic(), 0.05
        while time.monotonic() < quiet_since + _PATIENCE:
            if sum(reader.drain() for reader in self.readers):
                quiet_since = time.monotonic()
            begin = time.monotonic()
            kinds = {finding.kind for finding in judge(self.history.events).findings}
            if not kinds & {SILENT, TAKEN}:
                return
            # Judging a long history takes longer than reading.
            time.sleep(max(pause, time.monotonic() - begin))

    def _compare(self) -> None:
        """What a daemon or the store holds more than before."""
        for machine in self.machines:
            before = self._before[machine.label]
            with contextlib.suppress(AssertionError):
                wait_until(functools.partial(_is_well, machine.home, before), "no more is open than before")
            now = footprint(machine.home)
            self.history.note(f"{machine.label} before: {before}, after: {now}")
            self.troubles += [f"{machine.label}: {leak}" for leak in now.leaks(before)]
        if self._store is not None:
            self.troubles += endless_keys(self._store)
            clients = clients_of(self._store)
            if clients > self._clients + _CLIENTS:
                self.troubles.append(f"the store has {clients} clients, it had {self._clients}")


def _is_well(home: Home, before: Footprint) -> bool:
    return not footprint(home).leaks(before)


@contextlib.contextmanager
def a_scene(folder: Path, kind: str, seed: int, setup: Setup) -> Iterator[Scene]:
    """Set, with nothing started but the store. `kind`: embedded, redis or valkey."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if kind == EMBEDDED:
            lone = Lone("a", folder / "a")
            lone.home.env |= setup.env_a
            stack.callback(lone.close)
            yield stack.enter_context(between(folder, lone, lone, None, seed, setup))
            return
        store = stack.enter_context(a_store(kind, folder / "store", *setup.options))
        yield stack.enter_context(on_store(folder, store, seed, setup))


@contextlib.contextmanager
def on_store(folder: Path, store: Store, seed: int, setup: Setup) -> Iterator[Scene]:
    """A scene of two machines on a server that runs, each behind its own way to it."""
    clock = clock_library(folder) if setup.clock else None
    with contextlib.ExitStack() as stack:
        a, b = Machine("a", folder / "a", store), Machine("b", folder / "b", store, clock)
        for machine, more in ((a, setup.env_a), (b, setup.env_b)):
            machine.home.env |= more
            stack.callback(machine.close)
        yield stack.enter_context(between(folder, a, b, store, seed, setup))


@contextlib.contextmanager
def between(folder: Path, a: Machine, b: Machine, store: Store | None, seed: int, setup: Setup) -> Iterator[Scene]:
    """A scene on machines that are there. Its history is in the folder. Its threads have ended when it is left."""
    history = Recorder(folder / "history.jsonl")
    scene = Scene(a, b, store, history, seed, setup)
    try:
        yield scene
    finally:
        scene.stop()
        history.close()
