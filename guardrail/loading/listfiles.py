"""Reads the lists a policy file declares, those kept in files of their own too."""

from __future__ import annotations

import posixpath

from guardrail.loading.files import PolicyFile
from guardrail.loading.findings import Place, Scope
from guardrail.loading.lists import parse_lines
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of
from guardrail.loading.shaping import report_unknown_key
from guardrail.loading.text import quoted

_LARGEST = 16 << 20


def list_texts(
    entry: Entry, source: PolicyFile, scope: Scope, contents: list[tuple[str, bytes]]
) -> tuple[tuple[Node, ...], bool] | None:
    """Return a list's entries, and whether they are the lines of a file.

    A file that was read is added to `contents` by its path within the set. What is wrong is
    reported, and None returned.
    """
    node = entry.value
    if isinstance(node, ListNode):
        return _inline(entry, node, scope)
    if isinstance(node, MapNode) and node.entries:
        return _from_file(node, source, scope, contents)
    help = "write `[A, B]`, or `{file: PATH}`"
    message = f"list {quoted(entry.key.text)} must be a list, not {kind_of(node)}"
    scope.findings.report("GR102", node.span, message, help=help)
    return None


def _inline(entry: Entry, node: ListNode, scope: Scope) -> tuple[tuple[Node, ...], bool] | None:
    if not node.parts:
        message = f"list {quoted(entry.key.text)} is empty"
        scope.findings.report("GR108", node.span, message, help="nothing would ever be in it")
        return None
    for part in node.parts:
        if not isinstance(part, Scalar):
            message = f"a list holds single values, not {kind_of(part)}"
            scope.findings.report("GR102", part.span, message)
            return None
    return node.parts, False


def _from_file(
    node: MapNode, source: PolicyFile, scope: Scope, contents: list[tuple[str, bytes]]
) -> tuple[tuple[Node, ...], bool] | None:
    place = Place(node, scope.findings)
    unknown = [e.key.text for e in node.entries if e.key.text != "file"]
    for name in unknown:
        report_unknown_key(place, (name,), ("file",))
    written = place.at("file")
    if written is node:
        return None
    if not isinstance(written, Scalar) or not isinstance(written.value, str):
        place.report("GR102", ("file",), f"`file` must be a path, not {kind_of(written)}")
        return None
    try:
        content = _read(source, written.value)
    except (OSError, ValueError) as error:
        _unreadable(place, source, written.value, error)
        return None
    name = posixpath.normpath(posixpath.join(posixpath.dirname(source.relative), written.value))
    if (name, content) not in contents:
        contents.append((name, content))
    return _lines(place, source, written.value, content, scope)


def _read(source: PolicyFile, written: str) -> bytes:
    path = source.path.parent / written
    if not path.is_file():
        raise FileNotFoundError("it does not exist" if not path.exists() else "it is not a file")
    if path.stat().st_size > _LARGEST:
        raise OSError("it is larger than 16 MiB")
    return path.read_bytes()


def _unreadable(place: Place, source: PolicyFile, written: str, error: Exception) -> None:
    reason = str(error) if error.args and len(error.args) == 1 else None
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror.lower()
    help = f"it is looked for beside {quoted(source.name)}"
    message = f"cannot read the list file {quoted(written)}"
    place.report("GR102", ("file",), message, label=reason, help=help)


def _lines(
    place: Place, source: PolicyFile, written: str, content: bytes, scope: Scope
) -> tuple[tuple[Node, ...], bool] | None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        message = f"the list file {quoted(written)} is not UTF-8 text"
        place.report("GR102", ("file",), message, help="save it as UTF-8")
        return None
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source.name), written))
    scope.findings.add_source(file, text)
    entries = parse_lines(file, text)
    if not entries:
        message = f"the list file {quoted(written)} holds no value"
        place.report("GR108", ("file",), message, help="write one value a line")
        return None
    return entries, True
