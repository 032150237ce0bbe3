"""From settings to who asks: proxies, credentials, and the directory that knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from guardrail.errors import SettingError, not_installed
from guardrail.http.identity import Asker, CredentialSource
from guardrail.http.identity.established import Established
from guardrail.http.identity.files import FileDirectory
from guardrail.http.settings.given import Given
from guardrail.model.facts import Fact
from guardrail.signals import MOST_HOPS, Proxies
from guardrail.signals.directory import Directory
from guardrail.signals.directory.sources import CallableDirectory, ServiceDirectory

TOKENS = ("issuer", "audience", "jwks", "algorithms", "claims", "plain_http")
"""The keys of a directory that is in verified tokens; `TokenDirectory` tells what they mean."""

PROXIES = ("trusted", "header", "most_hops")
SERVICE = ("service", "provides", "authorization_from", "plain_http")
"""The keys of a directory in a file; the authorization is read from the environment."""


def asker_of(
    given: Given, keys: Sequence[bytes], facts: Mapping[str, Fact], environ: Mapping[str, str]
) -> Asker:
    """Return how it is established who asks.

    `keys` are the hash keys, the current one first; `facts` are those of the policies.

    Raises:
        SettingError: a setting is not usable.
    """
    return Asker(
        hash_key=keys[0],
        proxies=_proxies(given),
        reads=_credentials(given),
        directory=_directory(given, keys, facts, environ),
        established=_established(given, facts),
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
    given: Given, keys: Sequence[bytes], facts: Mapping[str, Fact], environ: Mapping[str, str]
) -> Directory | None:
    value = given.raw("directory")
    if value is None or all(hasattr(value, name) for name in ("look_up", "find", "close")):
        return cast("Directory | None", value)
    if callable(value):
        return CallableDirectory(value, facts)
    if isinstance(value, str) and "://" in value:
        raise given.refuse("directory", "write the address of a service as a map, under `service`")
    if isinstance(value, (str, Path)):
        return FileDirectory(given.paths("directory")[0], facts, hash_keys=keys)
    table = given.table("directory", (*SERVICE, *TOKENS))
    if "issuer" in table:
        return _tokens(given, facts)
    return _service(given, facts, environ)


def _established(given: Given, facts: Mapping[str, Fact]) -> Established | None:
    value = given.raw("identify")
    if value is None:
        return None
    if isinstance(value, str):
        value = _named(given, value)
    if not callable(value):
        raise given.refuse(
            "identify", "give a function of a request's scope or environ, or `module:function`"
        )
    return Established(value, facts)


def _named(given: Given, name: str) -> object:
    """Return what `module:function` names; the module has to be where Python finds it."""
    module, _, path = name.partition(":")
    if not module or not path:
        raise given.refuse("identify", "write `module:function`, such as `shop.login:identify`")
    try:
        found: object = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as problem:
        why = f"`{module}` is not found where Python looks for modules"
        if isinstance(problem, AttributeError):
            why = f"`{module}` has no `{path}`"
        elif getattr(problem, "name", module) != module:
            why = f"`{module}` cannot be imported: {problem}"
        raise given.refuse("identify", why) from problem
    return found


def _tokens(given: Given, facts: Mapping[str, Fact]) -> Directory:
    try:
        from guardrail.signals.directory.tokens import ALGORITHMS, TokenDirectory
    except ImportError as problem:
        raise not_installed(problem, "a directory of verified tokens", "jwt") from problem
    table = given.table("directory", TOKENS)
    issuer, jwks, audience = (table.get(name) for name in ("issuer", "jwks", "audience"))
    if not isinstance(issuer, str) or not isinstance(jwks, str) or not _are_texts(audience):
        raise given.refuse("directory", "tokens need an `issuer`, an `audience` and a `jwks`")
    algorithms, claims = table.get("algorithms", ALGORITHMS), table.get("claims", {})
    if not _are_texts(algorithms) or not isinstance(claims, Mapping):
        raise given.refuse("directory", "`algorithms` is a list, `claims` maps facts to claims")
    if not all(isinstance(name, str) and _are_texts(path) for name, path in claims.items()):
        raise given.refuse("directory", "`claims` maps facts to claims or lists of them")
    plain = table.get("plain_http", False)
    if not isinstance(plain, bool):
        raise given.refuse("directory", "`plain_http` is a flag")
    return TokenDirectory(
        issuer,
        cast("str | Sequence[str]", audience),
        jwks,
        facts,
        algorithms=[algorithms] if isinstance(algorithms, str) else cast(list[str], algorithms),
        claims=claims,
        plain_http=plain,
    )


def _are_texts(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(part, str) for part in value)
    return isinstance(value, str)


def _service(
    given: Given, facts: Mapping[str, Fact], environ: Mapping[str, str]
) -> ServiceDirectory:
    table = given.table("directory", SERVICE)
    service = table.get("service")
    if not isinstance(service, str):
        raise given.refuse(
            "directory", "give `service`, the address of one, an `issuer` of tokens, or a file"
        )
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
        # What is to be sent may have been written where the variable's name belongs.
        shown = f"`{sent}`: set it" if sent.isupper() and sent.isidentifier() else "no variable"
        raise SettingError(f"the directory's `authorization_from` names {shown}")
    return ServiceDirectory(
        service,
        facts,
        provides=provides,
        authorization=environ[sent] if sent is not None else None,
        plain_http=plain,
    )
