"""What the text of a network address says: its bytes, the IPv4 address it carries, its network."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

NOT_AN_ADDRESS = (OSError, TypeError, ValueError)
"""What `inet_pton` raises: for malformed text, for no text, for NUL or a lone surrogate in it."""

# RFC 6890 and its registry: no host on the public internet answers at these addresses.
_NETWORKS_V4 = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
    "224.0.0.0/3"
).split()
# Global unicast is 2000::/3 (RFC 4291); within it, IETF protocols (Teredo among them),
# documentation, and what is left of 6to4.
_NETWORKS_V6 = "::/3 2001::/23 2001:db8::/32 2002::/16 3fff::/20 4000::/2 8000::/1".split()

MAPPED = bytes.fromhex("00000000000000000000ffff")
"""What an IPv4 address in IPv6 notation starts with (::ffff:0:0/96, RFC 4291)."""

_NAT64 = bytes.fromhex("0064ff9b0000000000000000")  # 64:ff9b::/96, RFC 6052
_SIX_TO_FOUR = bytes.fromhex("2002")  # 2002::/16, RFC 3056


@dataclass(frozen=True, slots=True)
class Networks:
    """Disjoint networks of one width, by their first and last addresses."""

    firsts: tuple[bytes, ...] = ()
    lasts: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[IPv4Network | IPv6Network]) -> Networks:
        """Take disjoint networks of one width."""
        ordered = sorted(networks, key=lambda network: network.network_address.packed)
        return cls(
            tuple(network.network_address.packed for network in ordered),
            tuple(network.broadcast_address.packed for network in ordered),
        )

    def __contains__(self, address: bytes) -> bool:
        index = bisect_right(self.firsts, address) - 1
        return index >= 0 and address <= self.lasts[index]

    def first_bytes(self) -> bytes:
        """Return, for each byte, whether an address that starts with it can be in one of them."""
        spans = [(a[0], b[0]) for a, b in zip(self.firsts, self.lasts, strict=True)]
        return bytes(any(low <= byte <= high for low, high in spans) for byte in range(256))


_SPECIAL_V4 = Networks.of(map(ip_network, _NETWORKS_V4))
_SPECIAL_V6 = Networks.of(map(ip_network, _NETWORKS_V6))

SPECIAL_V4 = _SPECIAL_V4.first_bytes()
"""For each first byte of an IPv4 address, whether `is_public` must be asked about it."""

SPECIAL_V6 = _SPECIAL_V6.first_bytes()
"""The same for IPv6; an address that carries an IPv4 address also starts with such a byte."""


def parse(text: object) -> bytes | None:
    """Return the 4 or 16 bytes of an address in its standard notation, None for anything else.

    Octal, short and decimal forms, ports, brackets, blanks and zone ids are something else.
    """
    if not isinstance(text, str):
        return None
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        if "%" in text:  # some systems' inet_pton take a zone id
            return None
        return inet_pton(AF_INET6, text)
    except NOT_AN_ADDRESS:
        return None


def parse_hop(text: str) -> bytes | None:
    """Return the address that a socket or a proxy names, without its zone id; None if none.

    An IPv4 address in IPv6 notation is the IPv4 address: that is how sockets for both write it.
    """
    address = parse(text.partition("%")[0] if ":" in text else text)
    return address[12:] if address is not None and address.startswith(MAPPED) else address


def unwrap(address: bytes) -> bytes:
    """Return the IPv4 address that an IPv6 address carries (mapped, NAT64, 6to4), or `address`."""
    if len(address) == 16:
        if address.startswith((MAPPED, _NAT64)):
            return address[12:]
        if address.startswith(_SIX_TO_FOUR):
            return address[2:6]
    return address


def is_public(address: bytes) -> bool:
    """Tell whether an unwrapped address can belong to a host on the public internet."""
    return address not in (_SPECIAL_V4 if len(address) == 4 else _SPECIAL_V6)


def text_of(address: bytes) -> str:
    """Return the standard notation of 4 or 16 bytes."""
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def network_of(text: object) -> str | None:
    """Return the network that one customer usually holds: an IPv4 address itself, an IPv6 /64.

    An IPv6 address that carries an IPv4 address stands for it. None if `text` is no address.
    """
    address = parse(text)
    if address is None:
        return None
    address = unwrap(address)
    if len(address) == 4:
        return text_of(address)
    return text_of(address[:8] + bytes(8)) + "/64"
