"""Which store a URI means, and the async twin of a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from guardrail.errors import SettingError
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND
from guardrail.stores import AsyncStore, Store
from guardrail.stores.lmdb.asynchronous import AsyncLmdbStore
from guardrail.stores.lmdb.store import LmdbStore
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore

Option = Callable[[str], int]
"""Reads the text of an option; raises ValueError, with what it must be, if that is no value."""

_DURATION_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_SIZE_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_COUNT_UNITS = {"": 1, "k": 1000, "M": 1_000_000, "G": 1_000_000_000}
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


def open_store(uri: str, hash_keys: Sequence[bytes] = ()) -> Store:
    """Return the store that a URI names: `memory://` or `lmdb:///path`, with its options.

    `hash_keys`, the current one first, are for stores outside this process; memory keeps keys as
    they are.

    Raises:
        SettingError: the URI names no store, or an option it does not have.
        StoreError: the store does not answer.
    """
    parts = urlsplit(uri)
    opened = _SCHEMES.get(parts.scheme)
    if opened is None:
        known = ", ".join(f"`{name}`" for name in _EXAMPLES.values())
        near = get_close_matches(parts.scheme, _SCHEMES, 1)
        hint = f"did you mean `{_EXAMPLES[near[0]]}`?" if near else f"there are {known}"
        raise SettingError(f"no store is known for `{uri}`: {hint}")
    return opened(uri, parts, hash_keys)


def awaited(store: Store | AsyncStore) -> AsyncStore:
    """Return the async twin of a store, or the store itself if it is awaited already."""
    if isinstance(store, LmdbStore):
        return AsyncLmdbStore(store)
    if isinstance(store, MemoryStore):
        return AsyncMemoryStore(store)
    return cast(AsyncStore, store)


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


def _memory(uri: str, parts: SplitResult, hash_keys: Sequence[bytes]) -> Store:
    stated = options(uri, parts, MEMORY_OPTIONS)
    if parts.netloc or parts.path:
        wrong = parts.netloc + parts.path
        raise SettingError(f"`{wrong}` means nothing in `{uri}`: `memory://?max_keys=N` is all")
    return MemoryStore(**stated)


def _lmdb(uri: str, parts: SplitResult, hash_keys: Sequence[bytes]) -> Store:
    stated = options(uri, parts, LMDB_OPTIONS)
    path = unquote(parts.path)
    if parts.netloc or path.strip("/") == "":
        raise SettingError(
            f"`{uri}` names no folder: write it with three slashes, `{_EXAMPLES['lmdb']}`"
        )
    return LmdbStore(path, hash_keys=hash_keys, **stated)


_SCHEMES: Mapping[str, Callable[[str, SplitResult, Sequence[bytes]], Store]] = MappingProxyType(
    {"memory": _memory, "lmdb": _lmdb}
)
_EXAMPLES: Mapping[str, str] = MappingProxyType(
    {"memory": "memory://", "lmdb": "lmdb:///var/lib/guardrail"}
)
