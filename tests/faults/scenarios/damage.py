"""Files of ours are damaged while no daemon runs. What that may have cost is read again from the store, or is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.faults.scenario import fault
from tests.faults.scene import Scene

Damage = Callable[[Scene, Path], None]
_ZEROES = 4096  # bytes
_KIND = ("bob.journal", "carol.journal")


def _flip(scene: Scene, path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        at = scene.random.randrange(len(data))
        data[at] ^= 1 << scene.random.randrange(8)
        path.write_bytes(data)
        scene.history.note(f"bit flipped in {path.name} at {at} of {len(data)}")


def _cut(scene: Scene, path: Path) -> None:
    size = path.stat().st_size
    kept = scene.random.randrange(size + 1) if size < 200 else size - scene.random.randrange(200)
    with open(path, "r+b") as file:
        file.truncate(kept)
    scene.history.note(f"{path.name} cut to {kept} of {size}")


def _zeroes(scene: Scene, path: Path) -> None:
    """As a file system leaves a file that grew before a power failure."""
    with open(path, "ab") as file:
        file.write(bytes(_ZEROES))
    scene.history.note(f"zeroes at the end of {path.name}")


def _hole(scene: Scene, path: Path) -> None:
    """A block in the middle is zeroes."""
    data = bytearray(path.read_bytes())
    at = scene.random.randrange(max(1, len(data)))
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)
    scene.history.note(f"512 zeroes in {path.name} at {at} of {len(data)}")


def _in_a_journal(scene: Scene, damage: Damage) -> None:
    scene.b.home.kill()
    damage(scene, scene.b.home.state / "agents" / scene.random.choice(_KIND))
    scene.b.home.start()


@fault("one bit of a receiver's journal flips", rounds=4, short=3, long=24, kept=False, again=True)
def journal_flip(scene: Scene) -> None:
    _in_a_journal(scene, _flip)


@fault("one bit of a receiver's journal flips; the store was emptied", rounds=3, long=20, kept=False, again=True)
def journal_flip_flush(scene: Scene) -> None:
    """What the journal lost is not in the store either: it is told."""
    scene.b.home.kill()
    with scene.store.client() as client:
        client.delete("mesh:to_bob", "mesh:to_carol")
    _flip(scene, scene.b.home.state / "agents" / "carol.journal")
    scene.b.home.start()


@fault("a receiver's journal is cut at its end", rounds=3, short=1, kept=False, again=True)
def journal_cut(scene: Scene) -> None:
    _in_a_journal(scene, _cut)


@fault("zeroes at the end of a receiver's journal", rounds=3)
def journal_zeroes(scene: Scene) -> None:
    _in_a_journal(scene, _zeroes)


@fault("a block of a receiver's journal is zeroes", rounds=3, kept=False, again=True)
def journal_hole(scene: Scene) -> None:
    _in_a_journal(scene, _hole)


def _others(scene: Scene) -> list[Path]:
    """All files of b's state and cache that are no journals."""
    folders = (scene.b.home.state, scene.b.home.cache)
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if path.suffix != ".journal" and ".damaged" not in path.name]


def _in_another_file(scene: Scene, damage: Damage) -> None:
    """What a daemon does not read, and says so by its name, has lost nothing: it is repaired then."""
    files = _others(scene)
    path = files[len(scene.recovered) % len(files)]
    scene.b.home.kill()
    before = path.read_bytes()
    damage(scene, path)
    said = _trouble_at_the_start(scene)
    if said is not None:
        scene.history.note(f"not read: {said}")
        if path.name not in said:
            scene.troubles.append(f"the daemon does not work with a damaged {path.name}, which is not named: {said}")
        if scene.b.home.daemon is not None and scene.b.home.daemon.poll() is None:
            scene.b.home.kill()
        path.write_bytes(before)
        scene.b.home.start()
    for name in ("bob", "carol"):
        scene.b.home.run("register", name)


def _trouble_at_the_start(scene: Scene) -> str | None:
    """What the daemon says that it cannot work with, if that is so."""
    try:
        scene.b.home.start()
    except AssertionError as refused:
        return str(refused)[-300:]
    with scene.b.home.rpc() as rpc:
        trouble: str | None = rpc.call("status")["trouble"]
    return trouble


@fault("one bit of another file of the receiver flips", rounds=6, short=0, long=30, kept=False, again=True)
def other_flip(scene: Scene) -> None:
    _in_another_file(scene, _flip)


@fault("another file of the receiver is cut", rounds=6, long=30, kept=False, again=True)
def other_cut(scene: Scene) -> None:
    _in_another_file(scene, _cut)


@fault("zeroes at the end of another file of the receiver", rounds=6, long=30, kept=False, again=True)
def other_zeroes(scene: Scene) -> None:
    _in_another_file(scene, _zeroes)
