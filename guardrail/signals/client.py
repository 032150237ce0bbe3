"""Whose address a request comes from: the socket's, or what declared proxies say in one header.

The address is found from right to left, since each proxy appends what it saw: entries of declared
proxies are skipped, and the first other entry is the client. Whatever stands left of it was sent
by the client and is not read. No header of a peer that is not a declared proxy is read at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import NamedTuple

from guardrail.errors import SettingError
from guardrail.signals.addresses import MAPPED, Networks, is_public, network_of, parse_hop, text_of

Headers = Sequence[tuple[bytes, bytes]]

UNIX = "unix"
"""Stands, among the trusted, for a peer without an address: one behind a unix socket."""

MOST_HOPS = 32
"""How many declared proxies a request may have passed, unless told otherwise."""

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_EMPTY_PER_HOP = 8


class ClientAddress(NamedTuple):
    """The address of a client, or why there is none.

    `ip` is its canonical text, None if it is not known. `hop` is the last address that is
    certain, which limits may go by where `ip` is None. `note` says what an operator should know.
    """

    ip: str | None
    hop: str | None = None
    note: str | None = None

    def facts(self) -> dict[str, object]:
        """Return `client.ip`, or else the `client.network` of the last certain hop, if any.

        Without `client.ip` nothing is known of the place: `geo.country` stays missing.
        """
        if self.ip is not None:
            return {"client.ip": self.ip}
        network = network_of(self.hop)
        return {} if network is None else {"client.network": network}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The declared proxies, and the one header in which they say whom they serve.

    Make one with `declare`. Without any, the peer of the socket is the client.
    """

    header: bytes = b"x-forwarded-for"
    most_hops: int = MOST_HOPS
    unix: bool = False
    v4: Networks = field(default_factory=Networks)
    v6: Networks = field(default_factory=Networks)

    @classmethod
    def declare(
        cls,
        trusted: Iterable[str] = (),
        header: str = "x-forwarded-for",
        *,
        most_hops: int = MOST_HOPS,
    ) -> Proxies:
        """Take networks and addresses of proxies (`unix`: the peer of a unix socket) and a header.

        `forwarded` is read as RFC 7239 says, any other header as a list like X-Forwarded-For.
        `most_hops` bounds how many proxies a request may have passed.

        Raises:
            SettingError: something is no network, trusts everyone, or is no header's name.
        """
        name = header.lower().encode("ascii", "replace")
        if not name or not _TOKEN.issuperset(name):
            raise SettingError(f"`{header}` is not the name of a header; write `x-forwarded-for`")
        if not 1 <= most_hops <= 1000:
            raise SettingError(f"`most_hops` is `{most_hops}`: give 1 to 1000 proxies")
        entries = list(trusted)
        networks = [_network(text) for text in entries if text != UNIX]
        v4 = list(collapse_addresses(n for n in networks if isinstance(n, IPv4Network)))
        v6 = list(collapse_addresses(n for n in networks if isinstance(n, IPv6Network)))
        if any(n.prefixlen == 0 for n in v4) or any(n.prefixlen == 0 for n in v6):
            raise SettingError(
                "the trusted proxies are every address: anyone could then claim to be anyone; "
                "name the networks of your own proxies"
            )
        return cls(name, most_hops, UNIX in entries, Networks.of(v4), Networks.of(v6))

    @property
    def declared(self) -> bool:
        """Whether any proxy is declared."""
        return self.unix or bool(self.v4.firsts or self.v6.firsts)

    def trusts(self, address: bytes) -> bool:
        """Tell whether 4 or 16 bytes are the address of a declared proxy."""
        return address in (self.v4 if len(address) == 4 else self.v6)


def is_proxy(peer: str | None, proxies: Proxies) -> bool:
    """Tell whether a socket's peer (None: it has no address) is a declared proxy."""
    if peer is None:
        return proxies.unix
    address = parse_hop(peer)
    return address is not None and proxies.trusts(address)


def client_address(peer: str | None, headers: Headers, proxies: Proxies) -> ClientAddress:
    """Return the address of the client behind a socket's peer (None: it has no address).

    `headers` are names and values as sent, in order; names in any case. The work is bounded by
    the number of proxies a request may pass, however long the header is.
    """
    address = None if peer is None else parse_hop(peer)
    if address is None:
        if peer is not None or not proxies.unix:
            return ClientAddress(None)
    elif not proxies.trusts(address):
        return _socket(address, proxies)
    return _walk(address, headers, proxies)


def _socket(address: bytes, proxies: Proxies) -> ClientAddress:
    text = text_of(address)
    if proxies.declared or is_public(address):
        return ClientAddress(text, text)
    return ClientAddress(
        None,
        None,
        "requests come from a private address and no proxy is declared: clients have no network "
        "and no country; declare the proxies in front of this server",
    )


def _walk(hop: bytes | None, headers: Headers, proxies: Proxies) -> ClientAddress:
    """Follow the header from right to left, starting at a hop that is trusted."""
    read = node_of if proxies.header == b"forwarded" else xff_node
    hops = 0
    for number, piece in enumerate(_pieces(headers, proxies.header)):
        if hops > proxies.most_hops or number > proxies.most_hops * _EMPTY_PER_HOP:
            return _unknown(hop, f"it has passed more than {proxies.most_hops} proxies")
        if not piece:
            continue
        address = read(piece)
        if address is None:
            return _unknown(hop, f"`{_name(proxies)}` holds what is no address")
        if not proxies.trusts(address):
            text = text_of(address)
            return ClientAddress(text, text)
        hop = address
        hops += 1
    last = None if hop is None else text_of(hop)
    return ClientAddress(last, last)


def _pieces(headers: Headers, name: bytes) -> Iterator[bytes]:
    """Yield the elements of all lines of a header, the last one first."""
    for key, value in reversed(headers):
        if key.lower() == name:
            yield from pieces(value, quotes=name == b"forwarded")


def _unknown(hop: bytes | None, why: str) -> ClientAddress:
    return ClientAddress(
        None, None if hop is None else text_of(hop), f"the address of a client is unknown: {why}"
    )


def _name(proxies: Proxies) -> str:
    return proxies.header.decode("ascii")


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as problem:
        hint = "write `10.0.0.0/8`, `2001:db8::/32` or `unix`"
        if "host bits" in str(problem):
            hint = f"it has bits set beyond its prefix; write `{ip_network(text, strict=False)}`"
        raise SettingError(f"`{text}` is not the network of a proxy; {hint}") from None
    mapped = network.network_address.packed.startswith(MAPPED)
    if isinstance(network, IPv6Network) and mapped and network.prefixlen >= 96:
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


_BLANK = b" \t"
# An IPv6 address in brackets, with a port or without; an IPv4 address with a port; either without.
_NODE = re.compile(
    r"\[([^\]]*:[^\]]*)\](?::[0-9]{1,5})?|([^:]*):[0-9]{1,5}|([^:]*|[^:]*:[^:]*:.*)", re.DOTALL
)
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Values are looser than RFC 7239's tokens: real proxies leave quotes out around IPv6 addresses.
_PAIR = re.compile(rf'[ \t]*({_NAME})=("(?:[^"\\]|\\.)*"|[^\s",;]+)[ \t]*(;|$)')
_ESCAPED = re.compile(r"\\(.)")
_LONGEST = 1024
"""No element of a proxy's is longer, and none of a client's needs to be read further."""


def pieces(line: bytes, *, quotes: bool = False) -> Iterator[bytes]:
    """Yield the comma-separated elements of a header's line from right to left, blanks stripped.

    With `quotes`, a comma in a quoted string parts nothing. Quotes are paired from the right, so
    that one left open by a client cannot swallow what a proxy appended.
    """
    end = len(line)
    while end >= 0:
        start = line.rfind(b",", 0, end)
        if quotes:
            while start >= 0 and line.count(b'"', start + 1, end) % 2 and end - start < _LONGEST:
                start = line.rfind(b",", 0, start)
        yield line[start + 1 : end].strip(_BLANK)
        end = start


def xff_node(piece: bytes) -> bytes | None:
    """Return the address that an element of X-Forwarded-For names, None if it names none.

    Ports, brackets and zone ids are left out; an IPv4 address in IPv6 notation is unwrapped.
    """
    return None if len(piece) > _LONGEST else _node(piece.decode("latin-1"))


def node_of(piece: bytes) -> bytes | None:
    """Return the address in the `for` parameter of an element of Forwarded, None if none is."""
    if len(piece) > _LONGEST:
        return None
    text, at, found = piece.decode("latin-1"), 0, None
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        if pair[1].lower() == "for":
            if found is not None:
                return None
            found = pair[2]
        at = pair.end()
    if found is None:
        return None
    return _node(_ESCAPED.sub(r"\1", found[1:-1]) if found.startswith('"') else found)


def _node(text: str) -> bytes | None:
    found = _NODE.fullmatch(text)
    return None if found is None else parse_hop(found[found.lastindex or 0])
