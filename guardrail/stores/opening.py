"""Which store a URI means, and the async twin of a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

from guardrail.errors import SettingError, StoreError, not_installed
from guardrail.model.amounts import SECOND
from guardrail.stores import AsyncStore, Store
from guardrail.stores.epochs import OVERLAP, SHORTEST_OVERLAP
from guardrail.stores.memory import MemoryStore
from guardrail.stores.naming import KEY, KEY_FILE, MAKE_ONE
from guardrail.stores.options import Option, count, duration, host_clock, options, prefix, size, yes
from guardrail.stores.redis.address import ENCODED, read_address, without_login
from guardrail.stores.redis.address import SCHEMES as REDIS_SCHEMES

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


REDIS_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "deadline": duration,
        "connect": duration,
        "max_unknown": count,
        "overlap": duration,
        "prefix": prefix,
        "clock": host_clock,
        "evicting": yes,
    }
)
LAYOUT = 1
"""The layout of records on Redis that this release writes."""


def open_store(uri: str, hash_keys: Sequence[bytes] = ()) -> Store:
    """Return the store that a URI names, with its options; `docs/stores.md` lists them.

    `hash_keys`, the current one first, are for stores outside this process; memory keeps keys as
    they are.

    Raises:
        SettingError: the URI names no store, or an option it does not have.
        StoreError: the store does not answer.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        scheme = uri.partition(":")[0]
        raise SettingError(f"the URI `{scheme}:…` of a store cannot be read: {ENCODED}") from None
    opened = _SCHEMES.get(parts.scheme)
    if opened is None:
        known = ", ".join(f"`{name}`" for name in _EXAMPLES.values())
        near = get_close_matches(parts.scheme, _EXAMPLES, 1)
        hint = f"did you mean `{_EXAMPLES[near[0]]}`?" if near else f"there are {known}"
        raise SettingError(f"no store is known for `{without_login(uri)}`: {hint}")
    return opened(uri, parts, hash_keys)


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
    address = read_address(uri)
    stated = options(shown, parts, REDIS_OPTIONS)
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
