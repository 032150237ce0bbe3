"""Settings: from arguments, from the file the environment names, from `pyproject.toml`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from fractions import Fraction
from typing import Any

import pytest

from guardrail.asgi import GuardrailMiddleware
from guardrail.errors import DataError, PolicyError, SettingError
from guardrail.guard import Guard
from guardrail.http.identity.directory_file import FileDirectory, written
from guardrail.http.settings.build import ARGUMENTS, configure
from guardrail.http.settings.read import NAMES
from guardrail.testing import guard_of
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.accounts import Accounts
from tests.http.driving import ASK, Call, Host, body_messages, scope_of
from tests.http.test_journal import held_open

POLICY = """
guardrail: 1
policy: settings
rules:
  - {id: r, when: always, rate: {requests: 1/day, key: client.network}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a policy in it."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "api.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def statuses(app, times=2):
    async def run():
        calls = [Call(scope_of(body=ASK), body_messages(ASK)) for _ in range(times)]
        return [(await call.run(app)).status for call in calls]

    return asyncio.run(run())


def test_the_class_needs_nothing_but_the_app(folder, monkeypatch):
    (folder / "gr.toml").write_text('policies = "policies"\nexempt = ["/health"]\n')
    monkeypatch.setenv("GUARDRAIL_CONFIG", str(folder / "gr.toml"))
    monkeypatch.chdir("/")
    app = GuardrailMiddleware(Host())

    assert statuses(app) == [200, 429]
    assert app.door.settings.exempt == {"/health"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gr.toml", 'policies = "policies"\nmax_delay = 1.5\n'),
        ("gr.yaml", "policies: policies\nmax_delay: 1.5\n"),
        ("pyproject.toml", '[tool.guardrail]\npolicies = ["policies"]\nmax_delay = 1.5\n'),
    ],
)
def test_files_of_either_kind_say_the_same(folder, name, text):
    (folder / name).write_text(text)
    configured = configure({"config": folder / name, "environ": {}})

    assert configured.http.max_delay == 1.5
    assert configured.policies is not None
    assert [rule.id for rule in configured.policies.rules] == ["r"]


@pytest.mark.parametrize("share", ["1/8", Fraction(1, 8)])
def test_the_share_of_a_process_while_the_store_is_away_is_a_setting(folder, share):
    configured = configure({"policies": "policies", "local_share": share, "environ": {}})

    assert configured.sync_guard().local_share == Fraction(1, 8)
    assert asyncio.run(_share(configured)) == Fraction(1, 8)


async def _share(configured):
    return configured.async_guard().local_share


def test_the_project_file_is_found_from_a_folder_below(folder, monkeypatch):
    (folder / "pyproject.toml").write_text('[tool.guardrail]\npolicies = "policies"\n')
    below = folder / "src" / "app"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert configure({"environ": {}}).policies is not None


def test_arguments_go_before_the_file(folder):
    (folder / "gr.toml").write_text('policies = "nowhere"\nmax_body = 5\n')
    configured = configure(
        {"config": "gr.toml", "policies": "policies", "max_body": 7, "environ": {}}
    )

    assert configured.http.reading.max_body == 7


WRONG = {
    "nothing": ({}, "no policies are named"),
    "unknown": ({"polices": "policies"}, "did you mean `policies`?"),
    "far off": ({"zzz": 1}, "it can hold `blocked_by`"),
    "number": ({"policies": "policies", "max_body": "much"}, "give a whole number from 1"),
    "boolean": ({"policies": "policies", "max_body": True}, "give a whole number from 1"),
    "seconds": ({"policies": "policies", "body_timeout": 0}, "give seconds, above 0"),
    "nan": ({"policies": "policies", "max_delay": float("nan")}, "give seconds, from 0"),
    "flag": ({"policies": "policies", "stream_usage": "yes"}, "give true or false"),
    "choice": ({"policies": "policies", "dialect": "opnai"}, "did you mean `openai`?"),
    "texts": ({"policies": "policies", "exempt": [1]}, "give a list of texts"),
    "origin": ({"policies": "policies", "cors_origins": ["a.test"]}, "`https://app.example`"),
    "address": ({"policies": "policies", "cors_origins": "https://a.test/"}, "or `*`"),
    "no guard": ({"guard": 3}, "`guard` is a `int`: hand over a `Guard`"),
    "remedy": ({"policies": "policies", "remedies": {"verfy": "x"}}, "did you mean `verify`?"),
    "proxy": ({"policies": "policies", "proxies": ["10.0.0.1/8"]}, "10.0.0.0/8"),
    "proxies": ({"policies": "policies", "proxies": {"trust": []}}, "did you mean `trusted`?"),
    "share": ({"policies": "policies", "local_share": "2/3"}, "one part of a whole"),
    "share of nothing": ({"policies": "policies", "local_share": "1/0"}, "one part of a whole"),
    "share as a float": ({"policies": "policies", "local_share": 0.25}, "such as `1/4`"),
    "key": ({"policies": "policies", "hash_key": b"short"}, "the hash key has 5 bytes"),
    "suffix": ({"config": "gr.ini"}, "give a file that ends in .toml or .yaml"),
    "file": ({"config": "lost.toml"}, "no such file"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_fails_the_start_and_says_what_to_do(folder, options, message, caplog):
    host: Any = Host()
    guarded = GuardrailMiddleware(host, environ={}, **options)
    with pytest.raises(SettingError) as caught:
        _ = guarded.door

    assert message in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        WsgiMiddleware(host, environ={}, **options)

    assert ended.value.code == 4
    assert message in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gr.toml", "polices = 'p'", "`polices` means nothing in `gr.toml`: did you mean"),
        ("gr.toml", "policies = ", "`gr.toml` is not TOML"),
        ("gr.yaml", "a: [", "gr.yaml:1"),
        ("gr.yaml", "- 1", "holds no settings"),
        ("gr.toml", 'policies = "policies"\nhash_key = "x"', "`hash_key` means nothing in"),
        ("gr.toml", 'policies = "policies"\nmax_held = -1', "`max_held` in `gr.toml` is `-1`"),
    ],
)
def test_a_wrong_file_is_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(SettingError) as caught:
        configure({"environ": {"GUARDRAIL_CONFIG": name}})

    assert message in str(caught.value)


def test_a_policy_that_cannot_be_loaded_fails_at_the_start(folder):
    (folder / "policies" / "api.yaml").write_text("guardrail: 1\nrules: [{id: x}]\n")
    with pytest.raises(PolicyError):
        _ = GuardrailMiddleware(Host(), policies="policies", environ={}).door


def test_a_guard_of_the_wrong_world_is_named(folder):
    guarded = GuardrailMiddleware(Host(), guard=guard_of(POLICY), environ={})
    with pytest.raises(SettingError, match=r"needs a `guardrail\.AsyncGuard`"):
        guarded.door.open()


def test_paths_in_a_file_are_relative_to_it(folder, monkeypatch, tmp_path_factory):
    (folder / "gr.toml").write_text('policies = "policies"\n')
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    assert configure({"config": folder / "gr.toml", "environ": {}}).policies is not None


def test_the_hash_key_is_never_shown(folder):
    key = "0123456789abcdef-secret"
    configured = configure({"policies": "policies", "hash_key": key, "environ": {}})

    assert key not in repr(configured.http)
    assert configured.http.hash_key == key.encode()


def test_hosts_that_are_not_installed_are_not_imported():
    code = """
        import sys
        import guardrail.asgi, guardrail.wsgi
        print([name for name in ("starlette", "fastapi", "litellm") if name in sys.modules])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )

    assert run.stdout == "[]\n"


def test_a_directory_is_a_file_or_in_tokens(folder):
    key = "0123456789abcdef"
    (folder / "who.csv").write_text(f"credential,account.id\n{written('sk-1', key.encode())},a1\n")
    tokens = {
        "issuer": "https://login.test",
        "audience": "api",
        "jwks": "https://login.test/keys",
        "claims": {"account.org": ["org", "id"]},
    }
    found = [
        configure({"policies": "policies", "hash_key": key, "environ": {}, "directory": value})
        for value in ("who.csv", tokens)
    ]

    directories = [configured.callers.directory for configured in found]
    assert [type(each).__name__ for each in directories] == ["FileDirectory", "TokenDirectory"]
    caller = found[0].callers.read("8.8.8.8", [(b"authorization", b"Bearer sk-1")])
    assert found[0].callers.look_up(caller, 0.0).facts["account.id"] == "a1"
    (folder / "gr.toml").write_text('policies = "policies"\ndirectory = "who.csv"\n')
    again = configure({"config": folder / "gr.toml", "hash_key": key, "environ": {}})
    assert isinstance(again.callers.directory, FileDirectory)
    with pytest.raises(DataError, match="which is not given"):
        configure({"policies": "policies", "environ": {}, "directory": "who.csv"})


def test_a_directory_is_a_service_a_function_or_one_of_its_own(folder):
    def accounts(credential):
        return {"account.id": "a"}

    service = {"service": "https://ids.test/keys", "authorization_from": "IDS"}
    found = [
        configure({"policies": "policies", "environ": {"IDS": "Bearer x"}, "directory": value})
        for value in (None, accounts, service)
    ]

    names = [type(configured.callers.directory).__name__ for configured in found]
    assert names == ["NoneType", "CallableDirectory", "ServiceDirectory"]


TOKENS = {"issuer": "https://x.test", "audience": "api", "jwks": "https://x.test/keys"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"servce": "https://x.test"}, "did you mean `service`?"),
        ({"provides": ["account.id"]}, "give `service`"),
        ({"service": "https://x.test", "authorization_from": "LOST"}, "names `LOST`: set it"),
        ({"service": "https://x.test", "plain_http": "yes"}, "`plain_http` a flag"),
        ({"issuer": "https://x.test"}, "tokens need an `issuer`, an `audience` and a `jwks`"),
        ({**TOKENS, "claims": {"account.org": 3}}, "`claims` maps facts to claims"),
        ({**TOKENS, "claims": []}, "`claims` maps facts to claims"),
        ({**TOKENS, "algorithms": ["none"]}, "`none` does not verify"),
        ({**TOKENS, "plain_http": 1}, "`plain_http` is a flag"),
        ({**TOKENS, "service": "https://x.test"}, "`service`"),
        ("who.json", "name a `.yaml` or a `.csv` file"),
        (7, "give a map with `service`"),
    ],
)
def test_a_wrong_directory_is_named(folder, value, message):
    with pytest.raises(SettingError) as caught:
        configure({"policies": "policies", "environ": {}, "directory": value})

    assert message in str(caught.value)


def test_credentials_are_read_where_the_settings_say(folder):
    for names in ("x-api-key", ["bearer", "x-api-key"]):
        configured = configure({"policies": "policies", "environ": {}, "credentials": names})
        caller = configured.callers.read("8.8.8.8", [(b"x-api-key", b"k1")])
        assert caller.credential is not None
    with pytest.raises(SettingError, match="did you mean `bearer`"):
        configure({"policies": "policies", "environ": {}, "credentials": "beerer"})


def test_what_a_file_may_hold_may_be_an_argument():
    assert set(NAMES) < set(ARGUMENTS)


@pytest.mark.parametrize("knows", [{}, {"directory": lambda credential: None}])
def test_a_start_without_a_source_of_identities_says_so(folder, caplog, knows):
    WsgiMiddleware(lambda environ, start: [], policies="policies", environ={}, **knows).close()

    assert ("nobody is known here" in caplog.text) is (not knows)


def test_a_look_at_the_store_before_serving_lets_go_of_it_but_not_of_a_guard_of_the_hosts(tmp_path):
    rule = "{id: r, when: always, budget: {requests: 9, per: day, key: account.id}}"
    (tmp_path / "p.yaml").write_text(f"guardrail: 1\npolicy: p\nrules: [{rule}]\n")
    (tmp_path / "store").mkdir()
    store = f"lmdb://{tmp_path / 'store'}?deadline=20s"
    known: dict[str, Any] = {"directory": Accounts(), "hash_key": b"k" * 32, "environ": {}}

    made = WsgiMiddleware(lambda environ, start: [], policies=tmp_path, store=store, **known)
    assert not held_open(tmp_path / "store")
    made.close()
    with Guard.load(tmp_path, store=store, hash_key=b"k" * 32, environ={}) as guard:
        guard.decide({"account.id": "a"})
        WsgiMiddleware(lambda environ, start: [], guard=guard, **known)
        assert held_open(tmp_path / "store")
