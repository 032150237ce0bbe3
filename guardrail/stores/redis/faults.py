"""What the errors of a server and of the way to it mean for a decision."""

from __future__ import annotations

import re

from redis import exceptions as said
from redis.sentinel import MasterNotFoundError

from guardrail.errors import SettingError, StoreError

WRAPPED = {
    "-READONLY ": said.ReadOnlyError,
    "-OOM ": said.OutOfMemoryError,
    "-MASTERDOWN ": said.MasterDownError,
}
"""What servers before version 7 say within the error of a script."""

REDIRECTED = {
    "ASK": said.AskError,
    "CLUSTERDOWN": said.ClusterDownError,
    "MASTERDOWN": said.MasterDownError,
    "MOVED": said.MovedError,
    "TRYAGAIN": said.TryAgainError,
}
"""What redis-py 5 leaves a plain error where it is not its own cluster client that reads."""

MOVED_AWAY = (said.ReadOnlyError, said.MasterDownError, said.ClusterDownError)
"""The server is not, or not any more, the one to write to: look again for it."""


class OutdatedError(StoreError):
    """The names in a call are no longer good: ask the server which are, and call again."""


def unwrapped(reply: object) -> object:
    """Return a reply with an error in its own right that stands in the text of a plain one.

    Scripts of old servers hide there what they died of, and old clients where to ask instead.
    """
    if type(reply) is said.ResponseError:
        code, _, rest = str(reply).partition(" ")
        if code in REDIRECTED:
            return REDIRECTED[code](rest)
        for sign, kind in WRAPPED.items():
            if sign in str(reply):
                return kind(str(reply).partition(sign)[2])
    return reply


def refusal(error: Exception, where: str) -> StoreError:
    """Return our error for one that the server answered; nothing was applied."""
    kind = type(error).__name__.removesuffix("Error")
    text = str(error)
    if isinstance(error, said.NoPermissionError):
        text += "; `docs/stores.md` lists the commands that guardrail's user needs"
    if text.startswith("AHEAD "):
        seconds = int(text.removeprefix("AHEAD ").split(".")[0]) / 1e6
        return StoreError(
            f"the decision's time is {seconds:.1f} s ahead of the clock of {where}: set this "
            "host's clock, or give times that have come"
        )
    if text == "EPOCH":
        return OutdatedError(f"{where} has gone on to other names for its records")
    return StoreError(f"{where} refused the call: {kind}: {text}")


_CLIENT = re.compile(r"<redis\.(?:asyncio\.)?client\.|\bRedis<")


def unreachable(error: BaseException, where: str, *, unsure: bool = False) -> StoreError:
    """Return our error for a server that cannot be reached, or no more."""
    # After what happened, redis-py may print its own clients, with all that they were made with:
    # one for each sentinel that did not answer.
    happened, *clients = _CLIENT.split(str(error))
    text = happened.rstrip(" :,") or type(error).__name__
    if clients and isinstance(error, MasterNotFoundError):
        text += f": {len(clients)} of the sentinels did not answer"
    if isinstance(error, SettingError):
        problem = StoreError(text)
    else:
        problem = StoreError(f"{where} cannot be reached: {text}", unsure=unsure)
    problem.__cause__ = error
    return problem


def overdue(where: str, deadline: float) -> StoreError:
    """Return our error for a reply that did not come in time."""
    return StoreError(f"{where} did not answer within {deadline * 1000:.0f} ms", unsure=True)


def unasked(where: str) -> StoreError:
    """Return our error for a call that there was no time left to send."""
    return StoreError(f"no time was left to ask {where}")


def unconnected(where: str, deadline: float, before: str | None) -> StoreError:
    """Return our error for a connection that was not there in time; nothing was sent.

    What the attempt `before` this one failed of is most likely why.
    """
    problem = f"{where} was not connected within {deadline * 1000:.0f} ms"
    return StoreError(problem if before is None else f"{problem}; before that, {before}")
