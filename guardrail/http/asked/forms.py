"""Forms, as far as a request is told by them: their fields, and files that are batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl

from guardrail.http.asked.values import UnreadableError, shown

MAX_PARTS = 1_000
"""How many parts of a form are read."""

_LONGEST_FIELD = 1 << 20
_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,200})"|([^\s;",]{1,200}))', re.IGNORECASE)
_NAME = re.compile(rb';\s*name="([^"\\]*)"', re.IGNORECASE)
_FILENAME = re.compile(rb";\s*filename\*?=", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,16}")
_FLAGS = {"true": True, "false": False}


class Form(NamedTuple):
    """A form's fields, decoded as JSON would have them, and its files by field name."""

    fields: dict[str, object]
    files: dict[str, bytes]


def read_form(body: bytes, content_type: bytes) -> Form:
    """Read a multipart or URL-encoded form.

    Raises:
        UnreadableError: it is none, too long, or a field that decides is there twice.
    """
    if content_type.strip().lower().startswith(b"multipart/"):
        return _multipart(body, content_type)
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    form = Form({}, {})
    for name, value in pairs[: MAX_PARTS + 1]:
        _add(form, name, value)
    return form


def _multipart(body: bytes, content_type: bytes) -> Form:
    found = _BOUNDARY.findall(content_type)
    if len(found) != 1:
        raise UnreadableError("the form's boundary is missing or doubled; send it once")
    form = Form({}, {})
    for head, content in _parts(body, b"--" + (found[0][0] or found[0][1])):
        fields = _disposition(head)
        names = _NAME.findall(fields)
        if len(names) != 1 or b"name*" in fields.replace(b"filename*", b"").lower():
            raise UnreadableError("a part of the form has no name, or several; give it one")
        name = names[0].decode("utf-8", "replace")
        if _FILENAME.search(fields):
            form.files[name] = form.files.get(name, b"") + content
        else:
            if len(content) > _LONGEST_FIELD:
                raise UnreadableError(f"the field `{shown(name)}` is too long", status=413)
            _add(form, name, content.decode("utf-8", "replace"))
    return form


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    pieces = (b"\r\n" + body).split(b"\r\n" + delimiter, MAX_PARTS + 1)
    if len(pieces) < 2 or len(pieces) > MAX_PARTS + 1 or not pieces[-1].startswith(b"--"):
        raise UnreadableError("the form has no end, or more parts than are read; send it whole")
    for piece in pieces[1:-1]:
        _, _, part = piece.partition(b"\r\n")
        head, gap, content = (b"\r\n" + part).partition(b"\r\n\r\n")
        if not gap:
            raise UnreadableError("a part of the form has no header; send its name")
        yield head, content


def _disposition(head: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disposit")]
    if len(lines) != 1:
        raise UnreadableError("a part of the form has no name, or several; give it one")
    return lines[0]


def _add(form: Form, name: str, text: str) -> None:
    if not name.endswith("[]") and name in form.fields:
        raise UnreadableError(
            f"the form has `{shown(name)}` twice; send each field once", param=shown(name)
        )
    value: object = _FLAGS.get(text.strip().lower(), text)
    if _WHOLE.fullmatch(text):
        value = int(text)
    form.fields[name] = value
