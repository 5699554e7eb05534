"""The wall clock of one machine is set, or is wrong."""

from __future__ import annotations

from tests.faults.scenario import fault
from tests.faults.scene import Scene, Setup

_HOUR = 3600
_APART = 660  # seconds, more than a ping may be old
_WITH_CLOCK = Setup(clock=True)


@fault("clock of one machine set by an hour, forth and back", rounds=2, long=20, setup=_WITH_CLOCK)
def clock_steps(scene: Scene) -> None:
    for seconds in (_HOUR, -_HOUR, 0):
        scene.b.set_clock(seconds)
        scene.flow(40)


@fault("machines 11 min apart", rounds=2, short=1, long=20, setup=_WITH_CLOCK)
def apart(scene: Scene) -> None:
    """Ahead, then behind; a ping is answered all the same."""
    for seconds in (_APART, -_APART):
        scene.b.set_clock(seconds)
        scene.flow(40)
        done = scene.a.home.run("ping", "bob", "--timeout", "20")
        if done.returncode != 0:
            scene.troubles.append(f"ping with the receiver's clock {seconds:+} s: {done.stdout}{done.stderr}".strip())
    scene.b.set_clock(0)


@fault("machine asleep for an hour", rounds=2, long=20, setup=_WITH_CLOCK)
def asleep(scene: Scene) -> None:
    with scene.b.stopped():
        scene.b.sleep(_HOUR)
        scene.rest(1)
