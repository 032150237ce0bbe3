"""Requests as tests ask them."""

from __future__ import annotations

import json

from guardrail.http.asked import Asked, read_request

KEY = b"a key for tests"
JSON = ((b"Content-Type", b"application/json"),)


def asked(path: str, body: object, *, method: str = "POST", headers=JSON, **options) -> Asked:
    """Read a request whose body is a document, bytes, or None."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    query = options.pop("query", b"")
    return read_request(method, path, query, headers, content, hash_key=KEY, **options)


def form(*parts: tuple[str, str | bytes], boundary: str = "xyz") -> tuple[object, bytes]:
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
