"""One agent's trouble is its own: whatever is broken for it, its neighbours' run is the same as without it."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_trouble import needs_root
from tests.doctor.checkup import checkup
from tests.faults.machines import LONG, ROUNDS, rounds_take
from tests.helper import Home, Rpc, Store, a_home, wait_until
from tests.mesh.peer import hosted, receiving
from tests.store.servers import a_store

GOOD = ("dora", "emil")
TELLER = "teller"  # nobody hosts it
COUNT = 1000 if LONG else 25 * ROUNDS  # broadcasts, and direct messages to each
CHUNK = 50
MEMORY = 300 << 20  # bytes
HUGE = 100_000_000  # bytes of each entry that is too large
SOON = 15.0 if LONG else 3.0  # seconds in which whoever still writes would write

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

    def memory(self) -> int:
        """The daemon's peak, in bytes."""
        assert self.home.daemon is not None
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.home.daemon.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

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
        of these."""
        calls = []
        for n in range(count):
            text = f"all-{len(self.told) + n}"
            calls.append(rpc.send("broadcast", message=text, from_=TELLER))
        self.told += [f"all-{len(self.told) + n}" for n in range(count)]
        for name in GOOD:
            calls += [self._direct(rpc, name) for _ in range(count)]
        answers = [rpc.read() for _ in calls]  # in any order
        assert not [answer["error"] for answer in answers if "error" in answer]
        for name in self.broken:
            rpc.answer("send", target=name, message=f"{name}-{len(self.sent[name])}", from_=TELLER, private=True)
            self.sent[name].append(f"{name}-{len(self.sent[name])}")

    def _direct(self, rpc: Rpc, name: str) -> int:
        text = f"{name}-{len(self.sent[name])}"
        self.sent[name].append(text)
        return rpc.send("send", target=name, message=text, from_=TELLER, private=True)

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


@pytest.fixture
def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mesh]:
    broken: tuple[str, ...] = request.param
    # Nothing limits what is written into this store.
    with a_store("redis", tmp_path / "store", "--save", "") as store, a_home(tmp_path / "home", store.url) as home:
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
            _fill(made.filler)
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


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


NONE: tuple[str, ...] = ()  # what the others are compared with
ALONE = [(trouble,) for trouble in TROUBLES if LONG or trouble != "toolarge"]
TOGETHER = ("nolog", "nodisk", "toolarge")


@needs_root
@rounds_take(20)
@pytest.mark.parametrize("mesh", [NONE, *ALONE, TOGETHER], indirect=True, ids="+".join)
def test_a_broken_agent_beside_two_good_ones(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    """The good ones receive all as if alone; the broken one is named by `status`, `doctor` and its own `inbox`; a
    deregister ends all that is done for it; and the daemon stays small."""
    wrong: list[str] = []
    with mesh.home.rpc() as rpc:
        for _ in range(0, COUNT, CHUNK):
            mesh.tell(rpc, CHUNK)
    began = time.monotonic()
    try:
        wait_until(mesh.have_all, "the good ones have all", 30)
    except AssertionError as error:
        wrong.append(str(error))
    took = time.monotonic() - began
    for name in GOOD:
        wrong += _as_if_alone(mesh, name)
    wrong += _still(lambda: [f"status: {line}" for line in _unnamed(mesh, "status")])
    wrong += [f"doctor: {line}" for line in _unnamed(mesh, "doctor")]
    for name in mesh.broken:
        wrong += _wrong_inbox(mesh, name)
    if (peak := mesh.memory()) > MEMORY:
        wrong.append(f"the daemon's peak is {peak >> 20} MiB")
    for name in mesh.broken:
        wrong += _goes_on_after_deregister(mesh, name)
    with capsys.disabled():
        print(f"\n    {COUNT} broadcasts, {COUNT} direct each, all there after {took:.1f} s, {peak >> 20} MiB", end=" ")
    assert not wrong, "\n".join(wrong)


def _as_if_alone(mesh: Mesh, name: str) -> Iterator[str]:
    broadcasts, direct, lost = mesh.inbox(name)
    if broadcasts != mesh.told:
        yield f"{name} has {len(broadcasts)} broadcasts of {len(mesh.told)}"
    if direct != mesh.sent[name]:
        yield f"{name} has {len(direct)} direct messages of {len(mesh.sent[name])}"
    if lost:
        yield f"{name} is told LOST {lost}"
    lines = len(mesh.home.notify_lines(name))
    if lines != len(mesh.told) + len(mesh.sent[name]):
        yield f"{name}'s notify log has {lines} lines"


def _still(wrong: Callable[[], list[str]]) -> list[str]:
    """What is wrong and does not become right soon."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not wrong(), "it is right", 10)
    return wrong()


def _unnamed(mesh: Mesh, command: str) -> list[str]:
    """The broken agents of which this command has no true sentence."""
    if command == "doctor":
        found = [
            finding for finding in checkup(mesh.home, through=mesh.inside) if finding["level"] in ("error", "warning")
        ]
        lines = [finding["what"] for finding in found]
    else:
        lines = mesh.home.run("status").stdout.splitlines()
    return [
        f"nothing true of {name}: {lines}" for name in mesh.broken if not [line for line in lines if _says(line, name)]
    ]


def _says(text: str, name: str) -> bool:
    """Whether a text names the agent and what is wrong with it. A file's name that holds it does for the agent."""
    return bool(re.search(rf"\b{name}\b", text) and re.search(TROUBLES[name], text))


def _wrong_inbox(mesh: Mesh, name: str) -> Iterator[str]:
    """Whoever asks is told. A notify log holds no mail back, and neither does an entry that was passed by."""
    if name in ("nolog", "toolarge"):
        _still(lambda: [] if mesh.unread(name) >= len(mesh.sent[name]) else ["less than was sent"])
    code, out, err = mesh.run("inbox", name, "--limit", "5000")
    if not re.search(TROUBLES[name], out + err):  # whose it is was in the command
        yield f"inbox {name} says nothing true of it: exit {code}: {out[:300]}{err[:300]}"
    if name in ("nodisk", "nojournal") and code != 4:
        yield f"inbox {name}: exit {code}"
    if name == "nolog" or (name == "toolarge" and code != 4):
        missing = [text for text in mesh.sent[name] if not re.search(rf"\] {text}$", out, re.MULTILINE)]
        if code not in (0, 4) or missing:
            yield f"inbox {name}: exit {code}, {len(missing)} of {len(mesh.sent[name])} are not there"


def _goes_on_after_deregister(mesh: Mesh, name: str) -> Iterator[str]:
    """Nothing does; not even when what was broken is mended."""
    code, _, err = mesh.run("deregister", name)
    if code:
        yield f"deregister {name}: exit {code}: {err}"
    before = mesh.files(name)
    if name == "nodisk":
        mesh.filler.unlink()
    elif name == "nolog":
        folder = mesh.home.cache / "notify-nolog.log"
        (folder / "in the way").rmdir()
        folder.rmdir()
    until = time.monotonic() + SOON
    with mesh.home.rpc() as rpc:
        for n in itertools.count():
            text = f"after {name} {n}"
            rpc.call("broadcast", message=text, from_=TELLER)
            if not _both_hear(mesh, text):
                yield f"after deregister {name} the good ones do not receive {text!r}"
                return
            if time.monotonic() > until:
                break
    after = mesh.files(name)
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    if changed:
        yield f"after deregister {name} these are written: {changed}"
    if re.search(rf"\b{name}\b", status := mesh.home.run("status").stdout):
        yield f"after deregister status still has {name}: {status}"


def _both_hear(mesh: Mesh, text: str) -> bool:
    """Both good agents are given this broadcast; it is read then."""
    left = set(GOOD)

    def heard() -> bool:
        for name in list(left):
            if text in mesh.inbox(name)[0]:
                left.remove(name)
        return not left

    try:
        wait_until(heard, "both have it", 10)
    except AssertionError:
        return False
    return True
