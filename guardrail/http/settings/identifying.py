"""From settings to who asks: proxies, credentials, and the directory that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from guardrail.errors import SettingError
from guardrail.http.identity import Asker, CredentialSource
from guardrail.http.settings.given import Given
from guardrail.model.facts import Fact
from guardrail.signals.client import MOST_HOPS, Proxies
from guardrail.signals.directory import Directory
from guardrail.signals.directory.callables import CallableDirectory
from guardrail.signals.directory.service import ServiceDirectory

PROXIES = ("trusted", "header", "most_hops")
SERVICE = ("service", "provides", "authorization_from", "plain_http")
"""The keys of a directory in a file; the authorization is read from the environment."""


def asker_of(
    given: Given, hash_key: bytes, facts: Mapping[str, Fact], environ: Mapping[str, str]
) -> Asker:
    """Return how it is established who asks; `facts` are those of the policies.

    Raises:
        SettingError: a setting is not usable.
    """
    return Asker(
        hash_key=hash_key,
        proxies=_proxies(given),
        reads=_credentials(given),
        directory=_directory(given, facts, environ),
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


def _directory(
    given: Given, facts: Mapping[str, Fact], environ: Mapping[str, str]
) -> Directory | None:
    value = given.raw("directory")
    if value is None or all(hasattr(value, name) for name in ("look_up", "find", "close")):
        return cast("Directory | None", value)
    if callable(value):
        return CallableDirectory(value, facts)
    table = given.table("directory", SERVICE)
    service = table.get("service")
    if not isinstance(service, str):
        raise given.refuse("directory", "give `service`, the address of one, or a directory")
    sent = table.get("authorization_from")
    plain = table.get("plain_http", False)
    provides = table.get("provides")
    if not isinstance(sent, str | None) or not isinstance(plain, bool):
        raise given.refuse(
            "directory", "`authorization_from` names a variable, `plain_http` a flag"
        )
    if provides is not None and not isinstance(provides, list):
        raise given.refuse("directory", "`provides` is a list of facts")
    if sent is not None and not environ.get(sent):
        raise SettingError(f"the directory's `authorization_from` names `{sent}`: set it")
    return ServiceDirectory(
        service,
        facts,
        provides=provides,
        authorization=environ[sent] if sent is not None else None,
        plain_http=plain,
    )
