"""What is known of the network an address is in, from lists of address ranges and AS numbers."""

from __future__ import annotations

import difflib
import re
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from guardrail.errors import DataError, SettingError
from guardrail.signals.addresses import MAPPED, network_of, parse, text_of, unwrap

KINDS = ("tor", "vpn", "proxy", "hosting", "mobile", "business", "residential")
"""The kinds a list can give, most telling first: on several lists, an address has the first."""

_UNLISTED = len(KINDS)
_KINDS_BY_RANK = (*KINDS, "other")
_ASN = re.compile(r"AS([0-9]{1,10})", re.IGNORECASE)
_MAX_ASN = 2**32 - 1  # reserved, as 0 is (RFC 7300, RFC 7607)
_NETWORK = re.compile(r"([0-9A-Fa-f:.]+)(?:/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class _Listed:
    """The addresses of one width (in bytes) from `first` to `last`, both included."""

    width: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Disjoint ranges over the addresses of one width, as the bytes each one starts at.

    `ranks[i]` is the rank of the addresses before `starts[i]`; its last one is of those after.
    """

    starts: list[bytes]
    ranks: list[int]

    def rank_of(self, address: bytes) -> int:
        return self.ranks[bisect_right(self.starts, address)]


class NetworkSignal:
    """Establishes `network.kind` from `client.ip`, and from `geo.asn` if a list names AS numbers.

    An address on none of the lists is `other`. Where a list names AS numbers and the address's
    own is not known, an address in none of the ranges has no kind.
    """

    __slots__ = ("_asns", "_v4", "_v6", "needs", "provides", "sources")

    def __init__(
        self, entries: Iterable[tuple[str, _Listed | int]], sources: tuple[str, ...]
    ) -> None:
        """Take kinds and the ranges or AS numbers that are of them; use `open`."""
        ranges: dict[int, list[tuple[int, int, int]]] = {4: [], 16: []}
        self._asns: dict[int, int] = {}
        for kind, entry in entries:
            rank = KINDS.index(kind)
            if isinstance(entry, int):
                self._asns[entry] = min(rank, self._asns.get(entry, _UNLISTED))
            else:
                ranges[entry.width].append((entry.first, entry.last, rank))
        self._v4 = _disjoint(ranges[4], 4)
        self._v6 = _disjoint(ranges[16], 16)
        self.provides = frozenset({"network.kind"})
        self.needs = frozenset({"client.ip", "geo.asn"} if self._asns else {"client.ip"})
        self.sources = sources

    @classmethod
    def open(cls, lists: Mapping[str, Sequence[str | Path]]) -> NetworkSignal:
        """Read lists by the kind they give: `{"vpn": ["vpn.txt"], "hosting": ["clouds.txt"]}`.

        A line of a list is a network (`192.0.2.0/24`), an address, or an AS number (`AS64496`);
        `#` starts a comment.

        Raises:
            DataError: a file cannot be read, lists nothing, or has a line that is none of these.
            SettingError: a kind is not one of `KINDS`.
        """
        entries: list[tuple[str, _Listed | int]] = []
        sources: list[str] = []
        for kind, paths in lists.items():
            _check_kind(kind)
            for path in map(Path, paths):
                listed, written = _read(path)
                entries += ((kind, entry) for entry in listed)
                sources.append(f"{path.name} {time.strftime('%Y-%m-%d', time.gmtime(written))}")
        return cls(entries, tuple(sources))

    def kind_of(self, ip: object, asn: object = None) -> str | None:
        """Return the kind of network `ip` is in, None if that is not known.

        `asn` is the number of its autonomous system. An IPv6 address that carries an IPv4
        address is on every list that either is on.
        """
        address = parse(ip)
        if address is None:
            return None
        if len(address) == 4:
            rank = self._v4.rank_of(address)
        else:
            rank = self._v6.rank_of(address)
            carried = unwrap(address)
            if len(carried) == 4:
                rank = min(rank, self._v4.rank_of(carried))
        if self._asns:
            if type(asn) is int:
                rank = min(rank, self._asns.get(asn, _UNLISTED))
            elif rank == _UNLISTED:
                return None
        return _KINDS_BY_RANK[rank]

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return `network.kind`, if it is known."""
        kind = self.kind_of(known.get("client.ip"), known.get("geo.asn"))
        return {} if kind is None else {"network.kind": kind}


class ClientNetworkSignal:
    """Establishes `client.network` from `client.ip`: an IPv4 address itself, or an IPv6 /64."""

    __slots__ = ()

    provides = frozenset({"client.network"})
    needs = frozenset({"client.ip"})
    sources: tuple[str, ...] = ()

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return `client.network`, if `client.ip` is an address."""
        network = network_of(known.get("client.ip"))
        return {} if network is None else {"client.network": network}


def _disjoint(ranges: list[tuple[int, int, int]], width: int) -> _Ranges:
    """Cut overlapping ranges into disjoint ones, each of the lowest rank that covers it."""
    changes = [(first, rank, 1) for first, _, rank in ranges]
    changes += [(last + 1, rank, -1) for _, last, rank in ranges]
    covering = [0] * len(KINDS)
    result = _Ranges([], [_UNLISTED])
    for point, group in groupby(sorted(changes), key=itemgetter(0)):
        for _, rank, step in group:
            covering[rank] += step
        best = next((rank for rank, count in enumerate(covering) if count), _UNLISTED)
        # Nothing lies beyond the last address, so a range that ends there needs no closing edge.
        if best != result.ranks[-1] and point < 1 << 8 * width:
            result.starts.append(point.to_bytes(width, "big"))
            result.ranks.append(best)
    return result


def _check_kind(kind: str) -> None:
    if kind in KINDS:
        return
    close = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"write one of {', '.join(KINDS)}"
    raise SettingError(f"`{kind}` is not a kind of network that a list can give; {hint}")


def _read(path: Path) -> tuple[list[_Listed | int], float]:
    """Return what a file lists, and when it was last written."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        written = path.stat().st_mtime
    except OSError as error:
        why = (error.strerror or "it cannot be read").lower()
        raise DataError(f"network list `{path}`: {why}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"network list `{path}` is not text; give a file with one network a line"
        ) from error
    entries: list[_Listed | int] = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                entries.append(_entry(text))
            except ValueError as error:
                raise DataError(f"{path}:{number}: {error}") from None
    if not entries:
        # This is what a failed download leaves, and it would make every address `other`.
        raise DataError(f"network list `{path}` lists nothing; fetch it again or leave it out")
    return entries, written


def _entry(text: str) -> _Listed | int:
    """Return the range or AS number that a line names; ValueError says why it names none."""
    asn = _ASN.fullmatch(text)
    if asn:
        if 0 < int(asn[1]) < _MAX_ASN:
            return int(asn[1])
        raise ValueError(f"`{text}` is no AS number; write AS1 to AS{_MAX_ASN - 1}")
    network = _NETWORK.fullmatch(text)
    address = parse(network[1]) if network else None
    if network is None or address is None:
        raise ValueError(f"`{text}` is not a network; write 192.0.2.0/24, 2001:db8::/32 or AS64496")
    length = int(network[2] or 8 * len(address))
    # A mapped network is an IPv4 network: addresses are unwrapped before they are looked for.
    if address.startswith(MAPPED) and length >= 96:
        address, length = unwrap(address), length - 96
    bits = 8 * len(address) - length
    if bits < 0:
        raise ValueError(f"`{text}` has too long a prefix; write at most /{8 * len(address)}")
    first = int.from_bytes(address, "big")
    base = first >> bits << bits
    if first != base:
        start = text_of(base.to_bytes(len(address), "big"))
        raise ValueError(f"`{text}` has bits set beyond its prefix; write `{start}/{length}`")
    return _Listed(len(address), first, first + (1 << bits) - 1)
