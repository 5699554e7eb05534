"""What a store, or what is none, answers instead of a result: redis-py's errors as ours."""

from __future__ import annotations

from redis import exceptions as rx
from redis.exceptions import ResponseError

from meshd.core.text import one_line
from meshd.errors import StoreBusy, StoreDown, StoreError

_LONGEST = 500  # characters of what a store says that are shown
# Replies that mean "not now": the command did nothing, and the same one may succeed later. redis-py has a
# class for some of them and cuts their first word off; the others are known by that word.
_BUSY = (rx.OutOfMemoryError, rx.ClusterDownError, rx.TryAgainError)
_BUSY_WORDS = ("MISCONF", "NOREPLICAS", "BUSY", "LOADING", "OOM", "CLUSTERDOWN", "TRYAGAIN")
# What an access list forbids within a script comes without a code of its own, Redis 7.0 and then newer ones; and EXEC.
_FORBIDDEN_WITHIN = (
    "The user executing the script can't",
    "ACL failure in script",
    "Transaction discarded because of: NOPERM",
)
# Replies that mean "not here": ask the endpoint again.
_ELSEWHERE = (rx.MovedError, rx.AskError, rx.MasterDownError)


class Redirected(StoreBusy):
    """This server is not the one that takes our writes (any more)."""


class Unauthorized(StoreDown):
    """It wants an account, or refuses ours."""


class Crowded(StoreDown):
    """It has as many clients as it takes."""


class Forbidden(StoreError):
    """The account that we use may not do this."""


_SOON, _LATER = 0.5, 5.0  # seconds


def longest_pause(error: StoreError) -> float:
    """Seconds that whoever met this waits at most before he connects again.

    A way that broke may be whole at any moment, and an attempt costs little. What was answered is answered again.
    """
    answered = isinstance(error, Unauthorized | Crowded)
    away = isinstance(error, StoreDown | StoreBusy) and not answered
    return _SOON if away else _LATER


def translate(error: BaseException) -> StoreError:
    """A redis-py error as ours: a sentence, and what to do next."""
    if isinstance(error, StoreError):
        return error
    text = one_line(str(error).strip())[:_LONGEST] or type(error).__name__
    if isinstance(error, rx.BusyLoadingError):
        return StoreBusy("the store is loading its data", "it will answer when it has; nothing is needed")
    # While it connects, redis-py wraps what the store says of the account.
    about_us = rx.AuthenticationError | rx.AuthorizationError
    told = isinstance(error, about_us) or isinstance(error.__cause__ or error.__context__, about_us)
    if told or text.startswith(("NOAUTH", "WRONGPASS")):
        return Unauthorized(
            "the store wants a user name and a password, or refuses the ones given",
            "put them into the URL (redis://USER:PASSWORD@HOST), best through AGENT_MESH_REDIS_URL_FILE",
        )
    if isinstance(error, rx.NoPermissionError) or text.startswith(_FORBIDDEN_WITHIN):
        what = f"the store's access list refuses this account: {text}"
        return Forbidden(what, "meshctl doctor names what is to be granted")
    if isinstance(error, rx.ReadOnlyError):
        return Redirected("the store is a read-only replica", "point redis_url at the master, or use redis+sentinel://")
    if isinstance(error, _ELSEWHERE):
        return Redirected(f"the store sends us elsewhere: {text}", "use redis+cluster:// or redis+sentinel://")
    if isinstance(error, _BUSY) or text.split(" ", 1)[0] in _BUSY_WORDS:
        return StoreBusy(f"the store refuses writes for now: {text}", "meshctl doctor names what mends it")
    if isinstance(error, rx.TimeoutError | TimeoutError):
        return StoreDown("the store does not answer in time", "meshctl doctor tells whether it is stopped or busy")
    if isinstance(error, ResponseError):
        return StoreError(f"the store refused: {text}", "is it Redis 7.0+ or Valkey 7.2+?")
    if isinstance(error, rx.ConnectionError | OSError):
        if "max number of clients" in text:
            return Crowded(f"no connection to the store: {text}", "meshctl doctor tells how many clients it takes")
        return StoreDown(f"no connection to the store: {text}", "start it; the mesh goes on by itself")
    # hiredis raises its own error for a peer that does not speak the protocol.
    return StoreDown(f"what answers there is not a Redis store: {text}", "correct redis_url")
