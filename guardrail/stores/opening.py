"""Which store a URI means, and the async twin of a store."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from guardrail.errors import SettingError, StoreError, not_installed
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND
from guardrail.stores import AsyncStore, Store
from guardrail.stores.memory import MemoryStore
from guardrail.stores.naming import KEY, KEY_FILE, MAKE_ONE, OVERLAP, SHORTEST_OVERLAP
from guardrail.stores.redis.address import ENCODED, Address, read_address, without_login
from guardrail.stores.redis.address import SCHEMES as REDIS_SCHEMES


def open_store(uri: str, hash_keys: Sequence[bytes] = ()) -> Store:
    """Return the store that a URI names, with its options; `docs/stores.md` lists them.

    `hash_keys`, the current one first, are for stores outside this process; memory keeps keys as
    they are.

    Raises:
        SettingError: the URI names no store, or an option it does not have.
        StoreError: the store does not answer.
    """
    parts = known_store(uri)
    return _SCHEMES[parts.scheme](uri, parts, hash_keys)


def known_store(uri: str) -> SplitResult:
    """Return the parts of a URI that names a kind of store there is; nothing is opened.

    Raises:
        SettingError: the URI names no store.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        scheme = uri.partition(":")[0]
        raise SettingError(f"the URI `{scheme}:…` of a store cannot be read: {ENCODED}") from None
    if parts.scheme not in _SCHEMES:
        known = ", ".join(f"`{name}`" for name in _EXAMPLES.values())
        near = get_close_matches(parts.scheme, _EXAMPLES, 1)
        hint = f"did you mean `{_EXAMPLES[near[0]]}`?" if near else f"there are {known}"
        raise SettingError(f"no store is known for `{without_login(uri)}`: {hint}")
    return parts


def awaited(store: Store | AsyncStore) -> AsyncStore:
    """Return the async twin of a store, or the store itself if it has none: it does not wait."""
    twin: Callable[[], AsyncStore] | None = getattr(store, "awaited", None)
    return cast(AsyncStore, store) if twin is None else twin()


def _memory(uri: str, parts: SplitResult, hash_keys: Sequence[bytes]) -> Store:
    stated = options(without_login(uri), parts, MEMORY_OPTIONS)
    if parts.netloc or parts.path:
        shown = without_login(uri)
        wrong = shown.partition("://")[2].partition("?")[0]
        raise SettingError(f"`{wrong}` means nothing in `{shown}`: `memory://?max_keys=N` is all")
    return MemoryStore(**stated)


def _lmdb(uri: str, parts: SplitResult, hash_keys: Sequence[bytes]) -> Store:
    stated = options(without_login(uri), parts, LMDB_OPTIONS)
    path = unquote(parts.path)
    if parts.netloc or path.strip("/") == "":
        shown = without_login(uri)
        raise SettingError(
            f"`{shown}` names no folder: write it with three slashes, `{_EXAMPLES['lmdb']}`"
        )
    try:
        from guardrail.stores.lmdb import LmdbStore
    except ImportError as problem:
        raise not_installed(problem, f"`{uri}`", "lmdb") from problem
    return LmdbStore(path, hash_keys=hash_keys, **stated)


def _redis(uri: str, parts: SplitResult, hash_keys: Sequence[bytes]) -> Store:
    shown = without_login(uri)
    stated = options(shown, parts, REDIS_OPTIONS)
    address = _with_certificate(read_address(uri), stated, shown)
    if not hash_keys:
        raise SettingError(
            f"`{shown}` needs a hash key, since no identifier may leave this process: set `{KEY}`, "
            f"or `{KEY_FILE}` to a file of mode 0600; {MAKE_ONE}"
        )
    try:
        from guardrail.stores.redis.server_state import StoreOptions
        from guardrail.stores.redis.store import CONNECT, DEADLINE, RedisStore
    except ImportError as problem:
        raise not_installed(problem, f"`{shown}`", "redis") from problem
    surroundings = StoreOptions(
        keys=hash_keys,
        layouts=(LAYOUT,),
        prefix=stated.get("prefix", "gr"),
        overlap=max(stated.get("overlap", OVERLAP), SHORTEST_OVERLAP),
        bound=stated.get("max_unknown"),
        host_clock=stated.get("clock", False),
        evicting=stated.get("evicting", False),
    )
    store = RedisStore(
        address,
        surroundings,
        deadline=stated.get("deadline", DEADLINE * SECOND) / SECOND,
        connect=stated.get("connect", CONNECT * SECOND) / SECOND,
    )
    try:
        store.open()
    except StoreError as problem:
        # A host that starts while its counters are away does what its rules say for that.
        logging.getLogger("guardrail").warning("the store is not there yet: %s", problem)
    return store


def _with_certificate(address: Address, stated: Mapping[str, Any], shown: str) -> Address:
    """Return an address with the files of this process's own certificate, if any are stated."""
    certificate, key = stated.get(CERTIFICATE), stated.get(PRIVATE_KEY)
    if certificate is None and key is None:
        return address
    if not address.tls:
        spoken = " or ".join(f"`{name}://`" for name, (_, tls) in REDIS_SCHEMES.items() if tls)
        raise SettingError(f"`{shown}` speaks no TLS, where a certificate is shown: write {spoken}")
    if certificate is None:
        raise SettingError(f"`{PRIVATE_KEY}` stands alone in `{shown}`: add `{CERTIFICATE}`")
    try:
        # A key with a password would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as problem:
        files = " and ".join(f"`{file}`" for file in (certificate, key) if file)
        raise SettingError(
            f"{files} cannot be used as a certificate: {problem}; give PEM files that this "
            f"process may read, with a key that has no password, in `{CERTIFICATE}` and "
            f"`{PRIVATE_KEY}`"
        ) from problem
    # On an event loop, redis-py 5 shows none unless both are named.
    return replace(address, certificate=certificate, key=key or certificate)


_SCHEMES: Mapping[str, Callable[[str, SplitResult, Sequence[bytes]], Store]] = MappingProxyType(
    {"memory": _memory, "lmdb": _lmdb, **dict.fromkeys(REDIS_SCHEMES, _redis)}
)
_EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "memory": "memory://",
        "lmdb": "lmdb:///var/lib/guardrail",
        "redis": "redis://localhost:6379/0",
        "valkey": "valkey://localhost:6379/0",
        "redis+sentinel": "redis+sentinel://localhost:26379/service",
        "redis+cluster": "redis+cluster://localhost:6379",
    }
)


Option = Callable[[str], object]
"""Reads the text of an option; raises ValueError, with what it must be, if that is no value."""

_DURATION_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_SIZE_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_COUNT_UNITS = {"": 1, "k": 1000, "M": 1_000_000, "G": 1_000_000_000}
_LOGIN = ("user", "username", "password", "pass", "pwd", "auth", "token", "secret")
_NUMBER = re.compile(r"([0-9]{1,15})([A-Za-z]*)")


def duration(text: str) -> int:
    """Return a duration such as `50ms`, `10s` or `1h` in microseconds."""
    return _scaled(text, _DURATION_UNITS, "a duration such as `50ms`, `10s` or `1h`")


def size(text: str) -> int:
    """Return a size such as `512M` or `8G` in bytes."""
    return _scaled(text, _SIZE_UNITS, "a size such as `512M` or `8G`")


def count(text: str) -> int:
    """Return a whole number such as `500` or `2M`."""
    return _scaled(text, _COUNT_UNITS, "a whole number such as `500k` or `2M`")


def yes(text: str) -> bool:
    """Return whether `yes` or `no` is said."""
    if text not in ("yes", "no"):
        raise ValueError("`yes` or `no`")
    return text == "yes"


def host_clock(text: str) -> bool:
    """Return whether decisions go by the `host`'s clock instead of the `server`'s."""
    if text not in ("host", "server"):
        raise ValueError("`host` or `server`")
    return text == "host"


def file(text: str) -> str:
    """Return the path of a file."""
    if not text:
        raise ValueError("the path of a file")
    return text


def prefix(text: str) -> str:
    """Return what the names of all records start with."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", text):
        raise ValueError("1 to 32 letters, digits, `_`, `.` or `-`")
    return text


def options(uri: str, parts: SplitResult, known: Mapping[str, Option]) -> dict[str, Any]:
    """Return the options of a URI, by name.

    Raises:
        SettingError: one is unknown or given twice, or its text is no value of it.
    """
    found: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        read = known.get(name)
        if read is None:
            near = get_close_matches(name, known, 1)
            listed = ", ".join(f"`{option}`" for option in known)
            hint = f"did you mean `{near[0]}`?" if near else f"the options are {listed}"
            if not re.fullmatch("[a-z_]{1,32}", name):
                raise SettingError(f"an option in `{uri}` has no name: {hint}")
            if name in _LOGIN:
                hint = "a name and a password stand before the host, `redis://user:password@host`"
            raise SettingError(f"`{name}` means nothing in `{uri}`: {hint}")
        if name in found:
            raise SettingError(f"`{name}` is given twice in `{uri}`: keep one of them")
        try:
            found[name] = read(text)
        except ValueError as problem:
            raise SettingError(f"`{name}` is `{text}` in `{uri}`: it must be {problem}") from (
                problem
            )
    return found


def _scaled(text: str, units: Mapping[str, int], wanted: str) -> int:
    found = _NUMBER.fullmatch(text)
    if found is None or found[2] not in units:
        raise ValueError(wanted)
    return int(found[1]) * units[found[2]]


MEMORY_OPTIONS: Mapping[str, Option] = MappingProxyType({"max_keys": count})
LMDB_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "deadline": duration,
        "max_size": size,
        "max_unknown": count,
        "copy_every": duration,
        "overlap": duration,
    }
)


CERTIFICATE, PRIVATE_KEY = "ssl_certfile", "ssl_keyfile"
REDIS_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "deadline": duration,
        "connect": duration,
        "max_unknown": count,
        "overlap": duration,
        "prefix": prefix,
        "clock": host_clock,
        "evicting": yes,
        CERTIFICATE: file,
        PRIVATE_KEY: file,
    }
)
LAYOUT = 1
"""The layout of records on Redis that this release writes."""
