"""The hostile requests of a regression suite for firewalls, as bytes, with a credential of ours."""

from __future__ import annotations

import base64
import re
import tarfile

import yaml

NAMES = "abcdefgh"
PATH = "/v1/chat/completions"


def stages(test_data):
    """Yield the input of every stage of every test."""
    archive = test_data / "conformance" / "crs-regression.tar.xz"
    with tarfile.open(archive) as files:
        for member in files:
            if member.name.endswith(".yaml"):
                opened = files.extractfile(member)
                assert opened is not None
                text = opened.read()
                for test in (yaml.load(text, yaml.CSafeLoader) or {}).get("tests", ()):
                    yield from (stage["input"] for stage in test["stages"])


def account_of(number):
    """Return the account that a numbered request comes from: every ninth is of a stranger."""
    return NAMES[number % 9] if number % 9 < len(NAMES) else None


def credential(number):
    """Return the header that says so, and one in which the stranger claims to be somebody."""
    account = account_of(number)
    if account is None:
        return b"X-Account-Id: acct-a\r\nAuthorization: Bearer stranger\r\n"
    return f"Authorization: Bearer key-{account}\r\n".encode()


def request_of(stage, number, path=None):
    """Return a stage's request as its author means it to be sent; `path` stands in for its own."""
    if "encoded_request" in stage:
        raw = base64.b64decode(stage["encoded_request"])
        first, gap, rest = raw.partition(b"\r\n")
        return first + gap + credential(number) + rest
    headers = dict(stage.get("headers") or {})
    body = stage.get("data") or ""
    if body and not any(str(name).lower() == "content-length" for name in headers):
        headers["Content-Length"] = len(body.encode("utf-8", "surrogateescape"))
    uri = stage.get("uri", "/")
    if path is not None:
        uri = path + re.sub(r"^[^?]*", "", uri)
    method, version = stage.get("method", "GET"), stage.get("version", "HTTP/1.1")
    lines = [f"{method} {uri} {version}", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n"
    return head + credential(number) + b"\r\n" + body.encode("utf-8", "surrogateescape")
