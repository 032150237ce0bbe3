"""The elements of headers in which proxies name addresses: X-Forwarded-For, and RFC 7239's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from guardrail.signals.addresses import MAPPED, parse

_BLANK = b" \t"
_PORT = re.compile(r"[0-9]{1,5}")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Values are looser than RFC 7239's tokens: real proxies leave quotes out around IPv6 addresses.
_PAIR = re.compile(rf'[ \t]*({_TOKEN})=("(?:[^"\\]|\\.)*"|[^\s",;]+)[ \t]*(;|$)')
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
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in inner or (rest and not _is_port(rest)):
            return None
        text = inner
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _PORT.fullmatch(port):
            return None
    if ":" in text:
        text = text.partition("%")[0]
    address = parse(text)
    return address[12:] if address is not None and address.startswith(MAPPED) else address


def _is_port(rest: str) -> bool:
    return rest.startswith(":") and _PORT.fullmatch(rest[1:]) is not None
