"""Reads a form as Starlette, Werkzeug and Django do: its fields and the names of its files."""

from __future__ import annotations

import asyncio
import io
import warnings

import django.conf
from django.core.handlers.wsgi import WSGIRequest
from starlette.datastructures import UploadFile
from starlette.requests import Request
from werkzeug.wrappers import Request as WerkzeugRequest

Read = tuple[dict[str, list[str]], set[str]]


def starlette(body: bytes, content_type: bytes) -> Read:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def read():
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        async with request.form() as form:
            return [
                (name, None if isinstance(value, UploadFile) else value)
                for name, value in form.multi_items()
            ]

    fields: dict[str, list[str]] = {}
    files = set()
    for name, value in asyncio.run(read()):
        if value is None:
            files.add(name)
        else:
            fields.setdefault(name, []).append(value)
    return fields, files


class _WerkzeugRequest(WerkzeugRequest):
    def _get_file_stream(self, *_, **__):
        return io.BytesIO()


def werkzeug(body: bytes, content_type: bytes) -> Read:
    request = _WerkzeugRequest(_environ(body, content_type))
    return dict(request.form.lists()), set(request.files)


def django_wsgi(body: bytes, content_type: bytes) -> Read:
    if not django.conf.settings.configured:
        django.conf.settings.configure(DEFAULT_CHARSET="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        request = WSGIRequest(_environ(body, content_type))
        return dict(request.POST.lists()), set(request.FILES)


READERS = (starlette, werkzeug, django_wsgi)


def read_everywhere(body: bytes, content_type: bytes) -> list[Read]:
    """Return what those frameworks read that take the form at all."""
    found = []
    for reader in READERS:
        try:
            found.append(reader(body, content_type))
        except Exception:
            continue  # refused: such a host serves nothing
    return found


def _environ(body: bytes, content_type: bytes) -> dict[str, object]:
    return {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": content_type.decode("latin-1"),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "test",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
    }
