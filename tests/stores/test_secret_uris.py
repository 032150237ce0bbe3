"""No error about an address shows what may be a password, however oddly it is written."""

from __future__ import annotations

import logging
import traceback

import pytest

from guardrail.errors import GuardrailError, StoreError
from guardrail.http.settings.build import configure
from guardrail.model.cells import Charge
from guardrail.stores.opening import open_store
from guardrail.stores.redis.address import read_address, without_login
from tests.http.test_established import POLICY

KEY = b"k" * 32
SECRET = "s3cr3tw0rd"
URIS = [
    f"redis://:{SECRET}/x@h:6379/0",
    f"redis://:x/{SECRET}@h:6379/0",
    f"redis://:{SECRET}?x@h:6379/0",
    f"redis://:x?{SECRET}@h:6379/0",
    f"redis://:{SECRET}#x@h:6379/0",
    f"redis://:x#{SECRET}@h:6379/0",
    f"redis://user:{SECRET}@x@h:6379/x",
    f"redis://:{SECRET}@h:6379/x",
    f"redis://:{SECRET}@h:port/0",
    f"redis://:{SECRET}",
    f"redis://h:{SECRET}",
    f"redis://h:6379/{SECRET}",
    f"redis://h:6379/0/{SECRET}",
    f"redis://h:6379/0#{SECRET}",
    f"redis://h:6379/0?password={SECRET}",
    f"redis://h:6379/0?deadline=1s&token={SECRET}",
    f"redis://h:6379/0?username=a@b&password={SECRET}",
    f"redis://:[{SECRET}@h:6379/0",
    f"redis://:{SECRET}]@h:6379/0",
    f"redis://:{SECRET}\u2100@h:6379/0",
    f"redis:{SECRET}@h:6379",
    f"redis:/:{SECRET}@h:6379",
    f"redsi://:{SECRET}@h:6379/0",
    f"redsi://:{SECRET}/x@h:6379/0",
    f"rediss://:{SECRET}/x@h:6379/0?dead_line=1s",
    f"redis+sentinel://:{SECRET}/x@h:26379/service",
    f"redis+sentinel://:{SECRET}@h:26379",
    f"redis+cluster://:{SECRET}@h:1,i:2/3",
    f"redis+cluster://:{SECRET}/x@h:1,i:2",
    f"unix://:{SECRET}@?db=1",
    f"unix://:{SECRET}#x@/run/redis.sock",
    f"unix:///run/redis.sock?password={SECRET}",
    f"memory://:{SECRET}@h",
    f"memory://h/?max_keys=1&password={SECRET}",
    f"lmdb://user:{SECRET}@h/var",
    f"lmdb://:{SECRET}/x@",
    f"postgres://user:{SECRET}@h/db",
    f"{SECRET}@h",
]


def told(problem: BaseException) -> str:
    """Return all that a traceback would show of an error, and of those it came from."""
    shown = "".join(traceback.format_exception(problem))
    # The lines of code are ours, and hold no values.
    return "\n".join(line for line in shown.split("\n") if not line.startswith("    "))


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_no_error_about_the_address_of_a_store_shows_a_password(uri, keys, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(GuardrailError) as caught:
        open_store(uri, keys)

    assert SECRET not in told(caught.value)
    assert SECRET not in caplog.text
    assert SECRET not in without_login(uri)


def test_an_address_is_shown_as_far_as_it_is_no_secret():
    shown = without_login(f"redis://user:{SECRET}@cache.internal:6379/2?deadline=50ms")
    assert shown == "redis://cache.internal:6379/2?deadline=…"
    assert without_login("redis://[::1]:6379/0") == "redis://[::1]:6379/0"
    assert without_login("redis+sentinel://a:1,b:2/mine") == "redis+sentinel://a:1,b:2/mine"
    assert without_login("unix:///run/redis.sock?db=1") == "unix:///run/redis.sock?db=…"
    assert without_login("lmdb:///var/lib/guardrail") == "lmdb:///var/lib/guardrail"


def test_a_password_that_is_written_as_it_must_be_is_read():
    address = read_address("redis://ann:%2F%3F%23%40%3A%5B%25@h:6379/0")

    assert (address.username, address.password) == ("ann", "/?#@:[%")
    assert "%2F" not in repr(address)


DIRECTORIES = [
    f"https://user:{SECRET}@h/x",
    f"https://h/who.yaml?token={SECRET}",
    {"service": f"https://user:{SECRET}@h/x"},
    {"service": f"https://:{SECRET}/x@h/"},
    {"service": f"http://h/?token={SECRET}"},
    {"service": f"ftp://h/{SECRET}"},
    {"service": f"https://user:{SECRET}@h/x", "provides": 5},
    {"service": f"https://h/{SECRET}", "plain_http": "no"},
    {"service": [f"https://user:{SECRET}@h/x"]},
    {"issuer": f"https://user:{SECRET}@h/x"},
    {"issuer": f"https://h/#{SECRET}", "audience": "us", "jwks": "https://h/"},
    {"service": "https://h/x", "authorization_from": f"Bearer {SECRET}"},
    {"issuer": "https://i", "audience": "us", "jwks": f"https://user:{SECRET}@h/x"},
    {"issuer": "https://i", "audience": "us", "jwks": f"http://h/?key={SECRET}"},
    {"issuer": "https://i", "audience": 5, "jwks": f"https://h/?key={SECRET}"},
]


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_no_error_about_a_directory_shows_a_password(directory, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    with pytest.raises(GuardrailError) as caught:
        configure({"policies": tmp_path, "directory": directory, "environ": {}})

    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("key", [SECRET, SECRET.encode(), SECRET * 20, [SECRET.encode()], ["x"]])
def test_no_error_about_a_hash_key_shows_it(key, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    for options in ({"hash_key": key}, {"environ": {"GUARDRAIL_HASH_KEY": SECRET}}):
        with pytest.raises((GuardrailError, TypeError)) as caught:
            configure({"policies": tmp_path, "environ": {}, **options})
        assert SECRET not in told(caught.value)


def test_no_error_about_a_hash_key_file_shows_a_key_written_in_its_place(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "own.toml").write_text(f'hash_key_file = "{SECRET * 3}"\n')
    for options in (
        {"environ": {"GUARDRAIL_HASH_KEY_FILE": SECRET * 3}},
        {"environ": {}, "hash_key_file": SECRET * 3},
        {"environ": {"GUARDRAIL_CONFIG": str(tmp_path / "own.toml")}},
    ):
        with pytest.raises(GuardrailError) as caught:
            configure({"policies": tmp_path, **options})
        assert SECRET not in told(caught.value)


def test_sentinels_that_do_not_answer_are_named_and_no_client_is_printed():
    uri = f"redis+sentinel://user:{SECRET}@127.0.0.1:1,127.0.0.1:2/counters"
    store = open_store(uri, [KEY])
    with pytest.raises(StoreError) as raised:
        store.acquire([Charge(True, None)], [], 1)
    store.close()

    assert str(raised.value) == (
        "`counters` of the sentinels 127.0.0.1:1, 127.0.0.1:2 cannot be reached: "
        "No master found for 'counters': 2 of the sentinels did not answer"
    )
