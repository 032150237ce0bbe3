"""Which store a URI means."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from guardrail.errors import SettingError
from guardrail.stores import Store
from guardrail.stores.memory import MAX_KEYS, MemoryStore


def open_store(uri: str, keys: tuple[bytes, ...] = ()) -> Store:
    """Return the store that a URI names: `memory://`, with `?max_keys=N` for its bound.

    `keys` are the hash keys of stores outside this process, the current one first; memory keeps
    keys as they are.

    Raises:
        SettingError: the URI names no store, or an option it does not have.
    """
    parts = urlsplit(uri)
    if parts.scheme != "memory":
        raise SettingError(f"no store is known for `{uri}`: use `memory://`")
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(options.keys() - {"max_keys"})
    if unknown or parts.netloc or parts.path:
        wrong = unknown[0] if unknown else parts.netloc + parts.path
        raise SettingError(f"`{wrong}` means nothing in `{uri}`: `memory://?max_keys=N` is all")
    most = options.get("max_keys", [str(MAX_KEYS)])[-1]
    if not most.isascii() or not most.isdigit():
        raise SettingError(f"`max_keys` is `{most}` in `{uri}`: it must be a whole number")
    return MemoryStore(max_keys=int(most))
