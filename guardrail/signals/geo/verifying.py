"""Whether every byte that a reader may follow in a database file leads to where it should.

The C reader trusts what it reads: a pointer or a length out of bounds can end the process. So a
file is walked whole, in Python and in bounds, before it is handed to that reader: its metadata,
every record of its search tree, and every value that one of them, or a pointer, leads to.
Layout: https://maxmind.github.io/MaxMind-DB/
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import iter_unpack, unpack_from

_MARKER = b"\xab\xcd\xefMaxMind.com"
_MOST_METADATA = 1 << 17
_SEPARATOR = 16
_DEEPEST = 64
"""Maps and arrays inside one another; the C reader recurses into them."""

_MOST_VALUES = 1 << 16
"""Values of one record, each counted as often as pointers lead to it."""

_MAJOR_VERSION = 2
_EXTENDED, _POINTER, _STRING, _DOUBLE, _BYTES, _UINT16, _UINT32, _MAP = 0, 1, 2, 3, 4, 5, 6, 7
_INT32, _UINT64, _UINT128, _ARRAY, _CONTAINER, _END_MARKER, _BOOL, _FLOAT = range(8, 16)
_LONGEST = {_UINT16: 2, _UINT32: 4, _INT32: 4, _UINT64: 8, _UINT128: 16}
_EXACT = {_DOUBLE: 8, _FLOAT: 4}
_SIZE_BYTES = (29, 285, 65821)
_POINTER_BASE = (0, 2048, 526336, 0)
_NODE_BYTES = {24: 6, 28: 7, 32: 8}


class BrokenError(ValueError):
    """A database's bytes do not hold together; the message says where."""


def verify(data: bytes) -> None:
    """Walk all of a database.

    Raises:
        BrokenError: something in it leads out of its bounds, or is of no known form.
    """
    start = data.rfind(_MARKER, max(0, len(data) - _MOST_METADATA))
    if start < 0:
        raise BrokenError("it has no metadata")
    metadata = _Section(data[start + len(_MARKER) :]).plain()
    count, bits, width = _shape(metadata)
    tree = count * width
    # The data section reaches to the metadata's marker.
    first = tree + _SEPARATOR
    if first > start or any(data[tree:first]):
        raise BrokenError("its search tree is cut short")
    section = _Section(data[first:start])
    for offset in _leaves(data[:tree], count, bits):
        section.check(offset)


def _shape(metadata: object) -> tuple[int, int, int]:
    """Return the number of nodes, the bits of a record, and the bytes of a node."""
    if not isinstance(metadata, Mapping):
        raise BrokenError("its metadata is no map")
    count, bits = metadata.get("node_count"), metadata.get("record_size")
    if metadata.get("binary_format_major_version") != _MAJOR_VERSION:
        raise BrokenError("it is of another version of the format")
    if metadata.get("ip_version") not in (4, 6) or bits not in _NODE_BYTES:
        raise BrokenError("its metadata has an impossible size")
    if type(count) is not int or type(bits) is not int or count < 1:
        raise BrokenError("its metadata has an impossible size")
    if type(metadata.get("build_epoch")) is not int:
        raise BrokenError("its metadata does not say when it was built")
    if not isinstance(metadata.get("database_type"), str):
        raise BrokenError("its metadata does not say what it holds")
    return count, bits, _NODE_BYTES[bits]


def _leaves(tree: bytes, count: int, bits: int) -> list[int]:
    """Return where in the data section the records of the tree point, each place once, in order."""
    if bits == 24:
        values = {left << 16 | low for left, low in iter_unpack(">BH", tree)}
    elif bits == 32:
        values = {value for (value,) in iter_unpack(">I", tree)}
    else:
        values = set()
        for left, low, middle, high, right in iter_unpack(">BHBBH", tree):
            values.add((middle >> 4) << 24 | left << 16 | low)
            values.add((middle & 15) << 24 | high << 16 | right)
    # Below the count stands another node, at it nothing: a look-up ends after 128 bits, cycle or
    # not. The sixteen values after it would point into the separator.
    found = sorted(value - count - _SEPARATOR for value in values if value > count)
    if found and found[0] < 0:
        raise BrokenError("its search tree points between tree and data")
    return found


class _Section:
    """A data section: values, and pointers from one to another."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # How deep each map and list goes that was walked, and how many values it is.
        self._known: dict[int, tuple[int, int]] = {}

    def check(self, offset: int) -> None:
        """Walk the value at an offset, and all that it leads to.

        Raises:
            BrokenError: something there leads out of bounds, or too deep.
        """
        if offset not in self._known:
            self._walk(offset, _DEEPEST)

    def plain(self) -> object:
        """Return the value at the start, walked before it is read; for the metadata.

        Raises:
            BrokenError: as `check`.
        """
        self.check(0)
        return self._read(0)[0]

    def _walk(self, offset: int, left: int) -> tuple[int, int, int]:
        """Return where the value at an offset ends, how deep it goes, and how many values it is."""
        kind, size, at = self._header(offset)
        depth, count = 0, 1
        if left <= 0:
            raise BrokenError(f"its data are too deep at {offset}")
        if kind == _POINTER:
            depth, count = self._pointed(size, left)
        elif kind in (_MAP, _ARRAY):
            for _ in range(size):
                if kind == _MAP:
                    at = self._key(at)
                at, inner, more = self._walk(at, left - 1)
                depth, count = max(depth, inner + 1), count + more
            self._known[offset] = depth, count
        else:
            at = self._scalar(kind, size, at, offset)
        if count > _MOST_VALUES:
            raise BrokenError(f"its data are too many at {offset}")
        return at, depth, count

    def _pointed(self, target: int, left: int) -> tuple[int, int]:
        """Return depth and count of what a pointer leads to: no other pointer, by the layout."""
        known = self._known.get(target)
        if known is None:
            if self._header(target)[0] == _POINTER:
                raise BrokenError(f"its data have a pointer to a pointer at {target}")
            known = self._walk(target, left - 1)[1:]
        depth, count = known
        if depth >= left - 1:
            raise BrokenError(f"its data are too deep at {target}")
        return depth + 1, count

    def _key(self, offset: int) -> int:
        """Return where a map's key ends; it is text, or a pointer to text."""
        kind, size, at = self._header(offset)
        if kind == _POINTER:
            kind, size, text = self._header(size)
            self._scalar(kind, size, text, offset)
        else:
            at = self._scalar(kind, size, at, offset)
        if kind != _STRING:
            raise BrokenError(f"its data have a key that is no text at {offset}")
        return at

    def _scalar(self, kind: int, size: int, at: int, offset: int) -> int:
        """Return where a value without others inside it ends."""
        if kind == _BOOL:
            if size > 1:
                raise BrokenError(f"its data have an impossible value at {offset}")
            return at
        end = at + size
        fits = kind in (_STRING, _BYTES) or size == _EXACT.get(kind)
        if kind in _LONGEST:
            fits = size <= _LONGEST[kind]
        if not fits or end > len(self._data):
            raise BrokenError(f"its data have an impossible value at {offset}")
        if kind == _STRING:
            try:
                self._data[at:end].decode("utf-8")
            except UnicodeDecodeError:
                raise BrokenError(f"its data have a text that is not UTF-8 at {offset}") from None
        return end

    def _header(self, offset: int) -> tuple[int, int, int]:
        """Return the kind and the size at an offset, and where its content starts.

        For a pointer the size is where it leads.
        """
        data = self._data
        try:
            control = data[offset]
            at = offset + 1
            kind = control >> 5
            if kind == _POINTER:
                length = (control >> 3) & 3
                value = int.from_bytes(data[at : at + length + 1], "big")
                if length < 3:
                    value |= (control & 7) << 8 * (length + 1)
                at += length + 1
                target = value + _POINTER_BASE[length]
                if at > len(data) or target >= len(data):
                    raise BrokenError(f"its data point out of bounds at {offset}")
                return kind, target, at
            if kind == _EXTENDED:
                kind = data[at] + 7
                at += 1
                if kind < _INT32:
                    raise BrokenError(f"its data have an unknown kind at {offset}")
            size = control & 31
            if size >= 29:
                length = size - 28
                size = int.from_bytes(data[at : at + length], "big") + _SIZE_BYTES[length - 1]
                at += length
        except IndexError:
            raise BrokenError(f"its data end within a value at {offset}") from None
        if at > len(data) or (kind in (_MAP, _ARRAY) and size > len(data) - at):
            raise BrokenError(f"its data end within a value at {offset}")
        return kind, size, at

    def _read(self, offset: int) -> tuple[object, int]:
        """Return the value at an offset that was walked, and where it ends."""
        kind, size, at = self._header(offset)
        if kind == _POINTER:
            return self._read(size)[0], at
        if kind == _MAP:
            found: dict[object, object] = {}
            for _ in range(size):
                name, at = self._read(at)
                found[name], at = self._read(at)
            return found, at
        if kind == _ARRAY:
            parts: list[object] = []
            for _ in range(size):
                part, at = self._read(at)
                parts.append(part)
            return parts, at
        if kind == _BOOL:
            return bool(size), at
        end = at + size
        if kind == _STRING:
            return self._data[at:end].decode("utf-8"), end
        if kind == _DOUBLE:
            return unpack_from(">d", self._data, at)[0], end
        if kind in _LONGEST:
            return int.from_bytes(self._data[at:end], "big"), end
        return self._data[at:end], end
