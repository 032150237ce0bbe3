"""Where the servers are: what a URI says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from guardrail.errors import SettingError

SCHEMES = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "valkey": ("single", False),
    "valkeys": ("single", True),
    "unix": ("unix", False),
    "redis+unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "valkey+sentinel": ("sentinel", False),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "valkey+cluster": ("cluster", False),
}
"""How each scheme finds its server, and whether it speaks TLS."""

PORT, SENTINEL_PORT = 6379, 26379

Kind = Literal["single", "unix", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class Place:
    """A server's host and port, or the path of its socket."""

    host: str
    port: int = PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Which servers a URI means, and how to log in; the password is never shown.

    `certificate` and `key` are files by which servers know this process, where it speaks TLS.
    """

    kind: Kind
    places: tuple[Place, ...]
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    service: str = ""
    certificate: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        return f"<Address {self.kind} {', '.join(map(str, self.places))}>"


ENCODED = (
    "write `/`, `?`, `#`, `@`, `:`, `[` and `%` in a name or a password as `%2F`, `%3F`, `%23`, "
    "`%40`, `%3A`, `%5B` and `%25`"
)
"""What to do about a login that cannot be told from the rest of its URI."""


def without_login(uri: str) -> str:
    """Return a URI as messages show it: of what may be secret, not even the length.

    That is all before the last `@`, wherever it stands, the values of options, and, where a
    port is none, what stands in its place: a password without its `@`.
    """
    scheme, sign, rest = uri.partition("://")
    if not sign:
        scheme, sign, rest = uri.partition(":")
    if not sign or not re.fullmatch("[a-z+]{1,20}", scheme):
        return "…"
    before, at, after = rest.rpartition("@")
    shown = after if at else rest
    shown, hash_sign, _ = shown.partition("#")
    if hash_sign:
        shown += "#…"
    if at and "?" in before:
        shown = "…"  # it stands in an option
    shown = re.sub(r"=[^&]*", "=…", shown)
    place, slash, path = shown.partition("/")
    hosts = (host for host in place.partition("?")[0].split(","))
    if any(_PORTED.fullmatch(host) is None for host in hosts):
        return f"{scheme}://…"
    number, question, stated = path.partition("?")
    if SCHEMES.get(scheme, ("", False))[0] in ("single", "cluster") and not number.isdigit():
        number = "…" if number else ""
    return f"{scheme}://{place}{slash}{number}{question}{stated}"


_PORTED = re.compile(r"(?:[^:]*|\[[0-9A-Fa-f:.]*\])(?::[0-9]{1,5})?")
"""A host, a port perhaps: what may be shown of where a server is."""


def read_address(uri: str) -> Address:
    """Return what a URI says, but for its options.

    `redis://[user:password@]host[:port][/database]`, `unix:///path`,
    `redis+sentinel://host:port,host:port/service[/database]`, `redis+cluster://host:port,…`.

    Raises:
        SettingError: a part of it cannot be read.
    """
    parts = urlsplit(uri)
    shown = without_login(uri)
    odd = "@" in parts.path + parts.query and SCHEMES[parts.scheme][0] != "unix"
    if odd or parts.fragment:
        raise SettingError(f"`{shown}` has a `#`, or an `@` after its host: {ENCODED}")
    kind, tls = SCHEMES[parts.scheme]
    login, _, hosts = parts.netloc.rpartition("@")
    name, _, secret = login.partition(":")
    username, password = unquote(name) or None, unquote(secret) or None
    rest = [unquote(part) for part in parts.path.split("/") if part]
    if kind == "unix":
        if not parts.path:
            raise SettingError(f"`{shown}` names no socket: write `unix:///path/to/socket`")
        place = Place("", 0, unquote(parts.path))
        return Address("unix", (place,), False, username, password)
    service = ""
    if kind == "sentinel":
        if not rest:
            raise SettingError(
                f"`{shown}` names no service: write `redis+sentinel://host:26379/service`"
            )
        service = rest.pop(0)
    database = _database(rest, shown)
    if kind == "cluster" and database:
        raise SettingError(f"`{shown}` names a database: a cluster has only the first")
    port = SENTINEL_PORT if kind == "sentinel" else PORT
    places = tuple(_place(text, port, shown) for text in hosts.split(","))
    if kind == "single" and len(places) > 1:
        raise SettingError(f"`{shown}` names several servers: is it a `redis+cluster://`?")
    return Address(kind, places, tls, username, password, database, service)  # type: ignore[arg-type]


def _database(rest: list[str], shown: str) -> int:
    if not rest:
        return 0
    if len(rest) > 1 or not (rest[0].isascii() and rest[0].isdigit()):
        raise SettingError(f"the path of `{shown}` is no number of a database")
    return int(rest[0])


def _place(text: str, port: int, shown: str) -> Place:
    host, sign, number = text.rpartition(":")
    if not sign or text.endswith("]"):
        host, number = text, str(port)
    host = host.strip("[]")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise SettingError(
            f"what stands after the last `:` of a host in `{shown}` is no port: write "
            f"`redis://user:password@host:6379`; {ENCODED}"
        )
    return Place(host or "127.0.0.1", int(number))
