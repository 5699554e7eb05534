"""The way between a daemon and its store breaks."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.scenario import fault
from tests.faults.scene import Scene, Setup
from tests.faults.way import Way

_MUCH = Setup(to_bob=200)
_VOLLEY = b"v-"  # in the ids of volleys, and in nothing else


def _some(scene: Scene) -> Sequence[Way]:
    """The way of one machine, of the other, or of both: each in its turn."""
    return ([scene.a.way], [scene.b.way], [scene.a.way, scene.b.way])[len(scene.recovered) % 3]


def _both(scene: Scene) -> list[Way]:
    return [scene.a.way, scene.b.way]


def _heal(scene: Scene) -> None:
    for way in _both(scene):
        way.heal()


@fault("net: cut at any moment", rounds=6, short=6, long=30, setup=_MUCH)
def cut(scene: Scene) -> None:
    scene.volley()
    for way in _some(scene):
        way.cut()
    scene.volley()


@fault("net: cut before the request", rounds=6, short=4, long=24, setup=_MUCH)
def cut_before_request(scene: Scene) -> None:
    for way in _some(scene):
        way.cut_before_request(_VOLLEY)
    scene.volley()
    scene.moment(0.5, 1.0)  # their repetition is lost as well
    _heal(scene)


@fault("net: cut after the request", rounds=6, short=4, long=24, setup=_MUCH)
def cut_after_request(scene: Scene) -> None:
    for way in _some(scene):
        way.cut_in_reply(0.0, _VOLLEY)
    scene.volley()
    scene.moment()
    _heal(scene)


@fault("net: cut in mid-reply", rounds=6, short=4, long=24, setup=_MUCH)
def cut_in_reply(scene: Scene) -> None:
    for way in _some(scene):
        way.cut_in_reply(0.5, _VOLLEY)
    scene.volley()
    scene.moment()
    _heal(scene)


@fault("net: reply dropped, request delivered", rounds=4, short=3, setup=_MUCH)
def reply_dropped(scene: Scene) -> None:
    """For less time than a send has, so that it is repeated; the connection is broken then."""
    for way in _some(scene):
        way.drop_replies()
    scene.volley()
    scene.rest(scene.random.uniform(0.2, 1.5))
    _heal(scene)


@fault("net: replies dropped for longer than a send waits", rounds=2, short=1, setup=_MUCH)
def replies_dropped(scene: Scene) -> None:
    for way in _both(scene):
        way.drop_replies()
    scene.volley()
    scene.rest(6.5)
    _heal(scene)


@fault("net: requests delivered after the connection was given up", rounds=2, short=0, setup=_MUCH)
def frozen_7(scene: Scene) -> None:
    for way in _both(scene):
        way.freeze()
    scene.volley()
    scene.rest(7)
    _heal(scene)


@fault("net: frozen 1 s", rounds=4, long=20, setup=_MUCH)
def frozen_1(scene: Scene) -> None:
    for way in _some(scene):
        way.freeze()
    scene.volley()
    scene.rest(1)
    _heal(scene)


@fault("net: frozen 30 s", rounds=1, long=2, setup=_MUCH)
def frozen_30(scene: Scene) -> None:
    for way in _some(scene):
        way.freeze()
    scene.volley()
    scene.rest(30)
    _heal(scene)


@fault("net: half-open", rounds=2, short=1, setup=_MUCH)
def half_open(scene: Scene) -> None:
    """What was open says nothing for ever; new connections are well a moment later."""
    for way in _both(scene):
        way.half_open()
    scene.volley()
    scene.rest(0.2)
    _heal(scene)


@fault("net: half-open, few messages", rounds=2, setup=Setup(rate=20))
def half_open_few(scene: Scene) -> None:
    half_open(scene)


@fault("net: one byte at a time", rounds=2, setup=Setup(rate=60))
def trickle(scene: Scene) -> None:
    for way in _some(scene):
        way.trickle()
    scene.rest(2)
    _heal(scene)


@fault("net: 200 ms delay", rounds=2, long=20, setup=_MUCH)
def delayed(scene: Scene) -> None:
    for way in _both(scene):
        way.delay(0.1)
    scene.rest(3)
    _heal(scene)


@fault("net: refused 3 s", rounds=2, short=1, setup=_MUCH)
def refused(scene: Scene) -> None:
    for way in _some(scene):
        way.refuse()
    scene.volley()
    scene.rest(3)
    _heal(scene)


@fault("net: one machine cut off for 8 s", rounds=1, short=0, long=20, setup=_MUCH)
def cut_off(scene: Scene) -> None:
    way = scene.random.choice(_both(scene))
    scene.random.choice([Way.refuse, Way.freeze, Way.half_open])(way)
    scene.rest(8)
    _heal(scene)
