"""The live MCP sessions of this daemon: who they are, by which name, and how each is woken.

A session ends with its connection. What outlives it is its name: the client's own session id leads back to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from meshd.core.backoff import Backoff
from meshd.core.names import check_name
from meshd.core.opening import Opening
from meshd.core.wake import SETTLE
from meshd.errors import MeshError, NotAllowed
from meshd.hosting.names import Names
from meshd.hosting.session_names import SessionNames, first_name, from_folder, variants
from meshd.observing.background import Background
from meshd.receiving.agent import Agent
from meshd.receiving.arrivals import Arrivals
from meshd.receiving.changes import Changes
from meshd.waking.waiting_hooks import WaitingHooks
from meshd.waking.waker import Bell

log = logging.getLogger("meshd.sessions")

_COMES_BACK = 10.0  # seconds after which a session whose connection ended is not coming back
# Seconds that a session which begins waits for the store: its client waits for it, and may start many at once.
PROMPT = 2.0


class Session:
    """A live MCP session. `ring` takes a rung and a line, and has the session's gateway ring it."""

    def __init__(self, opening: Opening, ring: Callable[[str, str], None]) -> None:
        self.key = opening.session
        self.client = opening.client
        self.client_session = opening.client_session
        self.client_pid = opening.client_pid
        self.ready = opening.ready
        self.name = ""
        self.taking = ""  # a second name, for as long as it is not certain which of the two it will be
        self.bells: dict[str, Bell] = {rung: _bell(ring, rung) for rung in opening.rungs}
        self.made: str | None = None  # the name, if it was made up for this session


def _bell(ring: Callable[[str, str], None], rung: str) -> Bell:
    return lambda line: ring(rung, line)


class Sessions:
    """All live sessions, one name each. `path`: where the names are remembered."""

    def __init__(
        self,
        path: str,
        names: Names,
        changes: Changes,
        arrivals: Arrivals,
        store_up: Callable[[], Coroutine[Any, Any, Any]],
    ) -> None:
        self.live: dict[str, Session] = {}
        self._hosted = names
        self._agents = names.agents
        self._changed = changes.shown
        self._arrivals = arrivals
        self._store_up = store_up
        self._names = SessionNames(path)
        self._hooks = WaitingHooks()
        self._background = Background(log)

    # --- who they are ---

    def holder(self, name: str) -> Session | None:
        """The live session that goes by this name, or is about to."""
        return next((session for session in self.live.values() if name in (session.name, session.taking)), None)

    def check_free(self, name: str, session: Session) -> None:
        """Raises `NotAllowed` if another live session goes by this name: nobody speaks or reads for it."""
        holder = self.holder(name)
        if holder is not None and holder is not session:
            raise NotAllowed(
                f"{name} is another live session here ({holder.client or 'an MCP client'})",
                f"leave the name out to be {session.name}, or take a free one with mesh_register",
            )

    def of_client(self, client_session: str, client_pid: int | None) -> Session | None:
        """The session with the client's own id; else that of the process, which began another one by now."""
        session = next((s for s in self.live.values() if s.client_session == client_session), None)
        if session is not None:
            return session
        session = next((s for s in self.live.values() if client_pid and s.client_pid == client_pid), None)
        if session is not None:
            self._hooks.let_go(session.client_session)
            session.client_session = client_session
            self._names.remember(client_session, session.name)
            self._arm_hook(session)
        return session

    # --- life ---

    async def open(self, opening: Opening, ring: Callable[[str, str], None]) -> Session:
        """A session that has come, or come back. It has a name afterwards, hosted if the store is there."""
        self.close(self.live.get(opening.session))  # its old connection is dead, and not yet noticed
        session = Session(opening, ring)
        self.live[session.key] = session
        if session.client_session not in self._hooks:
            # The client may have begun another conversation since it started this session's server.
            session.client_session = self._hooks.conversation_of(session.client_pid) or session.client_session
        try:
            await self._name_it(session, opening)
        except BaseException:
            self.close(session)
            raise
        return session

    async def _name_it(self, session: Session, opening: Opening) -> None:
        remembered = self._names.of(opening.client_session)
        own = first_name(opening.name, from_folder(opening.project))
        wanted = first_name(opening.had, opening.name, remembered, own)
        for name in variants(wanted):
            if self.holder(name) is not None:
                continue
            session.name = name  # before the first wait: two that open at once get two names
            new = name not in self._agents
            try:
                async with asyncio.timeout(PROMPT):
                    await self._hosted.host(name)
            except NotAllowed:
                session.name = ""  # held by another daemon
                continue
            except (MeshError, TimeoutError) as error:
                log.info("%s is hosted later: %s", name, error)
                self._background.start(self._host_later(session, name), f"{name} is hosted later")
            back = name in (opening.had, remembered)
            session.made = name if name in variants(own)[1:] and (new or back) else None
            break
        self.hosted(session.name)

    async def _host_later(self, session: Session, name: str) -> None:
        """Until the store is back: the session can say who it is, and mail comes as soon as it can."""
        backoff = Backoff(base=0.5)
        while self.live.get(session.key) is session and session.name == name and name not in self._agents:
            await self._store_up()
            try:
                await self._hosted.host(name)
            except NotAllowed as error:
                log.warning("%s: %s", name, error.message)  # its own calls say so, too
                return
            except MeshError:
                await asyncio.sleep(backoff.next())

    async def rename(self, session: Session, name: str, host: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The session goes by another name from now on. `host` hosts it; its error changes nothing."""
        self.check_free(check_name(name), session)
        session.taking = name
        try:
            await host()
        finally:
            session.taking = ""
        before, session.name = session.name, name
        if before != name:
            self._detach(session, before)
        session.made = None
        self.hosted(name)

    def close(self, session: Session | None) -> None:
        """The session has gone, with everything that it held."""
        if session is not None and self.live.get(session.key) is session:
            del self.live[session.key]
            self._detach(session, session.name)
            if session.client_session in self._hooks:
                self._background.start(self._let_go_of_hook(session.client_session), "a waiting hook that was left")

    def hosted(self, name: str) -> None:
        """This name is hosted now: a session that goes by it can be woken."""
        session, agent = self.holder(name), self._agents.get(name)
        if session is None or agent is None:
            return
        agent.live = True
        if session.ready:
            for rung, bell in session.bells.items():
                agent.waker.arm(rung, bell, SETTLE)
            self._arm_hook(session)
        self._changed(agent)
        self._names.remember(session.client_session, session.name)

    def _detach(self, session: Session, name: str) -> None:
        agent = self._agents.get(name)
        if agent is None:
            return
        agent.live = False
        agent.waker.anew()  # what this session was told, nobody else was
        for rung, bell in session.bells.items():
            agent.waker.disarm(rung, bell)
        agent.waker.disarm("hook", self._hooks.bell(session.client_session))
        self._changed(agent)
        # A name with a number was made up for one of several sessions: it goes with it, unless mail waits there.
        if session.made == name:
            self._background.start(self._give_up(agent), f"give up {name}")

    async def _give_up(self, agent: Agent) -> None:
        await self._store_up()
        if not await self._arrivals.fresh(agent) or agent.core.inbox.unread or agent.core.ledger.entries:
            return
        # Asked last: meanwhile a session may have begun that has the name now.
        if agent.gone is None and self.holder(agent.name) is None:
            with contextlib.suppress(MeshError):
                await self._hosted.unhost(agent.name)

    # --- waking ---

    def ready(self, session: Session) -> None:
        """The session's client has the tools now: it can be woken."""
        session.ready = True
        self.hosted(session.name)

    def failed(self, session: Session, rung: str, why: str) -> None:
        """The session could not be rung by this rung: it is not tried again until the session arms it anew."""
        agent = self._agents.get(session.name)
        if agent is not None and (bell := session.bells.pop(rung, None)) is not None:
            agent.waker.disarm(rung, bell, why)
            self._changed(agent)

    @contextlib.contextmanager
    def waiting_hook(self, client_session: str, client_pid: int | None, bell: Bell) -> Any:
        """A hook of this client session waits to be rung for as long as this lasts; an earlier one is let go."""
        self._hooks.add(client_session, client_pid, bell)
        session = next((s for s in self.live.values() if s.client_session == client_session), None)
        if session is not None:
            self._arm_hook(session)
        try:
            yield
        finally:
            self._hooks.remove(client_session, bell)
            for agent in self._agents.values():
                agent.waker.disarm("hook", bell)

    async def _let_go_of_hook(self, client_session: str | None) -> None:
        """A client that was killed leaves its waiting hook behind, and nothing else would end that."""
        await asyncio.sleep(_COMES_BACK)
        if all(session.client_session != client_session for session in self.live.values()):
            self._hooks.let_go(client_session)

    def _arm_hook(self, session: Session) -> None:
        bell = self._hooks.bell(session.client_session)
        agent = self._agents.get(session.name)
        if bell is not None and agent is not None and session.ready:
            agent.waker.arm("hook", bell, SETTLE)
            self._changed(agent)
