"""Forms, multipart or URL-encoded, read in the one way that all frameworks share.

Frameworks read odd forms differently: what one takes for a file is a field to another. So a form
is read in the strictest way, which is how the clients of all APIs write it, and anything else is
refused. The heads of parts are read by `python-multipart`, which Starlette reads them with, and
have to be of the plain form besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from guardrail.http.parsing.values import UnreadableError, shown

MAX_PARTS = 1_000
"""How many parts of a form are read."""

_LONGEST_FIELD = 1 << 20
_LONGEST_FIELDS = 4 << 20
# To decode what is percent-encoded takes eighty times its size.
_LONGEST_ENCODED = 1 << 18
_LONGEST_HEADS = 1 << 16
_LONGEST_BOUNDARY = 70
_SHORT = 64

_TOKEN = rb"[!#$&'+.0-9A-Z^_`a-z|~-]+"
_SEVERAL = re.compile(
    rb"multipart/form-data *; *boundary=(?:\"([!#-\[\]-~]+)\"|(%b))(?: *; *charset=utf-8)?" % _TOKEN
)
_ENCODED = re.compile(rb"application/x-www-form-urlencoded(?: *; *charset=utf-8)?", re.IGNORECASE)
_DISPOSITION = re.compile(
    rb"form-data; *name=(?:\"([!#$&-\[\]-~]+)\"|(?:%b))"
    rb"(?:; *filename=(?:\"[^\"\\\x00-\x1f\x7f]+\"|(?:%b))"
    rb"(?:; *filename\*=(?i:utf-8)'[A-Za-z-]*'(?:%b|%%[0-9A-Fa-f]{2})*)?)?"
    % (_TOKEN, _TOKEN, _TOKEN)
)
_TYPE = re.compile(
    rb"(?!multipart/)%b/%b(?:; *%b=(?:%b|\"[^\"\\\x00-\x1f\x7f]*\"))*" % ((_TOKEN,) * 4)
)
_TEXT_TYPE = re.compile(
    rb"(?!multipart/)%b/%b(?:; *charset=\"?(?i:utf-8|us-ascii)\"?)?" % ((_TOKEN,) * 2)
)
_LINE = rb"[A-Za-z0-9-]+:[ ]?[\x20-\x7e\x80-\xff]*+"
_HEAD = re.compile(rb"%b(?:\r\n%b)*" % (_LINE, _LINE))
_AS_IS = frozenset({b"binary", b"8bit", b"7bit"})
_NAME = re.compile(r"[!#$&-\[\]-~]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_WHOLE = re.compile(r"[0-9]{1,16}")
_FLAGS = {"true": True, "false": False}


class Form(NamedTuple):
    """A form's fields, decoded as JSON would have them, and its files by field name.

    A name that ends in `[]` may stand several times: its values are a list. Files of one name are
    joined by line feeds.
    """

    fields: dict[str, object]
    files: dict[str, bytes | memoryview]


class _Part(NamedTuple):
    """A part of a form: its head, and where its content begins and ends in the body."""

    head: bytes
    begin: int
    end: int


def read_form(body: bytes, content_type: bytes) -> Form:
    """Read a multipart or URL-encoded form.

    Raises:
        UnreadableError: it is none, too long, or can be read in two ways.
    """
    if content_type.strip().lower().startswith(b"multipart/"):
        return _multipart(body, content_type.strip())
    return _urlencoded(body, content_type.strip())


def _urlencoded(body: bytes, content_type: bytes) -> Form:
    if _ENCODED.fullmatch(content_type) is None:
        raise _odd("its content type is not `application/x-www-form-urlencoded` in UTF-8")
    if len(body) > _LONGEST_ENCODED:
        raise UnreadableError(
            f"the form is longer than {_LONGEST_ENCODED} bytes; send less at once", status=413
        )
    if body.count(b"&") >= MAX_PARTS:
        raise UnreadableError(f"the form has more than {MAX_PARTS} fields; send fewer")
    if b";" in body or not body.isascii() or _BAD_ESCAPE.search(body):
        raise _odd("what is not a letter or a digit has to be percent-encoded")
    form = Form({}, {})
    for pair in body.split(b"&") if body else ():
        name, _, value = pair.partition(b"=")
        _add(form, _decoded(name), _decoded(value))
    return form


def _decoded(text: bytes) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise _odd("a field is not UTF-8") from None


def _multipart(body: bytes, content_type: bytes) -> Form:
    found = _SEVERAL.fullmatch(content_type)
    if found is None:
        raise _odd("its content type is not `multipart/form-data; boundary=…` and no more")
    boundary = found[1] or found[2]
    if len(boundary) > _LONGEST_BOUNDARY:
        raise _odd("its boundary is too long")
    delimiter = b"--" + boundary
    parts = list(_parts(body, delimiter))
    form = Form({}, {})
    files: dict[str, list[memoryview]] = {}
    left = _LONGEST_FIELDS
    for part, fields in zip(parts, _heads(body, parts, delimiter), strict=True):
        name, is_file = _checked(part, fields)
        size = part.end - part.begin
        if is_file:
            files.setdefault(name, []).append(memoryview(body)[part.begin : part.end])
            continue
        left -= size
        if size > _LONGEST_FIELD or left < 0:
            raise UnreadableError(f"the field `{shown(name)}` is too long", status=413)
        try:
            text = body[part.begin : part.end].decode("utf-8")
        except UnicodeDecodeError:
            raise _odd(f"the field `{shown(name)}` is not UTF-8") from None
        _add(form, name, text)
    for name, contents in files.items():
        if name in form.fields:
            raise _doubled(name)
        form.files[name] = contents[0] if len(contents) == 1 else b"\n".join(contents)
    return form


def _parts(body: bytes, delimiter: bytes) -> Iterator[_Part]:
    """Yield the parts of a form that has nothing before its first part and after its last."""
    between = b"\r\n" + delimiter
    count = body.count(between)
    if count > MAX_PARTS:
        raise UnreadableError(f"the form has more than {MAX_PARTS} parts; send fewer")
    if not body.startswith(delimiter) or not body.endswith((b"--", b"--\r\n")):
        raise _odd("it does not begin and end with its boundary")
    if body.count(delimiter) != count + 1:
        raise _odd("its boundary stands within a part")
    at = len(delimiter)
    for _ in range(count):
        end = body.index(between, at)
        begin = body.find(b"\r\n\r\n", at, min(end, at + _LONGEST_HEADS)) + 4
        if not body.startswith(b"\r\n", at) or begin < 4:
            raise _odd("a part has no head, or a very long one")
        head = body[at + 2 : begin - 4]
        if _HEAD.fullmatch(head) is None:
            raise _odd("the head of a part is not well-formed")
        yield _Part(head, begin, end)
        at = end + len(between)
    if body[at:] not in (b"--", b"--\r\n"):
        raise _odd("something follows its last part")


def _heads(body: bytes, parts: list[_Part], delimiter: bytes) -> list[dict[bytes, bytes]]:
    """Return the header fields of each part, as the library reads them.

    Contents are left out that are longer than a line: they hold no boundary, as was seen.
    """
    if sum(len(part.head) for part in parts) > _LONGEST_HEADS:
        raise UnreadableError(f"the heads of the form's parts exceed {_LONGEST_HEADS} bytes")
    collector = _Collector()
    try:
        parser = MultipartParser(delimiter[2:], collector.callbacks)  # type: ignore[arg-type]
        for part in parts:
            content = body[part.begin : part.end] if part.end - part.begin <= _SHORT else b""
            parser.write(b"%b\r\n%b\r\n\r\n%b\r\n" % (delimiter, part.head, content))
        parser.write(delimiter + b"--\r\n")
        parser.finalize()
    except FormParserError:
        raise _odd("the head of a part is not well-formed") from None
    if len(collector.heads) != len(parts):
        raise _odd("its parts cannot be told apart")
    return collector.heads


class _Collector:
    """Takes the header fields of parts from the library's parser."""

    def __init__(self) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self._name = self._value = b""
        self.callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": lambda: self.heads.append({}),
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_end,
        }

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_end(self) -> None:
        name = self._name.lower()
        if name in self.heads[-1]:
            raise _odd("the head of a part says something twice")
        self.heads[-1][name] = self._value
        self._name = self._value = b""


def _checked(part: _Part, fields: dict[bytes, bytes]) -> tuple[str, bool]:
    """Return a part's name, and whether it is a file, if every framework reads it so."""
    rest = dict(fields)
    disposition = rest.pop(b"content-disposition", b"")
    if _DISPOSITION.fullmatch(disposition) is None:
        raise _odd("a part is not `form-data` with a plain name, and a file name if it is a file")
    _, options = parse_options_header(disposition)
    is_file = b"filename" in options
    kind = rest.pop(b"content-type", None)
    if kind is not None and (_TYPE if is_file else _TEXT_TYPE).fullmatch(kind) is None:
        raise _odd("a part is of a type or character set that frameworks read differently")
    if rest.pop(b"content-transfer-encoding", b"binary").lower() not in _AS_IS:
        raise _odd("a part is encoded for transfer; send it as it is")
    if rest.pop(b"content-length", b"%d" % (part.end - part.begin)) != b"%d" % (
        part.end - part.begin
    ):
        raise _odd("a part states another length than it has")
    if rest:
        raise _odd(f"the head of a part has `{shown(min(rest).decode('latin-1'))}`; leave it out")
    return options[b"name"].decode("ascii"), is_file


def _add(form: Form, name: str, text: str) -> None:
    if _NAME.fullmatch(name) is None or name == "_charset_":
        raise _odd(f"`{shown(name)}` is no name of a field")
    value: object = _FLAGS.get(text.strip().lower(), text)
    if _WHOLE.fullmatch(text):
        value = int(text)
    if name.endswith("[]"):
        listed = form.fields.setdefault(name, [])
        if isinstance(listed, list):
            listed.append(value)
        return
    if name in form.fields:
        raise _doubled(name)
    form.fields[name] = value


def _odd(why: str) -> UnreadableError:
    return UnreadableError(f"the form can be read in two ways: {why}; send a plain one")


def _doubled(name: str) -> UnreadableError:
    return UnreadableError(
        f"the form has `{shown(name)}` twice; send each field once", param=shown(name)
    )
