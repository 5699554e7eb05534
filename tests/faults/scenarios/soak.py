"""Random faults one after the other, with quiet periods between, for as long as it has rounds."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.scenario import ANY, Stage, under_load, whole
from tests.faults.scenarios import administration, network, processes, rollback
from tests.faults.scene import Scene, Setup, a_scene

_KEEPING: list[Callable[[Scene], None]] = [
    *(
        network.cut,
        network.cut_before_request,
        network.cut_after_request,
        network.cut_in_reply,
        network.reply_dropped,
        network.frozen_1,
    ),
    *(network.half_open, network.refused, network.trickle),
    *(processes.kill_daemon, processes.end_daemon, processes.stop_daemon, processes.kill_reader, processes.kill_store),
    *(processes.end_store, processes.kill_both),
    *(administration.script_flush, administration.client_kill, administration.out_of_memory),
    *(administration.no_replicas, administration.access_narrowed),
]
_TAKING = [
    *(administration.flush, administration.flush_away, administration.delete, administration.rename),
    *(rollback.restored, rollback.restored_away),
]
_EMBEDDED = [processes.kill_any_embedded, processes.end_daemon, processes.kill_reader]


def _soak(stage: Stage, faults: list[Callable[[Scene], None]]) -> None:
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:

        def act(scene: Scene) -> None:
            one = scene.random.choice(faults)
            scene.history.note(one.__name__)
            one(scene)
            if scene.random.random() < 0.3:
                scene.rest(scene.random.uniform(1, 5))  # a quiet period

        under_load(stage, scene, act)


@whole("soak: random faults", rounds=40, long=150, stores=ANY)
def soak(stage: Stage) -> None:
    """None of which may cost a message."""
    _soak(stage, _EMBEDDED if stage.kind not in ("redis", "valkey") else _KEEPING)


@whole("soak: random faults, and a store that loses what it has", rounds=40, long=150, kept=False)
def soak_with_losses(stage: Stage) -> None:
    _soak(stage, [*_KEEPING, *_TAKING])
