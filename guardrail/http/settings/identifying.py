"""From settings to who asks: proxies, credentials, and the directory that knows them."""

from __future__ import annotations

from typing import Any, NamedTuple

from guardrail.http.identity.credentials import Credential, CredentialSource
from guardrail.http.settings.given import Given
from guardrail.signals.client import MOST_HOPS, Proxies
from guardrail.signals.directory import Identity

PROXIES = ("trusted", "header", "most_hops")


class Who(NamedTuple):
    """How it is established who asks."""

    proxies: Proxies
    credentials: CredentialSource
    directory: Any = None

    async def find(self, credential: Credential | None, now: float) -> Identity:
        """Return what the directory says of a credential, without blocking the event loop."""
        if self.directory is None or credential is None:
            return Identity()
        return await self.directory.find(credential, now)

    def look_up(self, credential: Credential | None, now: float) -> Identity:
        """Return what the directory says of a credential."""
        if self.directory is None or credential is None:
            return Identity()
        return self.directory.look_up(credential, now)


def who_asks(given: Given) -> Who:
    """Return how it is established who asks.

    Raises:
        SettingError: a setting is not usable.
    """
    return Who(_proxies(given), CredentialSource(), given.raw("directory"))


def _proxies(given: Given) -> Proxies:
    value = given.raw("proxies")
    if isinstance(value, Proxies):
        return value
    if isinstance(value, (str, list, tuple)):
        return Proxies.declare(given.texts("proxies"))
    table = given.table("proxies", PROXIES)
    trusted, header = table.get("trusted", []), table.get("header", "x-forwarded-for")
    hops = table.get("most_hops", MOST_HOPS)
    if isinstance(trusted, str):
        trusted = [trusted]
    if not isinstance(trusted, list) or not isinstance(header, str) or not isinstance(hops, int):
        raise given.refuse("proxies", "give `trusted` networks, a `header` and `most_hops`")
    return Proxies.declare(trusted, header, most_hops=hops)
