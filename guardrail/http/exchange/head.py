"""The head of a request, as ASGI and WSGI both can state it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Field = tuple[bytes, bytes]


class Head(NamedTuple):
    """What is known of a request before its body; header names are in lower case.

    `path` is decoded and without the prefix the host is mounted under, as routers see it;
    `whole_path` is with it, `raw_path` as it was sent, where the server tells. `peer` is the
    address at the other end of the connection, None on a Unix socket. `connection` is the scope or
    the environ it was taken from.
    """

    method: str
    path: str
    whole_path: str
    raw_path: bytes | None
    query: bytes
    headers: tuple[Field, ...]
    peer: str | None
    http_version: str = "1.1"
    subprotocols: tuple[str, ...] = ()
    connection: Mapping[str, Any] = MappingProxyType({})

    @property
    def announces_body(self) -> bool:
        """Whether a body may follow: HTTP/1.x frames every body it has (RFC 9112 §6.3)."""
        if not self.http_version.startswith("1"):
            return True
        for name, value in self.headers:
            if name == b"transfer-encoding":
                return True
            if name == b"content-length" and value.strip(b" \t0") != b"":
                return True
        return False

    @property
    def sends_body(self) -> bool:
        """Whether a body is on its way, asked for or not (RFC 9110 §10.1.1)."""
        waits = any(n == b"expect" and v.lower() == b"100-continue" for n, v in self.headers)
        return self.announces_body and not waits

    @property
    def stated_length(self) -> int | None:
        """The length that the request states for its body, None if it states none."""
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit() and len(value) < 20:
                return int(value)
        return None

    def is_one_of(self, paths: Collection[str]) -> bool:
        """Tell whether the path, as routes see it, is exactly one of `paths`, nothing escaped."""
        if self.path not in paths:
            return False
        raw = self.raw_path
        return raw is None or raw.partition(b"?")[0] == self.whole_path.encode("utf-8", "replace")


def head_of_scope(scope: Mapping[str, Any]) -> Head:
    """Return the head of an ASGI connection, `http` or `websocket`."""
    whole = scope["path"]
    prefix = scope.get("root_path", "").rstrip("/")
    inside = prefix and (whole == prefix or whole.startswith(f"{prefix}/"))
    client = scope.get("client")
    return Head(
        method=scope.get("method", "GET"),
        path=whole[len(prefix) :] or "/" if inside else whole,
        whole_path=whole,
        raw_path=scope.get("raw_path"),
        query=scope.get("query_string", b""),
        headers=tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"]),
        peer=client[0] if client else None,
        http_version=scope.get("http_version", "1.1"),
        subprotocols=tuple(scope.get("subprotocols", ())),
        connection=scope,
    )


def head_of_environ(environ: Mapping[str, Any]) -> Head:
    """Return the head of a WSGI request; its native strings carry bytes (PEP 3333)."""
    path = _decoded(environ.get("PATH_INFO", ""))
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    version = str(environ.get("SERVER_PROTOCOL", "HTTP/1.1")).rpartition("/")[2]
    return Head(
        method=environ["REQUEST_METHOD"],
        path=path or "/",
        whole_path=_decoded(environ.get("SCRIPT_NAME", "")) + path,
        raw_path=raw.encode("latin-1", "replace") if isinstance(raw, str) else None,
        query=environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        headers=tuple(_fields(environ)),
        peer=environ.get("REMOTE_ADDR") or None,
        http_version=version,
        connection=environ,
    )


def _fields(environ: Mapping[str, Any]) -> Iterator[Field]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            name = name[5:]
        elif name not in ("CONTENT_TYPE", "CONTENT_LENGTH") or not value:
            continue
        yield name.replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace")


def _decoded(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
