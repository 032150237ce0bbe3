"""A host's own authentication: what its function tells is who asks, over every interface."""

from __future__ import annotations

import asyncio
import base64
import sys

import pytest
from fastapi import FastAPI

from guardrail.asgi import GuardrailMiddleware
from guardrail.signals.directory import Identity
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.driving import ASK, Call, Guarded, Host, ask, completion, scope_of
from tests.http.test_asgi_websockets import connect, echo
from tests.http.wsgi_driving import Hosted, answering

POLICY = """
guardrail: 1
policy: own
facts: {account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}}
models: {small: {max_output: 200}}
rules:
  - {id: nobody, when: {account.id: {exists: false}}, block: {reason: who_are_you, status: 401}}
  - {id: banned, when: {enforcement.status: banned}, unknown: skip, block: {reason: banned}}
  - {id: calls, when: always, budget: {requests: 2, per: day, key: account.id}}
"""
SESSIONS = {"c1": {"account.id": "a1", "account.tier": "email"}, "c2": {"account.id": "a2"}}


def of_cookie(headers):
    """Return whose session a cookie names: what a host's own session store would tell."""
    cookies = [value for name, value in headers if name == b"cookie"]
    return SESSIONS.get(cookies[0].decode().partition("=")[2]) if cookies else None


def plain(scope):
    return of_cookie(scope["headers"])


async def waiting(scope):
    await asyncio.sleep(0)
    return of_cookie(scope["headers"])


class AsAnObject:
    async def __call__(self, scope):
        return of_cookie(scope["headers"])


def of_user(scope):
    """Read what Starlette's AuthenticationMiddleware leaves in a scope."""
    return {"account.id": scope["user"]} if "user" in scope else None


def cookie(value):
    return [(b"cookie", b"session=" + value.encode())]


def test_a_ban_that_cannot_be_read_is_an_alarm(caplog):
    def identify(scope):
        return {"account.id": "a1", "enforcement.status": "suspended"}

    guarded = Guarded(POLICY, Host([completion()]), identify=identify, directory=None)

    assert [guarded.ask(ASK, key=None).status for _ in range(2)] == [200, 200]
    (line,) = [one for one in caplog.records if one.levelname == "CRITICAL"]
    assert "a ban is perhaps not in force; the values are `unrestricted`" in line.getMessage()


@pytest.mark.parametrize("identify", [plain, waiting, AsAnObject()])
def test_a_session_cookie_says_who_asks(identify):
    guarded = Guarded(POLICY, Host([completion()]), identify=identify, directory=None)
    statuses = [
        guarded.ask(ASK, key=None, headers=cookie(who)).status
        for who in ("c1", "c1", "c1", "c2", "c9")
    ]

    assert statuses == [200, 200, 429, 200, 401]


def test_what_a_middleware_outside_left_in_the_scope_is_at_hand():
    guarded = Guarded(POLICY, Host([completion()]), identify=of_user, directory=None)

    assert guarded.ask(ASK, key=None, user="a1").status == 200
    assert guarded.ask(ASK, key=None).status == 401


def test_where_the_host_knows_nobody_the_directory_is_asked():
    guarded = Guarded(POLICY, Host([completion()]), identify=plain)

    assert guarded.ask(ASK, key="key-a").status == 200
    assert guarded.ask(ASK, key=None).status == 401
    asked = guarded.directory.asked
    assert guarded.ask(ASK, key="key-a", headers=cookie("c1")).status == 200
    assert guarded.directory.asked == asked


def basic(environ):
    """Read a name as HTTP Basic sends it."""
    scheme, _, word = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    name = base64.b64decode(word).decode().partition(":")[0] if scheme == "Basic" else ""
    return {"account.id": name} if name else None


def test_over_wsgi_basic_or_a_gateways_header_say_who_asks():
    hosted = Hosted(answering([completion()]), POLICY, identify=basic)
    ben, ann = (base64.b64encode(f"{name}:pw".encode()).decode() for name in ("ben", "ann"))
    statuses = [hosted.ask(HTTP_AUTHORIZATION=f"Basic {word}")[0] for word in (ben, ben, ben, ann)]
    assert statuses == [200, 200, 429, 200]

    def gateway(environ):
        trusted = environ["REMOTE_ADDR"] == "10.0.0.1"
        return {"account.id": environ["HTTP_X_USER"]} if trusted else None

    hosted = Hosted(answering([completion()]), POLICY, identify=gateway)
    assert hosted.ask(HTTP_X_USER="ben", REMOTE_ADDR="10.0.0.1", HTTP_AUTHORIZATION="")[0] == 200
    assert hosted.ask(HTTP_X_USER="ben", HTTP_AUTHORIZATION="")[0] == 401


def test_over_wsgi_an_async_function_is_refused_at_the_start():
    async def identify(environ):
        return None

    for function in (identify, AsAnObject()):
        with pytest.raises(SystemExit) as ended:
            Hosted(answering([completion()]), POLICY, identify=function)
        assert "`identify` is async: WSGI needs a plain" in str(ended.value.__cause__)


def test_a_websocket_is_opened_by_whom_the_host_knows():
    guarded = Guarded(POLICY, echo, identify=waiting, directory=None)
    opened = connect(guarded, key=None, headers=cookie("c1"))
    refused = connect(guarded, key=None)

    assert [message["type"] for message in opened.sent] == ["websocket.accept"]
    assert [message["type"] for message in refused.sent] == ["websocket.close"]


WRONG = {
    "no mapping": ("a1", "returned a `str`: return a mapping"),
    "a number": ({"account.id": 42}, "`account.id` is `int`, not of type string"),
    "an empty text": ({"account.id": ""}, "`account.id` is empty"),
    "no account": ({"account.tier": "verified"}, "it names no `account.id`"),
    "another name": ({"account.id": "a1", "account.teir": "x"}, "did you mean `account.tier`"),
    "the connection's": ({"account.id": "a1", "client.ip": "8.8.8.8"}, "is no fact of it"),
    "a client's": ({"account.id": "a1", "request.model": "small"}, "is no fact of it"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("way", ["asgi", "wsgi"])
def test_what_is_no_identity_is_an_error_at_the_first_request(what, way, caplog):
    told, message = WRONG[what]
    if way == "asgi":
        guarded = Guarded(POLICY, Host([completion()]), identify=lambda scope: told)
        assert guarded.ask(ASK, key="key-a").status == 503
        assert not guarded.host.bodies
    else:
        hosted = Hosted(answering([completion()]), POLICY, identify=lambda environ: told)
        assert hosted.ask()[0] == 503

    assert message in caplog.text


def test_a_function_that_raises_refuses_and_says_where_but_not_what(caplog):
    def broken(scope):
        raise RuntimeError("postgres://user:SECRET@db/")

    guarded = Guarded(POLICY, Host([completion()]), identify=broken)
    answers = [guarded.ask(ASK, key="key-a") for _ in range(3)]

    assert [answer.status for answer in answers] == [503] * 3
    assert len(caplog.records) == 1
    assert "RuntimeError in test_established.py, line" in caplog.text
    assert "SECRET" not in caplog.text
    metrics = guarded.app.metrics()
    assert "guardrail_directory_failures_total 3\n" in metrics
    assert "guardrail_directory_failing 1\n" in metrics


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return where a host's own module stands, found by Python."""
    (tmp_path / "own_login.py").write_text(
        "class Login:\n"
        "    @staticmethod\n"
        "    def who(scope):\n"
        "        return {'account.id': 'a1'}\n"
        "number = 42\n"
    )
    (tmp_path / "policy.yaml").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_login", None)


def configured(folder, name):
    (folder / "guardrail.toml").write_text(f'policies = "policy.yaml"\nidentify = "{name}"\n')
    environ = {"GUARDRAIL_CONFIG": str(folder / "guardrail.toml")}
    host = Host([completion()])
    return GuardrailMiddleware(host, environ=environ), WsgiMiddleware(
        answering([]), environ=environ
    )


def test_a_settings_file_names_the_function(module):
    app, _ = configured(module, "own_login:Login.who")

    assert ask(app, key=None).status == 200


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_login.Login", "write `module:function`"),
        ("own_logn:Login", "`own_logn` is not found where Python looks for modules"),
        ("own_login:Logout", "`own_login` has no `Logout`"),
        ("own_login:number", "give a function"),
    ],
)
def test_a_name_that_leads_to_no_function_ends_the_start(module, name, message):
    with pytest.raises(SystemExit) as ended:
        configured(module, name)

    assert message in str(ended.value.__cause__)


def test_add_middleware_hands_it_on(module):
    app = FastAPI()

    @app.get("/v1/models")
    def models() -> dict[str, str]:
        return {}

    app.add_middleware(
        GuardrailMiddleware, policies=str(module / "policy.yaml"), identify=waiting, environ={}
    )

    async def status(headers):
        scope = scope_of("/v1/models", "GET", headers, key=None)
        return (await Call(scope).run(app)).status

    assert asyncio.run(status(cookie("c1"))) == 200
    assert asyncio.run(status(())) == 401


def test_a_fact_that_is_told_is_not_unavailable_too():
    guarded = Guarded(POLICY)
    told = {"account.id": "a1", "enforcement.status": "unrestricted"}
    guarded.directory.look_up = lambda credential, now: Identity(told, frozenset(told))

    assert ask(guarded.app).status == 200
