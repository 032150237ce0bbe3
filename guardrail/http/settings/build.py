"""From settings to what an application is guarded with: values at once, the guard at first use."""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from guardrail.decisionlog import DecisionSink, JsonLines
from guardrail.errors import SettingError, not_installed
from guardrail.guard import AsyncGuard, Guard
from guardrail.guard.context import standard_signals
from guardrail.guard.loading import MemoryNotice
from guardrail.http.counts import SharedCounts
from guardrail.http.identity import CallerResolver, CredentialSource
from guardrail.http.identity.caller import Established
from guardrail.http.identity.directory_file import FileDirectory
from guardrail.http.metering.usage_formats import unfed_notes
from guardrail.http.parsing import Dialect, ReadingLimits
from guardrail.http.recorder import DecisionRecorder
from guardrail.http.recording import TrafficRecorder
from guardrail.http.responses import Style
from guardrail.http.responses.fields import VERSION, CrossOrigin
from guardrail.http.settings.read import Given, Options, check_names, settings_file
from guardrail.http.settings.reload import G, Reloading
from guardrail.http.settings.values import (
    BODY_TIMEOUT,
    MAX_BODY,
    MAX_HELD,
    MAX_UNKNOWN_BODY,
    HttpSettings,
)
from guardrail.model.facts import Fact
from guardrail.model.policy import PolicySet
from guardrail.signals import MOST_HOPS, Proxies
from guardrail.signals.directory import Directory
from guardrail.signals.directory.sources import CallableDirectory, ServiceDirectory
from guardrail.stores.naming import hash_keys, read_key_file

TOKENS = ("issuer", "audience", "jwks", "algorithms", "claims", "plain_http")
"""The keys of a directory that is in verified tokens; `TokenDirectory` tells what they mean."""

PROXIES = ("trusted", "header", "most_hops")
SERVICE = ("service", "provides", "authorization_from", "plain_http")
"""The keys of a directory in a file; the authorization is read from the environment."""


def caller_resolver_of(
    given: Given, keys: Sequence[bytes], facts: Mapping[str, Fact], environ: Mapping[str, str]
) -> CallerResolver:
    """Return how it is established who asks.

    `keys` are the hash keys, the current one first; `facts` are those of the policies.

    Raises:
        SettingError: a setting is not usable.
    """
    return CallerResolver(
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


LOG = logging.getLogger("guardrail")

ARGUMENTS = tuple(Options.__annotations__)
"""What arguments may say; those that no file can hold among them."""

REMEDIES = ("verify", "pay", "contact")
_DIALECTS = {**{dialect.value: dialect for dialect in Dialect}, "problem": Dialect.OTHER}
_DIALECTS.pop(Dialect.OTHER.value)
_RANDOM_KEY_BYTES = 32
METRICS_TOKEN = "GUARDRAIL_METRICS_TOKEN"
NOBODY_KNOWN = (
    "nobody is known here: neither `directory` nor `identify` is set, so that callers have no "
    "account and no tier, and limits by account count by network"
)
UNJOINABLE = (
    "what is logged or recorded names accounts by hashes that are others in each process and after "
    "each start, as there is no hash key: set `GUARDRAIL_HASH_KEY` to join its lines"
)


def _own_guard(options: Mapping[str, Any]) -> Guard | AsyncGuard | None:
    guard = options.get("guard")
    if guard is None or isinstance(guard, Guard | AsyncGuard):
        return guard
    raise SettingError(
        f"`guard` is a `{type(guard).__name__}`: hand over a `Guard` or an `AsyncGuard`, or say "
        "with `policies` which to load"
    )


class Configured:
    """What a door is made of. Policies are loaded, nothing is opened yet."""

    def __init__(
        self, given: Given, options: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        self.guard = _own_guard(options)
        self.clock: Callable[[], float] = options.get("clock", time.time)
        self.environ = environ
        self.signals = tuple(options.get("signals", ()))
        self.geo = next(iter(given.paths("geo")), None)
        self.namespace = given.text("namespace")
        self.local_share = given.part("local_share")
        self._keys = _keys(given, options, environ)
        self.store = given.raw("store")
        self.reloading = None if self.guard is not None else _reloading(given, environ)
        secret = self._keys[0] if self._keys else secrets.token_bytes(_RANDOM_KEY_BYTES)
        self.callers = caller_resolver_of(
            given, self._keys or (secret,), self.policies.facts, environ
        )
        self._made_directory = self.callers.directory is not given.raw("directory")
        if self.reloading is not None:
            told = self._made_directory or self.callers.established is not None
            self.reloading.keeps_facts = told
        self.http = _http_settings(given, options, environ, secret, self.callers)
        sink: DecisionSink | None = options.get("decision_sink")
        path = next(iter(given.paths("decision_log")), None)
        made = JsonLines(path) if sink is None and path is not None else None
        shared = next(iter(given.paths("metrics_dir")), None)
        counts = None if shared is None else SharedCounts(shared)
        record = next(iter(given.paths("record")), None)
        traffic = None
        if record is not None:
            traffic = TrafficRecorder(
                JsonLines(record, "the record of traffic"),
                secret,
                self.clock,
                share=given.part("record_share"),
                signals=standard_signals(self.geo, environ),
            )
        elif "record_share" in given:
            raise given.refuse("record_share", "say with `record` where to write")
        self.recorder = DecisionRecorder(
            sink or made, secret, made_here=sink is None, counts=counts, traffic=traffic
        )
        self.http = replace(
            self.http, on_refusal=lambda told: self.recorder.turned_away(told, self.clock())
        )
        self._notice = _notice(self.reloading, self.store, environ)
        self._noted: set[str] = set()
        self.states_callers = False
        """Whether those who ask state who their callers are, so that nobody need be known here."""
        if not self._keys and (sink or made or record) is not None:
            self.note((UNJOINABLE,))
        self.note(unfed_notes(self.policies.units))

    @property
    def policies(self) -> PolicySet:
        """The policies in force: those loaded last, or of the host's own guard."""
        if self.guard is not None:
            return self.guard.policies
        return cast(Reloading, self.reloading).policies

    def async_guard(self) -> AsyncGuard:
        """Return the guard of this process's event loop: the host's own, or one made now."""
        otherwise = "`guard` is a `Guard`: an event loop needs a `guardrail.AsyncGuard`"
        return self._guard_of(AsyncGuard, otherwise)

    def sync_guard(self) -> Guard:
        """Return the guard of this process's threads: the host's own, or one made now."""
        otherwise = "`guard` is an `AsyncGuard`: threads need a `guardrail.Guard`"
        return self._guard_of(Guard, otherwise)

    def _guard_of(self, kind: type[G], otherwise: str) -> G:
        if isinstance(self.guard, kind):
            return self.guard
        if self.guard is not None:
            raise SettingError(otherwise)
        guard = kind.from_policies(self.policies, **self._making())
        self.note((*self._notice(), *self._nobody_known()))
        return guard

    def _nobody_known(self) -> tuple[str, ...]:
        knows = self.callers.directory is not None or self.callers.established is not None
        knows = knows or self.states_callers
        return () if knows or type(self.callers) is not CallerResolver else (NOBODY_KNOWN,)

    def close(self) -> None:
        """Let go of a directory that was made here; the host's own is the host's to close."""
        self.recorder.close()
        if self._made_directory:
            self.callers.close()

    def note(self, lines: Iterable[str]) -> None:
        """Log each of some warnings once."""
        for line in lines:
            if line not in self._noted and len(self._noted) < _MOST_NOTES:
                self._noted.add(line)
                LOG.warning("%s", line)

    def _making(self) -> dict[str, Any]:
        store = self.store if self.store is not None else "memory://"
        return {
            "store": store,
            "geo": self.geo,
            "signals": self.signals,
            "namespace": self.namespace,
            "hash_key": self._keys or None,
            "local_share": self.local_share,
            "clock": self.clock,
            "environ": self.environ,
        }


_MOST_NOTES = 1000


def configure(
    options: Mapping[str, Any],
    folder: Path | None = None,
    defaults: Mapping[str, object] = MappingProxyType({}),
) -> Configured:
    """Return what arguments, and the file they or the environment name, make of a door.

    `defaults` are a host's own, for settings that neither names.

    Raises:
        SettingError: a setting is unknown or not usable, or no policies are named.
        PolicyError: the policies cannot be loaded.
    """
    check_names(options, ARGUMENTS, "the arguments")
    environ = options.get("environ")
    environ = os.environ if environ is None else environ
    arguments = {name: value for name, value in options.items() if value is not None}
    file = settings_file(arguments.get("config"), environ, folder or Path.cwd())
    given = Given(arguments, {**defaults, **file.values}, file.path)
    return Configured(given, arguments, environ)


def _reloading(given: Given, environ: Mapping[str, str]) -> Reloading:
    paths = given.paths("policies")
    if not paths:
        raise SettingError(
            "no policies are named: set `policies` as an argument, in `[tool.guardrail]` of "
            "pyproject.toml, or in the file that GUARDRAIL_CONFIG names"
        )
    places = (environ.get("GUARDRAIL_GEO"), environ.get("GUARDRAIL_GEO_ASN"))
    beside = (*given.paths("geo"), *(Path(place) for place in places if place))
    return Reloading(paths, given.seconds("reload", 0.0, zero=True), beside=beside)


def _keys(
    given: Given, options: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[bytes, ...]:
    files = given.paths("hash_key_file")
    if files:
        return hash_keys([read_key_file(path) for path in files], environ)
    key = options.get("hash_key")
    return hash_keys(key.encode() if isinstance(key, str) else key, environ)


def _notice(
    loaded: Reloading | None, store: object, environ: Mapping[str, str]
) -> Callable[[], tuple[str, ...]]:
    in_memory = store is None or (isinstance(store, str) and store.startswith("memory:"))
    if loaded is None or not in_memory:
        return lambda: ()
    return MemoryNotice(loaded.policies, environ, chosen=store is not None).lines


def _http_settings(
    given: Given,
    options: Mapping[str, Any],
    environ: Mapping[str, str],
    secret: bytes,
    callers: CallerResolver,
) -> HttpSettings:
    dialect = given.one_of("dialect", _DIALECTS, "problem")
    metrics, token = _metrics(given, environ)
    return HttpSettings(
        hash_key=secret,
        style=_style(given, options, secret),
        callers=callers,
        exempt=_exempt(given),
        metrics=metrics,
        metrics_token=token,
        dialect=_DIALECTS[dialect],
        reading=ReadingLimits(
            max_body=given.whole("max_body", MAX_BODY),
            max_unknown_body=given.whole("max_unknown_body", MAX_UNKNOWN_BODY, least=0),
        ),
        classifiers=tuple(options.get("classifiers", ())),
        body_timeout=given.seconds("body_timeout", BODY_TIMEOUT),
        max_delay=given.seconds("max_delay", 0.0, zero=True),
        max_held=given.whole("max_held", MAX_HELD, least=0),
        threads=given.whole("threads", 0, least=0),
        refuse_unreadable=given.one_of("unreadable", ("refuse", "strictest"), "refuse") == "refuse",
        stream_usage=given.flag("stream_usage", False),
    )


def _metrics(given: Given, environ: Mapping[str, str]) -> tuple[str | None, bytes]:
    path = given.text("metrics")
    if path is None:
        return None, b""
    if not path.startswith("/"):
        raise given.refuse("metrics", "give a whole path, such as `/metrics`")
    token = environ.get(METRICS_TOKEN, "")
    if not token:
        raise given.refuse(
            "metrics", f"set `{METRICS_TOKEN}` to the bearer token that a scrape has to send"
        )
    return path, token.encode()


# A scheme, a host and perhaps a port, as browsers send it: no path, no slash at the end.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s*]+|null")


def _style(given: Given, options: Mapping[str, Any], secret: bytes) -> Style:
    fields = given.one_of("ratelimit_fields", (VERSION, "none"), VERSION)
    origins = given.texts("cors_origins")
    if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        raise given.refuse("cors_origins", "give origins such as `https://app.example`, or `*`")
    links = given.table("remedies", REMEDIES)
    if not all(isinstance(link, str) for link in links.values()):
        raise given.refuse("remedies", "give an address for each remedy")
    return Style(
        fields=None if fields == "none" else fields,
        vendor=given.flag("vendor_headers", True),
        partition=secret if given.flag("partition_keys", False) else None,
        links={name: str(link) for name, link in links.items()},
        blocked_by=given.text("blocked_by") or "/",
        cross_origin=CrossOrigin(frozenset(origins)) if origins else None,
        spread=given.seconds("reset_spread", 30.0, zero=True),
        jitter=options.get("jitter", random.random),
    )


def _exempt(given: Given) -> frozenset[str]:
    paths = given.texts("exempt")
    for path in paths:
        if not path.startswith("/") or "*" in path or "?" in path:
            raise given.refuse("exempt", "give whole paths, such as `/health`, without wildcards")
    return frozenset(paths)
