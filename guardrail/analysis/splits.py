"""By which values a fact's domain splits, so that a few stand for all it may have.

Two values between which no test of a policy tells are as good as one.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from guardrail.model.facts import Fact, FactType

NUMERIC = (FactType.INTEGER, FactType.NUMBER, FactType.DURATION, FactType.TIMESTAMP)
"""The types whose values have an order without an end."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

RANGES = {"time.hour": (0, 23), "actor.accounts": (1, math.inf)}
"""The least and the most that facts can be whose type says less."""
_PLAIN_ADDRESSES = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1")
_EVERYWHERE: tuple[Network, ...] = (
    ipaddress.ip_network("0.0.0.0/0"),
    ipaddress.ip_network("::/0"),
)


def numbers(fact: Fact, boundaries: Iterable[float]) -> tuple[float, ...]:
    """Return each boundary, and a number between any two of them, below all and above all."""
    low, high = RANGES.get(fact.name, (-math.inf, math.inf))
    if fact.type in (FactType.DURATION, FactType.TIMESTAMP):
        low = 0.0
    if fact.type is FactType.INTEGER:
        whole = {math.floor(b) + step for b in boundaries for step in (-1, 0, 1)}
        return tuple(n for n in sorted({*whole, int(max(low, 0))}) if low <= n <= high)
    known = sorted(set(boundaries)) or [0.0]
    found = {*known, *((a + b) / 2 for a, b in pairwise(known)), known[0] - 1, known[-1] + 1}
    return tuple(n for n in sorted(found) if low <= n <= high)


def texts(named: Iterable[str], prefixes: Iterable[str], several: int) -> tuple[str, ...]:
    """Return each text named, and `several` others for each prefix, and for none of them.

    The others start with no longer prefix that is named.
    """
    known, starts = set(named), sorted(set(prefixes))
    found = sorted(known)
    for start in ("", *starts):
        longer = tuple(other for other in starts if len(other) > len(start))
        found += _others(start, known, longer, several)
    return tuple(dict.fromkeys(found))


def _others(start: str, known: set[str], longer: tuple[str, ...], several: int) -> list[str]:
    found: list[str] = []
    for count in range(1, 10_000):
        for stem in ("other", "some", "new", "x", "0", "~"):
            text = f"{start}{stem}{'' if count == 1 else f'-{count}'}"
            if text not in known and not text.startswith(longer):
                found.append(text)
                if len(found) == several:
                    return found
                break
    return found


def addresses(networks: Iterable[Network], named: Iterable[str], several: int) -> tuple[str, ...]:
    """Return each address named, and `several` others for each part that the networks leave.

    A part is a network without those inside it, or what lies in none of them.
    """
    nets: list[Network] = sorted(
        {*networks, *_EVERYWHERE}, key=lambda net: (net.version, net.prefixlen, net)
    )
    taken = {text for text in named if _is_address(text)}
    found = sorted(taken)
    for place, net in enumerate(nets):
        inside = [
            other
            for other in nets[place + 1 :]
            if other.version == net.version and other.subnet_of(net)  # type: ignore[arg-type]
        ]
        room = 0
        for address in _between(net, inside):
            if room == several:
                break
            if str(address) not in taken:
                taken.add(str(address))
                found.append(str(address))
                room += 1
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _between(net: Network, inside: Sequence[Network]) -> Iterator[Address]:
    """Yield addresses of a network that are in none of those inside it, plain ones first."""
    for text in _PLAIN_ADDRESSES:
        address = ipaddress.ip_address(text)
        here = address.version == net.version and address in net
        if here and not any(address in other for other in inside):
            yield address
    top = net.network_address.max_prefixlen
    spans = sorted((int(other[0]), int(other[-1])) for other in inside)
    first, last = int(net[0]), int(net[-1])
    if top - net.prefixlen > 1:
        first += 1  # the network's own name is not a plain address
    for low, high in [*spans, (last + 1, last + 1)]:
        while first < low:
            made = (
                ipaddress.IPv4Address(first) if net.version == 4 else ipaddress.IPv6Address(first)
            )
            if not (isinstance(made, ipaddress.IPv6Address) and made.ipv4_mapped):
                yield made
            else:
                first = min(low, first | 0xFFFF_FFFF)
            first += 1
        first = max(first, high + 1)
    if top - net.prefixlen > 1 and not any(net[0] in other for other in inside):
        yield net[0]
