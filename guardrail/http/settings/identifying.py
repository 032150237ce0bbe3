"""From settings to who asks: proxies, credentials, and the directory that knows them."""

from __future__ import annotations

from guardrail.http.identity import Asker, CredentialSource
from guardrail.http.settings.given import Given
from guardrail.signals.client import MOST_HOPS, Proxies
from guardrail.signals.directory import Directory

PROXIES = ("trusted", "header", "most_hops")


def asker_of(given: Given, hash_key: bytes) -> Asker:
    """Return how it is established who asks.

    Raises:
        SettingError: a setting is not usable.
    """
    return Asker(
        hash_key=hash_key,
        proxies=_proxies(given),
        reads=_credentials(given),
        directory=_directory(given),
    )


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


def _credentials(given: Given) -> CredentialSource:
    value = given.raw("credentials")
    if isinstance(value, CredentialSource):
        return value
    names = given.texts("credentials")
    return CredentialSource.of(*names) if value is not None else CredentialSource()


def _directory(given: Given) -> Directory | None:
    value = given.raw("directory")
    if value is None or all(hasattr(value, name) for name in ("look_up", "find", "close")):
        return value  # type: ignore[return-value]
    raise given.refuse("directory", "give a directory of `guardrail.signals.directory`")
