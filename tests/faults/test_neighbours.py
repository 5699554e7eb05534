"""One agent's trouble is its own: whatever is broken for it, its neighbours' run is the same as without it."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.test_trouble import needs_root
from tests.doctor.checkup import checkup
from tests.faults.broken import CHUNK, COUNT, GOOD, TELLER, TROUBLES, Mesh, a_mesh
from tests.faults.leaks import peak
from tests.faults.machines import LONG, rounds_take
from tests.helper import wait_until

MEMORY = 300 << 20  # bytes
SOON = 15.0 if LONG else 3.0  # seconds in which whoever still writes would write
NONE: tuple[str, ...] = ()  # what the others are compared with
ALONE = [(trouble,) for trouble in TROUBLES if LONG or trouble != "toolarge"]
TOGETHER = ("nolog", "nodisk", "toolarge")


@pytest.fixture
def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mesh]:
    with a_mesh(tmp_path, request.param) as made:
        yield made


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
    if (most := peak(mesh.home)) > MEMORY:
        wrong.append(f"the daemon's peak is {most >> 20} MiB")
    for name in mesh.broken:
        wrong += _goes_on_after_deregister(mesh, name)
    with capsys.disabled():
        print(f"\n    {COUNT} broadcasts, {COUNT} direct each, all there after {took:.1f} s", end=", ")
        print(f"{mesh.repeats} sends repeated, {most >> 20} MiB", end=" ")
    assert not wrong, "\n".join(wrong)


def _as_if_alone(mesh: Mesh, name: str) -> Iterator[str]:
    broadcasts, direct, lost = mesh.inbox(name)
    told, sent = mesh.told, mesh.sent[name]
    if mesh.repeats:
        told, sent, broadcasts, direct = sorted(told), sorted(sent), sorted(broadcasts), sorted(direct)
    if broadcasts != told:
        yield f"{name} has {len(broadcasts)} broadcasts of {len(mesh.told)}"
    if direct != sent:
        yield f"{name} has {len(direct)} direct messages of {len(mesh.sent[name])}"
    if lost:
        yield f"{name} is told LOST {lost}"
    lines = len(mesh.home.notify_lines(name))
    if lines != len(mesh.told) + len(mesh.sent[name]):
        yield f"{name}'s notify log has {lines} lines"


def _still(wrong: Callable[[], list[str]]) -> list[str]:
    """What is wrong and does not become right soon."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not wrong(), "it is right")
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
