"""What a scenario is, and how it comes into the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.scene import EMBEDDED, Scene, Setup, a_scene

EXTERNAL = ("redis", "valkey")
ANY = (*EXTERNAL, EMBEDDED)


@dataclass
class Stage:
    """Where one run of a scenario happens. `history` is written in the folder; the rest is what the run says of it."""

    folder: Path
    kind: str  # of the store
    seed: int
    rounds: int
    recovered: list[float] = field(default_factory=list)  # seconds
    troubles: list[str] = field(default_factory=list)  # what is wrong beside the history

    @property
    def history(self) -> Path:
        return self.folder / "history.jsonl"

    def take(self, scene: Scene) -> None:
        self.recovered += scene.recovered
        self.troubles += scene.troubles

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.troubles.append(what)


@dataclass(frozen=True)
class Scenario:
    """A named fault. `short` and `long` are its rounds in those forms; 0 leaves it out.

    `stores`: the kinds with which it makes sense, the one that is taken if only one is first. `kept`: nothing that was
    acknowledged may be lost; otherwise it may if that is told. `again`: what was read may come again, because that it
    was is among what is damaged.
    """

    name: str
    run: Callable[[Stage], None]
    rounds: int
    short: int
    long: int
    stores: Sequence[str]
    kept: bool
    again: bool = False


SCENARIOS: dict[str, Scenario] = {}

Act = Callable[[Scene], None]
Whole = Callable[[Stage], None]


def _add(scenario: Scenario) -> None:
    assert scenario.name not in SCENARIOS, scenario.name
    SCENARIOS[scenario.name] = scenario


def under_load(stage: Stage, scene: Scene, act: Act, *, closing: bool = True, then: Act | None = None) -> None:
    """All rounds of a fault in a scene that is set, from its begin to its end. `then` comes before all is read."""
    scene.begin()
    for number in range(1, stage.rounds + 1):
        scene.flow()
        scene.moment()
        scene.history.note(f"round {number}")
        act(scene)
        scene.history.note("over")
        scene.recover()
    if then is not None:
        then(scene)
    scene.finish(closing=closing)
    stage.take(scene)


def fault(
    name: str,
    *,
    rounds: int = 3,
    short: int = 0,
    long: int = 20,
    stores: Sequence[str] = EXTERNAL,
    setup: Setup | None = None,
    closing: bool = True,
    kept: bool = True,
    again: bool = False,
) -> Callable[[Act], Act]:
    """A fault under load: the function breaks something and mends it, once a round.

    `closing`: every sender has one more message for each target when all is over.
    """

    def decorate(act: Act) -> Act:
        def run(stage: Stage) -> None:
            with a_scene(stage.folder, stage.kind, stage.seed, setup or Setup()) as scene:
                under_load(stage, scene, act, closing=closing)

        _add(Scenario(name, run, rounds, short, long, stores, kept, again))
        return act

    return decorate


def whole(
    name: str,
    *,
    rounds: int = 3,
    short: int = 0,
    long: int = 20,
    stores: Sequence[str] = EXTERNAL,
    kept: bool = True,
) -> Callable[[Whole], Whole]:
    """A scenario that sets its own scene, and makes its own rounds."""

    def decorate(run: Whole) -> Whole:
        _add(Scenario(name, run, rounds, short, long, stores, kept))
        return run

    return decorate
