"""Requests as tests ask them."""

from __future__ import annotations

import json

from guardrail.http.parsing import ParsedRequest, read_request

KEY = b"a key for tests"
JSON = ((b"Content-Type", b"application/json"),)


def asked(
    path: str, body: object, *, method: str = "POST", headers=JSON, **options
) -> ParsedRequest:
    """Read a request whose body is a document, bytes, or None."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    query = options.pop("query", b"")
    return read_request(method, path, query, headers, content, hash_key=KEY, **options)


def problem_of(request: ParsedRequest) -> str:
    """Return why a body could not be read; a body that could be is an error here."""
    assert request.problem is not None
    return request.problem


def body_of(text: bytes | None) -> bytes:
    """Return a body that was changed; None is an error here."""
    assert text is not None
    return text


def form(
    *parts: tuple[str, str | bytes], boundary: str = "xyz"
) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    """Return the headers and the body of a form; bytes are a file."""
    lines = []
    for name, value in parts:
        lines.append(f"--{boundary}".encode())
        named = f'Content-Disposition: form-data; name="{name}"'.encode()
        if isinstance(value, bytes):
            lines += [named + b'; filename="f"', b"Content-Type: application/octet-stream"]
        else:
            lines.append(named)
        lines += [b"", value if isinstance(value, bytes) else value.encode()]
    lines += [f"--{boundary}--".encode(), b""]
    headers = ((b"content-type", f"multipart/form-data; boundary={boundary}".encode()),)
    return headers, b"\r\n".join(lines)
