"""Leases carried out: what core/lease.py says must be asked is asked here, and what the store answers is told to it.

A name is asked for by whoever needs to know: its reader before it takes mail in, a hand-over before it gives mail out
or takes a confirmation, the renewal in its own time. A name that another daemon has is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from meshd.core.clock import Mono
from meshd.core.lease import HANDOVER, TTL, Ask
from meshd.core.message import Ping, entry_key
from meshd.core.names import Keys, new_id
from meshd.errors import Full, MeshError, NotAllowed, NotFound, OutcomeUnknown, StoreDown, StoreError
from meshd.hosting import entries, moving
from meshd.hosting.moving import Moving
from meshd.observing.background import Background
from meshd.receiving.agent import Agent
from meshd.receiving.changes import Changes
from meshd.store import replies
from meshd.store.commands import Commands
from meshd.store.scripts import leases as scripts
from meshd.store.waits import Waiters
from meshd.system.clock import mono, now

log = logging.getLogger("meshd.lease")

TAKEN = "another daemon took it over"
_TRIED = 2.0  # seconds in which it should be known whether the store is there
_LAST_WORD = 0.4  # seconds of `HANDOVER` that are kept for writing down how far the name was read

# Lets go of an agent whose name another daemon has: the agent, and why.
LetGo = Callable[[Agent, str], Coroutine[Any, Any, None]]


class Taken(NamedTuple):
    """A name was acquired. `previous`: another daemon had it, which has given its last word if it `answered`."""

    previous: bool = False
    answered: bool = False


class Leases:
    """All leases of this daemon. `let_go` is called, in a task of its own, for a name that another daemon has."""

    let_go: LetGo

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        waits: Waiters,
        instance: str,
        changes: Changes,
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._waits = waits
        self._instance = instance
        self._changes = changes
        self._moving = Moving(keys, commands, instance)
        self._letting_go: dict[Agent, asyncio.Task[None]] = {}
        self.background = Background(log)

    # --- taking ---

    async def take(self, agent: Agent, *, takeover: bool = False, anew: bool = True) -> Taken:
        """Acquire the lease, and go on where the name was read, wherever that was.

        Not `anew`: nothing is asked if somebody else has asked while this waited for its turn. Raises `NotAllowed`
        naming the holder, `StoreError`, `Full`, and what the agent has ended with.
        """
        async with agent.leasing:
            agent.check_hosted()
            if agent.lease.gone:
                raise NotAllowed(f"{agent.name}: {TAKEN}", f"meshctl register {agent.name} --takeover moves it here")
            if not anew and agent.lease.asks(now()) is Ask.NOTHING:
                return Taken()
            keys, name, nonce, asked = self._keys, agent.name, new_id(), now()
            place = self._moving.place_of(agent)
            stored = self._commands.store_time()
            entry, cursor = entries.entry(agent, stored), place.cursor
            answer = await self._commands.script(
                scripts.host(
                    keys,
                    name,
                    instance=self._instance,
                    ttl=int(TTL),
                    entry=entry,
                    now=stored,
                    takeover=takeover,
                    nonce=nonce,
                    cursor=cursor,
                )
            )
            if isinstance(answer, scripts.Withheld):
                raise entries.held(name, answer.registry)
            read, left, answered = moving.read_record(answer.read), answer.left, False
            if answer.previous:
                # Whoever held it answers once it has let go, and has then written how far it was read.
                answered = await self._waits.first(keys.pong(nonce), HANDOVER, list) is not None
                read, left = await self._moving.look(name)
            await self._moving.move_in(agent, read, answer, place)
            if left:
                await self._moving.take_left(agent)
            if read is None or read.holder != self._instance:
                # From here on the last word is ours. One that stands there already must not be the last holder's when
                # something is handed out: who takes the name next would go on from that one.
                if answer.previous or answer.read:
                    await self.write_position(agent)
                else:
                    self._changes.read(agent)
            elif entry_key(read.received) < entry_key(agent.core.inbox.position.at):
                self._changes.read(agent)  # an earlier version did not tell it, and nobody finds room
            agent.lease.proven(asked)
        agent.changed.send()
        return Taken(bool(answer.previous), answered)

    async def acquire(self, agent: Agent) -> bool:
        """Whether the name is ours, after asking. If not, the agent is let go. Raises `StoreError`, `Full`."""
        try:
            await self.take(agent, anew=False)
        except (NotAllowed, NotFound) as error:
            if not agent.lease.given_up:  # else it is let go already, and nobody else has it
                self._start_letting_go(agent, TAKEN if agent.lease.was_ours else error.message)
            return False
        return True

    # --- asking ---

    async def hold(self, agent: Agent) -> None:
        """Be sure of the lease, asking if need be. Raises `NotAllowed`, `NotFound`, `StoreError`, `Full`."""
        until = mono() + _TRIED
        await self._known(until)
        while not agent.is_sure and self._commands.up.is_set():
            try:
                if await self._ask(agent):
                    return
            except (StoreDown, OutcomeUnknown):
                # That connection broke, as it may have while this daemon was stopped. Another one tells more.
                await self._known(until)
                if mono() < until:
                    continue
            else:
                await self._await_end(agent)
                agent.check_hosted()
            break
        if not agent.lease.may_hand_out(now(), reachable=False):
            down = self._commands.down_error()
            raise StoreDown(f"{agent.name} may be another daemon's by now, and cannot be asked for: {down}", down.hint)

    async def _known(self, until: float) -> None:
        """Wait until it is known whether the store is there, and not longer than that, in monotonic seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - mono())):
                await self._commands.known.wait()

    async def _ask(self, agent: Agent) -> bool:
        if agent.lease.asks(now()) is Ask.RENEW:
            asked = now()
            try:
                holder = await self._commands.call("GET", self._keys.lease(agent.name), read=replies.value)
            except (StoreDown, OutcomeUnknown):
                raise
            except StoreError:
                agent.lease.excused(asked)
                return True
            if holder == self._instance.encode():
                agent.lease.proven(asked)
                return True
            agent.lease.lost()
        return await self.acquire(agent)

    async def check(self, agent: Agent, ping: Ping) -> bool:
        """Somebody says that the name was taken over: whether it is ours all the same. The ping is answered.

        If it is not: hand-overs that are under way may still be confirmed, for as long as the new holder waits.
        """
        age = await self._commands.call("TIME", read=replies.clock) - entry_key(ping.at)[0] / 1000
        agent.lease.lost()
        try:
            await self.take(agent)
        except (NotAllowed, NotFound):
            agent.lease.yield_until(Mono(mono() + HANDOVER - _LAST_WORD - max(0.0, age)))
            self._start_letting_go(agent, TAKEN, ping)
            return False
        await agent.answer(ping)
        return True

    # --- letting go ---

    def _start_letting_go(self, agent: Agent, why: str, ping: Ping | None = None) -> None:
        if agent not in self._letting_go:
            work = self._give_away(agent, why, ping)
            task = self._letting_go[agent] = self.background.start(work, f"let go of {agent.name}")
            task.add_done_callback(lambda _: self._letting_go.pop(agent, None))

    async def _give_away(self, agent: Agent, why: str, ping: Ping | None) -> None:
        await self._await_handovers(agent)
        agent.lease.end()
        with contextlib.suppress(MeshError):  # else the new holder goes on from the last word that it has
            await self._say_last_word(agent)
            await self._moving.give_left(agent, tell=ping is None)
        await self.let_go(agent, why)
        if ping is not None:
            await agent.answer(ping)

    async def _say_last_word(self, agent: Agent) -> None:
        """How far it was read, and the losses that the next holder tells of. Raises `StoreError`."""
        if (await self._moving.write_position(agent, given_up=False)).written:
            # If the disk does not take it, or hangs, both may tell of them.
            with contextlib.suppress(Full, TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    await agent.execute(agent.core.give_losses)

    async def _await_handovers(self, agent: Agent) -> None:
        with agent.changed.awaited() as changed, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(agent.lease.yields_for(mono())):
                while agent.handovers:
                    await changed.wait()
                    changed.clear()

    async def _await_end(self, agent: Agent) -> None:
        if (task := self._letting_go.get(agent)) is not None:
            await asyncio.wait([task])

    async def release(self, agent: Agent) -> None:
        """Give the name up, after the last word on it. Nothing is handed out afterwards. Raises `StoreError`."""
        ours = agent.lease.ours
        # Of an `acquire` that failed it may not be known whether it did.
        if not ours and (agent.lease.gone or not self._commands.up.is_set()):
            return
        if ours:
            agent.lease.end(given_up=True)
            # Losses that nobody was told of stay ours as well, until somebody else has held the name (core/moved.py).
            await self._moving.write_position(agent, given_up=True)
            await self._moving.give_left(agent, tell=False)
        await self._renew(agent, 0)
        agent.lease.end(given_up=True)

    # --- renewing ---

    async def renew(self, agent: Agent) -> None:
        asked = now()
        try:
            ours = await self._renew(agent, int(TTL))
        except (StoreDown, OutcomeUnknown):
            raise
        except StoreError:
            agent.lease.excused(asked)  # nobody is away who asks and is refused
            raise
        if ours:
            agent.lease.proven(asked)
        else:
            self.lost(agent)

    async def _renew(self, agent: Agent, ttl: int) -> bool:
        now = self._commands.store_time()
        entry = entries.entry(agent, now)
        return await self._commands.script(
            scripts.renew(self._keys, agent.name, instance=self._instance, ttl=ttl, entry=entry, now=now)
        )

    def lost(self, agent: Agent) -> None:
        """The store says that the lease is not ours: nothing is received or handed out before it is."""
        agent.lease.lost()
        self.background.start(self._regain(agent), f"regain {agent.name}")

    async def _regain(self, agent: Agent) -> None:
        with contextlib.suppress(StoreError, Full):  # its reader tries it again
            await self.write_position(agent)
            if await self.acquire(agent):
                self._changes.read(agent)

    async def write_position(self, agent: Agent) -> bool:
        """Tell how far it was read; False if the name is not ours any more. Raises `StoreError`."""
        asked = now()
        ours, _ = await self._moving.write_position(agent, given_up=False)
        if ours:
            agent.lease.proven(asked)
        return ours
