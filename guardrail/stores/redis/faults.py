"""What the errors of a server and of the way to it mean for a decision."""

from __future__ import annotations

from redis import exceptions as said

from guardrail.errors import SettingError, StoreError

NOT_NOW = (
    said.BusyLoadingError,
    said.ClusterDownError,
    said.MasterDownError,
    said.TryAgainError,
    said.OutOfMemoryError,
    said.ReadOnlyError,
)
"""Refused before anything was written."""

MOVED_AWAY = (said.ReadOnlyError, said.MasterDownError, said.ClusterDownError)
"""The server is not, or not any more, the one to write to: look again for it."""


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
    return StoreError(f"{where} refused the call: {kind}: {text}")


def unreachable(error: BaseException, where: str, *, unsure: bool = False) -> StoreError:
    """Return our error for a server that cannot be reached, or no more."""
    text = str(error) or type(error).__name__
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


def unconnected(where: str, deadline: float) -> StoreError:
    """Return our error for a connection that was not there in time; nothing was sent."""
    return StoreError(f"{where} was not connected within {deadline * 1000:.0f} ms")
