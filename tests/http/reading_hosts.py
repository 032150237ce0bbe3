"""Hosts as they are commonly written: they read a request by a framework, and serve what it says.

`Starlette`, `Flask` and `Django` are the real ones, in this process. Each tells every reading that
a view in it may have of a body: as JSON whatever its label, as JSON in the character set that the
label states (as Django REST framework's parser does), with the first of a doubled key, as a form.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import django.conf
import flask
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import parse_header_parameters
from django.urls import re_path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from guardrail.model.cells import TOP


class Sent(NamedTuple):
    """A request, and which API the host behind its path speaks."""

    api: str
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def content_type(self) -> bytes:
        """The last one stated."""
        return dict(self.headers).get(b"content-type", b"")


class Reading(NamedTuple):
    """What a view has in its hands: members, and the contents of files."""

    members: Any
    files: dict[str, bytes]


_READ: list[Reading] = []
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def _keep(members: Any, files: dict[str, bytes] | None = None) -> None:
    _READ.append(Reading(members, files or {}))


async def _starlette_view(request: Request) -> Response:
    with suppress(ValueError, RecursionError):
        _keep(await request.json())
    if b"form" in request.headers.get("content-type", "").encode():
        async with request.form() as form:
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            files = {
                name: await value.read()
                for name, value in form.multi_items()
                if not isinstance(value, str)
            }
            _keep(fields, files)
    return Response()


_FLASK = flask.Flask("hosts")


@_FLASK.route("/<path:path>", methods=_METHODS, provide_automatic_options=False)
def _flask_view(path: str) -> str:
    with suppress(Exception):
        _keep(flask.request.get_json(force=True))
    fields = dict(flask.request.form.items())
    if fields or flask.request.files:
        _keep(fields, {name: file.read() for name, file in flask.request.files.items()})
    return ""


def _django_view(request: HttpRequest) -> HttpResponse:
    body = request.body
    for charset in ("utf-8", _charset_of(request)):
        with suppress(ValueError, LookupError, RecursionError):
            _keep(json.load(codecs.getreader(charset)(io.BytesIO(body))))
    with suppress(ValueError, RecursionError):
        _keep(json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs))))
    fields = dict(request.POST.items())
    files = {name: file.read() for name, file in request.FILES.items()}
    if fields or files:
        _keep(fields, files)
    return HttpResponse()


def _charset_of(request: HttpRequest) -> str:
    _, parameters = parse_header_parameters(request.META.get("CONTENT_TYPE", ""))
    return str(parameters.get("charset", "utf-8"))


urlpatterns = [re_path(r"", _django_view)]
_STARLETTE = Starlette(routes=[Route("/{path:path}", _starlette_view, methods=_METHODS)])


class Hosts:
    """All of them, each asked with the same request."""

    def __init__(self) -> None:
        if not django.conf.settings.configured:
            django.conf.settings.configure(DEFAULT_CHARSET="utf-8")
        settings = django.conf.settings
        settings.ROOT_URLCONF, settings.ALLOWED_HOSTS = __name__, ["*"]
        settings.MIDDLEWARE, settings.LOGGING_CONFIG = [], None
        self._django = WSGIHandler()
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """End the loop that asks Starlette."""
        self._runner.close()

    def readings(self, sent: Sent) -> list[Reading]:
        """Return every reading that one of them has; one that refuses has none."""
        _READ.clear()
        self._runner.run(self._ask_starlette(sent))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            apps: tuple[Any, ...] = (_FLASK, self._django)
            for app in apps:
                list(app(_environ(sent), _started))
        return list(_READ)

    async def _ask_starlette(self, sent: Sent) -> None:
        async def receive():
            return {"type": "http.request", "body": sent.body, "more_body": False}

        async def send(message):
            pass

        scope = {
            "type": "http",
            "method": sent.method,
            "path": sent.path,
            "query_string": b"",
            "root_path": "",
            "headers": [*sent.headers, (b"content-length", b"%d" % len(sent.body))],
        }
        try:
            await _STARLETTE(scope, receive, send)
        except Exception:
            return


def _started(*_: Any) -> Any:
    return None


def _environ(sent: Sent) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": sent.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": sent.path,
        "QUERY_STRING": "",
        "CONTENT_TYPE": sent.content_type.decode("latin-1"),
        "CONTENT_LENGTH": str(len(sent.body)),
        "SERVER_NAME": "test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(sent.body),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


class Served(NamedTuple):
    """What a host does for a request: `output` is None where nothing caps it."""

    requests: int
    output: int | None
    tools: int
    acts: bool
    models: tuple[str, ...]


_CAPS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
    "completions": ("max_tokens",),
}
_LOOKS_UP = ("web_search", "file_search", "googleSearch")


def served(sent: Sent, reading: Reading) -> Iterator[Served]:
    """Yield what a host of an API does with a reading, in each way such hosts are written."""
    members = reading.members
    if sent.api == "files":
        if isinstance(members, dict) and members.get("purpose") == "batch":
            yield _all(_of_chat(line) for line in _lines(reading.files))
        return
    if not isinstance(members, dict) or not members:
        return
    members = {name: _decoded(value) for name, value in members.items()}
    if sent.api == "messages batch":
        yield _all(_of_chat(one, "messages") for one in _each(members.get("requests"), "params"))
    elif sent.api == "gemini batch":
        inner = _at(_at(members, "batch"), "input_config", "inputConfig")
        yield _all(
            _of_gemini(one, "") for one in _each(_at(inner, "requests").get("requests"), "request")
        )
    elif sent.api == "gemini":
        yield _of_gemini(members, sent.path)
    elif sent.api == "ollama":
        for read in (members, _in_any_case(members)):
            # Without any of these it only loads the model: JSON that was read as a form, say.
            if {"prompt", "messages", "input"} & read.keys():
                yield _of_ollama(read)
    elif "prompt" in members or "messages" in members or "input" in members:
        named = _named_in(sent.path)
        for merged in (members, {**members, **_at(members, "extra_body")}, _in_any_case(members)):
            found = _of_chat(merged, sent.api)
            yield found if named is None else found._replace(models=(named,))
            yield found


def _decoded(value: Any) -> Any:
    """Return a form's field as hosts take it that expect more than text in it."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _in_any_case(members: dict[str, Any]) -> dict[str, Any]:
    """Return members as Go's decoder takes them: the last of a name in any case."""
    return {name.lower(): value for name, value in members.items()}


def _at(members: Any, *names: str) -> dict[str, Any]:
    for name in names:
        inner = members.get(name) if isinstance(members, dict) else None
        if isinstance(inner, dict):
            return inner
    return {}


def _each(listed: Any, name: str) -> Iterator[dict[str, Any]]:
    for one in listed if isinstance(listed, list) else []:
        yield _at(one, name)


def _lines(files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    for line in files.get("file", b"").splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if isinstance(read, dict) and isinstance(read.get("body"), dict):
            yield read["body"]


def _all(every: Iterator[Served]) -> Served:
    each = list(every)
    outputs = [one.output for one in each]
    return Served(
        sum(one.requests for one in each),
        None if None in outputs else sum(output or 0 for output in outputs),
        0,  # tools of several requests are told once where they are the same
        any(one.acts for one in each),
        tuple({model for one in each for model in one.models}),
    )


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) else None


def _of_chat(members: dict[str, Any], api: str = "chat") -> Served:
    tools = _tools(members)
    for item in members.get("input", []) if isinstance(members.get("input"), list) else []:
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            tools += _tools(item)
    n = min(max(_number(members.get("n")) or 1, 1), TOP)
    prompts: Any = members.get("prompt")
    several = isinstance(prompts, list) and prompts and all(isinstance(p, str) for p in prompts)
    completions = n * (len(prompts) if several else 1)
    caps = [_number(members.get(name)) for name in _CAPS.get(api, _CAPS["chat"])]
    # To Anthropic a cap of 0 is one; others take it for none.
    stated = [cap for cap in caps if cap or (cap == 0 and api == "messages")]
    return Served(
        completions,
        stated[0] * completions if stated else None,
        len(tools),
        any(map(_acts, tools)),
        (members["model"],) if isinstance(members.get("model"), str) else (),
    )


def _tools(members: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    for name in ("tools", "functions"):
        listed = members.get(name)
        found += listed if isinstance(listed, list) else []
    return found


def _acts(tool: Any) -> bool:
    if not isinstance(tool, dict):
        return False
    return "function" in tool or "input_schema" in tool or tool.get("type") not in _LOOKS_UP


def _of_gemini(members: dict[str, Any], path: str) -> Served:
    declared = 0
    acts = bool(members.get("cachedContent"))
    named = _named_in(path)
    for tool in members.get("tools", []) if isinstance(members.get("tools"), list) else []:
        for name in ("functionDeclarations", "function_declarations"):
            listed = tool.get(name) if isinstance(tool, dict) else None
            declared += len(listed) if isinstance(listed, list) else 0
    settings = _at(members, "generationConfig", "generation_config")
    count = _number(settings.get("candidateCount", settings.get("candidate_count"))) or 1
    cap = _number(settings.get("maxOutputTokens", settings.get("max_output_tokens")))
    return Served(
        count,
        cap * count if cap else None,
        declared or int(acts),
        bool(declared) or acts,
        (named,) if named else (),
    )


def _of_ollama(members: dict[str, Any]) -> Served:
    cap = _number(_at(members, "options").get("num_predict"))
    tools = _tools(members)
    model = members.get("model")
    return Served(
        1,
        cap if cap and cap > 0 else None,
        len(tools),
        any(map(_acts, tools)),
        (model,) if isinstance(model, str) else (),
    )


def _named_in(path: str) -> str | None:
    """Return the model a path names, as a route with a path in its place takes it."""
    for before, after in (
        ("/engines/", "/chat/completions"),
        ("/deployments/", "/chat/completions"),
        ("/models/", ":generateContent"),
        ("/models/", ":newMethod"),
    ):
        if before in path and after in path:
            return path.partition(before)[2].rpartition(after)[0]
    return None
