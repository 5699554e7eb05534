"""A daemon with two good agents and some that are broken, each in its own way."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.machines import LONG, ROUNDS
from tests.helper import Home, Rpc, Store, a_home, wait_until
from tests.mesh.peer import hosted, receiving
from tests.store.servers import a_store

GOOD = ("dora", "emil")
TELLER = "teller"  # nobody hosts it
COUNT = 1000 if LONG else 25 * ROUNDS  # broadcasts, and direct messages to each
CHUNK = 50
HUGE = 100_000_000  # bytes of each entry that is too large

# What is broken, and a word that a true sentence about it has.
TROUBLES = {
    "nolog": r"notify",
    "nodisk": r"No space left|no room|is full",
    "nojournal": r"journal",
    "toolarge": r"quarantin|QUARANTIN|over the limit|too large|bytes|M(i)?B\b",
}


class Mesh:
    """A daemon with two good agents and some that are broken, each named for what is broken."""

    def __init__(self, home: Home, broken: tuple[str, ...]) -> None:
        self.home = home
        self.broken = broken
        self.told: list[str] = []  # broadcasts
        self.repeats = 0  # sends that were not acknowledged in time; after one, the order is not what was asked for
        self.sent: dict[str, list[str]] = {name: [] for name in (*GOOD, *broken)}

    @property
    def inside(self) -> list[str]:
        """What runs a command where the daemon's own mounts are."""
        assert self.home.daemon is not None
        return ["nsenter", "-m", "-t", str(self.home.daemon.pid)]

    @property
    def root(self) -> Path:
        """The daemon's own view of the disk."""
        assert self.home.daemon is not None
        return Path(f"/proc/{self.home.daemon.pid}/root")

    @property
    def filler(self) -> Path:
        return self.root / str(self.home.path / "small").lstrip("/") / "filler"

    def files(self, name: str) -> dict[str, tuple[int, int]]:
        """Size and time of all that is the agent's, as the daemon sees it."""
        folders = (self.home.state, self.home.cache)
        found = [path for folder in folders for path in (self.root / str(folder).lstrip("/")).rglob(f"*{name}*")]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found if path.is_file()}

    def unread(self, name: str) -> int:
        return int((hosted(self.home, name) or {"unread": 0})["unread"])

    def run(self, *arguments: str) -> tuple[int, str, str]:
        done = self.home.run(*arguments)
        return done.returncode, done.stdout, done.stderr

    # --- mail ---

    def tell(self, rpc: Rpc, count: int) -> None:
        """So many broadcasts, and direct messages to each good agent; some for the broken ones, whatever becomes
        of these. A store that is made to read large entries answers nobody meanwhile: what is not acknowledged in
        time is sent again under its id, and counted."""
        all_ = [f"all-{len(self.told) + n}" for n in range(count)]
        self.told += all_
        calls: list[tuple[str, dict[str, Any]]] = [("broadcast", {"message": text, "id": text}) for text in all_]
        for name in GOOD:
            direct = [f"{name}-{len(self.sent[name]) + n}" for n in range(count)]
            self.sent[name] += direct
            calls += [("send", {"target": name, "message": text, "id": text, "private": True}) for text in direct]

        def acknowledged() -> bool:
            asked = {rpc.send(method, from_=TELLER, **params): (method, params) for method, params in calls}
            answers = [rpc.read() for _ in asked]  # in any order
            refused = {answer["id"]: answer["error"] for answer in answers if "error" in answer}
            assert not [error for error in refused.values() if not error["data"]["retryable"]], refused
            calls[:] = [call for request, call in asked.items() if request in refused]
            self.repeats += len(calls)
            return not calls

        wait_until(acknowledged, "all is sent", 60)
        for name in self.broken:
            rpc.answer("send", target=name, message=f"{name}-{len(self.sent[name])}", from_=TELLER, private=True)
            self.sent[name].append(f"{name}-{len(self.sent[name])}")

    def have_all(self) -> bool:
        return all(self.unread(name) >= len(self.told) + len(self.sent[name]) for name in GOOD)

    def inbox(self, name: str) -> tuple[list[str], list[str], int]:
        """All that is unread: broadcasts, direct messages, and how many it is told were lost."""
        found: list[dict[str, Any]] = []
        lost = 0
        with self.home.rpc() as rpc:
            while messages := (result := rpc.call("inbox", name=name))["messages"]:
                found += messages
                lost += result["lost"]
        kinds = [
            [message["text"] for message in found if (message["kind"] == "broadcast") == to_all] for to_all in (1, 0)
        ]
        return kinds[0], kinds[1], lost


@contextlib.contextmanager
def a_mesh(folder: Path, broken: tuple[str, ...]) -> Iterator[Mesh]:
    """Running, with these of TROUBLES. Nothing limits what is written into its store."""
    with a_store("redis", folder / "store", "--save", "") as store, a_home(folder / "home", store.url) as home:
        made = Mesh(home, broken)
        home.start()
        for name in (*GOOD, *broken):
            home.meshctl("register", name)
        wait_until(lambda: all(receiving(home, name) for name in (*GOOD, *broken)), "all receive")
        assert home.stop() == 0
        if "nolog" in broken:
            log = home.cache / "notify-nolog.log"
            log.unlink(missing_ok=True)
            (log / "in the way").mkdir(parents=True)
        if "nojournal" in broken:
            journal = home.state / "agents" / "nojournal.journal"
            journal.unlink(missing_ok=True)
            (journal / "in the way").mkdir(parents=True)
        if "toolarge" in broken:
            _write_large_entries(store, "mesh:to_toolarge", 8)
        home.start(through=_a_small_disk_for(home, "nodisk") if "nodisk" in broken else ())
        if "nodisk" in broken:
            fill(made.filler)
        yield made


def _write_large_entries(store: Store, key: str, count: int) -> None:
    """By our own hands: a client would copy each a few times first."""
    text = b"x" * HUGE
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(store.socket)
        for n in range(count):
            words = [
                b"XADD",
                key.encode(),
                b"*",
                b"from",
                b"mallory",
                b"msg",
                text,
                b"ts",
                b"1.5",
                b"id",
                b"large%d" % n,
            ]
            connection.sendall(b"*%d\r\n" % len(words))
            for word in words:
                connection.sendall(b"$%d\r\n" % len(word))
                connection.sendall(word)
                connection.sendall(b"\r\n")
            assert connection.recv(100).startswith(b"$"), "the store takes it"


def _a_small_disk_for(home: Home, name: str) -> list[str]:
    """What starts the daemon where this agent's journal alone lies on a small disk of its own."""
    small, journal = home.path / "small", home.state / "agents" / f"{name}.journal"
    small.mkdir()
    journal.touch(0o600)
    steps = [
        f"mount -t tmpfs -o size=64k,mode=700 small {small}",
        f"cp -p {journal} {small}/journal",
        f"mount --bind {small}/journal {journal}",
        'exec "$@"',
    ]
    return ["unshare", "-m", "sh", "-c", " && ".join(steps), "sh"]


def fill(path: Path | str) -> None:
    """Until not a byte more has room on that disk."""
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
