"""The shared command connection: many callers, one write for all that wait, no second copy of anything.

What is queued while a batch is on its way makes the next batch; so a lone command goes out at once, and a
thousand cost a few round trips.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from redis.exceptions import NoScriptError

from meshd.core.backoff import Backoff
from meshd.errors import OutcomeUnknown, StoreBusy, StoreDown, StoreError
from meshd.observing.outage import Outage
from meshd.observing.refused import Refusals
from meshd.store.connecting import reach
from meshd.store.endpoint import Endpoint
from meshd.store.greeting import StoreVersion
from meshd.store.heartbeat import Heartbeat
from meshd.store.link import Link
from meshd.store.own_disk import NO_ROOM, OwnDisk, has_room
from meshd.store.queued import Queued
from meshd.store.refusals import Forbidden, Redirected, longest_pause, translate
from meshd.store.replies import Garbled, garbled
from meshd.store.scripts.leases import OF_AGENTS
from meshd.store.scripts.script import Invocation
from meshd.system import clock

log = logging.getLogger("meshd.store")

T = TypeVar("T")

MAX_BATCH = 256
# Seconds that a caller waits where nothing tells that the store is away.
REPLY_TIMEOUT = 5.0
# Bytes of one reply. More than a reader of a stream takes, because what is asked here has a bound of its own.
_BOUND = 512 << 20
_UNEXPECTED = "what was said to the store, or what it answered, was not understood"


class Commands:
    """Queues commands, keeps one connection alive, and knows whether the store is up.

    `up` is set while the connection stands; `known`, while it is known whether it can: not at first, nor when it broke,
    until another was tried. `on_change(up)` is called at each change of `up`. `refused` is why the store, which is up,
    takes no writes (disk, memory, replicas, access list), since `refused_since`; None while it takes them.
    `on_refusal(refused)` is called at each change of that. `refusals` counts the writes that it refused, each for its
    own reason. `disk`: where the store writes, if it is ours. `first(link)` has each new connection before anybody
    else; what it raises ends it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_change: Callable[[bool], None] = lambda up: None,
        on_refusal: Callable[[bool], None] = lambda refused: None,
        disk: OwnDisk | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.up, self.known = asyncio.Event(), asyncio.Event()
        self.server: StoreVersion | None = None
        self.since = clock.wall()
        self.trouble: StoreError | None = StoreDown("not connected yet", "meshctl status")
        self.refused: StoreError | None = None
        self.refused_since = 0.0
        self.refusals = Refusals()
        self._outage, self._refusal = Outage(log), Outage(log)
        self._on_change = on_change
        self._on_refusal = on_refusal
        self.first: Callable[[Link], Awaitable[None]] | None = None
        self._disk = disk
        self._queue: deque[Queued] = deque()
        self._wanted = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._heartbeat = Heartbeat(self._ask_time)
        self.store_time = self._heartbeat.store_time
        endpoint.pulse.ask = self.check_now
        self._met = ""  # the last error that nobody expected: its traceback is in the log

    # --- calling ---

    @overload
    async def call(self, *command: Any, timeout: float | None = None) -> Any: ...
    @overload
    async def call(self, *command: Any, read: Callable[[Any], T], timeout: float | None = None) -> T: ...
    async def call(
        self, *command: Any, read: Callable[[Any], Any] = lambda reply: reply, timeout: float | None = None
    ) -> Any:
        """One command. Raises `StoreDown` if it was never written, `OutcomeUnknown` if its reply was lost.

        Without `timeout`, in seconds, the connection's own bounds it while the store is up. `read` makes the result of
        the reply, and raises `Garbled` if it has not the shape of one (meshd/store/replies.py): whoever takes a reply
        apart gives it, because anything may answer.
        """
        return await self._submit(Queued(command, read), timeout)

    async def script(self, invocation: Invocation[T], *, timeout: float | None = None) -> T:
        """The result of a script, called by digest; by source if the store forgot it."""
        script = invocation.script
        result: T = await self._submit(Queued(invocation.command(), script.read, script), timeout)
        return result

    async def _submit(self, call: Queued, timeout: float | None) -> Any:
        self._queue.append(call)
        self._wanted.set()
        if timeout is None and self.up.is_set():
            return await call.future
        try:
            async with asyncio.timeout(REPLY_TIMEOUT if timeout is None else timeout):
                return await call.future  # cancelled by the timeout: what is still queued will not be written
        except TimeoutError:
            if not call.written:
                raise self.down_error() from None
            raise OutcomeUnknown("the store did not answer in time", "send again with the same id") from None

    @property
    def reachable(self) -> bool:
        """Whether the store is there, as far as is known."""
        return self.up.is_set() or not self.known.is_set()

    def down_error(self) -> StoreError:
        trouble = self.trouble or StoreDown("the store does not answer", "meshctl status")
        return type(trouble)(trouble.message, trouble.hint)

    async def back_up(self, backoff: Backoff) -> None:
        """Wait until the store is up. If it was away, that outage is over, and the backoff starts over."""
        if not self.up.is_set():
            await self.up.wait()
            backoff.reset()

    def check_now(self) -> None:
        """Somebody's connection broke: find out at once whether the store is still there."""
        self._retry_now.set()
        self._ask_time()

    def _ask_time(self) -> None:
        """Where nothing else is asked: a sign of life, and what the store's clock shows."""
        if self.up.is_set() and not self._queue:
            call = Queued(("TIME",), self._heartbeat.read)
            call.future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._queue.append(call)
            self._wanted.set()

    # --- the one reconnect loop ---

    async def run(self) -> None:
        """Keep the connection and serve the queue, until cancelled. Whatever ends it is told, and it is tried again."""
        backoff = Backoff()
        longest = 0.0
        try:
            while True:
                self._retry_now.clear()
                try:
                    await self._connected(backoff)
                except StoreError as error:
                    longest = longest_pause(error)
                    self._set_down(error)
                except Exception as error:
                    longest = backoff.cap
                    known, self._met = self._met, repr(error)
                    self._set_down(StoreDown(_UNEXPECTED, "see the log"), exc_info=self._met != known)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next(longest)):
                        await self._retry_now.wait()
                        await asyncio.sleep(backoff.base)
        finally:
            self._fail_all(StoreDown("the daemon is stopping", "meshctl up"))

    async def _connected(self, backoff: Backoff) -> None:
        """One connection, as long as it stands. Raises `StoreError` at its end."""
        link, self.server = await reach(self.endpoint, _BOUND, REPLY_TIMEOUT)
        started = clock.mono()
        try:
            if self.first is not None:
                await self.first(link)
            self._set_up()
            self._heartbeat.begin()
            await self._serve(link)
        finally:
            self._heartbeat.end()
            backoff.stood(clock.mono() - started)
            await link.close()

    async def _serve(self, link: Link) -> None:
        while True:
            if not self._queue:
                self._wanted.clear()
                await self._wanted.wait()
            queued = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
            calls = self._admitted([call for call in queued if not call.future.done()])
            if not calls:
                continue
            try:
                await self._exchange(link, calls)
            except BaseException as error:
                ends = isinstance(error, asyncio.CancelledError)
                why = "the daemon is stopping" if ends else f"the answer was lost: {error}"
                for call in calls:
                    call.fail(OutcomeUnknown(why, "send again with the same id"))
                raise

    def _admitted(self, calls: list[Queued]) -> list[Queued]:
        """Without what the store could not write to its log: it answers before it finds that out."""
        writing = [call for call in calls if call.writes]
        if self._disk is None or not writing or has_room(self._disk, (call.command for call in writing)):
            return calls
        error = StoreBusy(f"the store refuses writes for now: {NO_ROOM}", "meshctl doctor names what mends it")
        for call in writing:
            call.fail(error)
            self.refusals.add(error, clock.wall(), some=False)
        self._set_refused(error)
        return [call for call in calls if not call.writes]

    async def _exchange(self, link: Link, calls: list[Queued]) -> None:
        """One batch: write, read, give each caller its reply. Raises `Redirected` or `Garbled` behind the last one."""
        for call in calls:
            call.written = True
        found = await link.batch([call.command for call in calls], timeout=self._heartbeat.patience)
        self._heartbeat.heard()
        if self._disk is not None and any(call.writes for call in calls):
            self._disk.written()
        ends: StoreError | None = None
        for call, reply in zip(calls, found, strict=True):
            if isinstance(reply, NoScriptError):
                reply = await self._with_source(link, call)
            if isinstance(reply, StoreError):
                call.fail(reply)
                for_all = isinstance(reply, StoreBusy) or (call.writes and isinstance(reply, Forbidden))
                if call.writes:
                    self.refusals.add(reply, clock.wall(), some=not for_all and call.script not in OF_AGENTS)
                ends = reply if isinstance(reply, Redirected) else ends
                if ends is None and for_all:
                    self._set_refused(reply)
                continue
            try:
                result = call.read(reply)
            except Garbled as error:
                call.fail(OutcomeUnknown(f"the answer was none: {error.message}", "send again with the same id"))
                ends = error
                continue
            if self.refused is not None and call.script is not None and call.script.wrote(result):
                self._set_refused(None)
            if not call.future.done():
                call.future.set_result(result)
        if ends is not None:
            raise ends

    async def _with_source(self, link: Link, call: Queued) -> Any:
        if call.script is None:
            raise garbled(None, "an answer to a command that is no script")
        (reply,) = await link.batch([("EVAL", call.script.source, *call.command[2:])], timeout=REPLY_TIMEOUT)
        return translate(reply) if isinstance(reply, NoScriptError) else reply

    # --- state ---

    def _set_up(self) -> None:
        self.trouble = None
        self.since = clock.wall()
        self.up.set()
        self.known.set()
        assert self.server is not None
        where = f"{self.endpoint.shown} ({self.server.name} {self.server.version})"
        if self._outage.lasts:
            self.endpoint.pulse.end_all()  # what was begun while it was away may hang for ever
            self._outage.end("store up again", where)
        else:
            log.info("store up: %s", where)
        self._on_change(True)

    def _set_down(self, error: StoreError, *, exc_info: bool = False) -> None:
        was_up = self.up.is_set()
        self.trouble = error
        self.up.clear()
        (self.known.clear if was_up else self.known.set)()
        if was_up:
            self.since = clock.wall()
            self._fail_all(error)  # never written, so nothing happened; each caller has its own deadline
            self.endpoint.pulse.end_all()
            self._on_change(False)
        self._outage.begin(f"store down: {error.message}", exc_info=exc_info)

    def _set_refused(self, error: StoreError | None) -> None:
        before, self.refused = self.refused, error
        if error is not None:
            self._refusal.begin(error.message)
        else:
            self._refusal.end("the store takes writes again")
        if (before is None) != (error is None):
            self.refused_since = clock.wall()
            self._on_refusal(error is not None)

    def _fail_all(self, error: StoreError) -> None:
        while self._queue:
            self._queue.popleft().fail(error)
