"""Credentials: where they are read, as exact bytes, as keyed hashes, and nowhere in clear."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guardrail.errors import SettingError
from guardrail.http.identity import (
    AmbiguousCredentialError,
    CallerResolver,
    CredentialSource,
    credential_of,
)
from guardrail.http.identity.caller import SUBPROTOCOL_PREFIX
from guardrail.signals.directory import Credential, Secret, credential_id

HASH_KEY = b"k" * 32
EVERYWHERE = CredentialSource.of(
    "bearer", "x-api-key", "api-key", "x-goog-api-key", "query", "subprotocol"
)
CANARY = "sk-CANARY-3f9d1c7e5b"


def carried(name: str, secret: bytes) -> dict[str, object]:
    """Return a request that carries a secret in one place."""
    if name == "bearer":
        return {"headers": [(b"Authorization", b"Bearer " + secret)]}
    if name == "query":
        return {"headers": [], "query": b"alt=sse&key=" + secret}
    if name == "subprotocol":
        offered = ["realtime", "openai-insecure-api-key." + secret.decode()]
        return {"headers": [], "subprotocols": offered}
    return {"headers": [(name.title().encode(), secret)]}


PLACES = [kind.value for kind in EVERYWHERE.kinds]


def read(reads: CredentialSource = EVERYWHERE, **request: object) -> Credential | None:
    return credential_of(**{"headers": [], **request}, reads=reads, hash_key=HASH_KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_credential_is_read_where_the_host_authenticates_it(place):
    request = carried(place, CANARY.encode())
    found = read(CredentialSource.of(place), **request)

    assert found is not None
    assert found.id == credential_id(CANARY, HASH_KEY)
    assert found.kind.value == place
    for other in set(PLACES) - {place}:
        assert read(CredentialSource.of(other), **request) is None


def test_a_credential_elsewhere_does_not_count():
    stolen = [(b"x-api-key", b"victim"), (b"authorization", b"Bearer mine")]

    assert read(CredentialSource(), headers=stolen) == read(CredentialSource(), headers=stolen[1:])


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": [(b"authorization", b"Bearer a"), (b"x-api-key", b"b")]},
        {"headers": [(b"authorization", b"Bearer a"), (b"Authorization", b"Bearer b")]},
        {"headers": [(b"x-api-key", b"a")], "query": b"key=b"},
        {"query": b"key=a&key=b"},
        {"query": b"key=a&%6bey=b"},
        {"subprotocols": ["openai-insecure-api-key.a", "openai-insecure-api-key.b"]},
    ],
)
def test_two_different_credentials_are_an_ambiguity(request_):
    with pytest.raises(AmbiguousCredentialError, match=r"two different .*: send one"):
        read(**request_)


def test_the_same_credential_twice_is_one():
    both = [(b"authorization", b"Bearer a"), (b"x-api-key", b" a "), (b"x-api-key", b"a")]

    assert read(headers=both, query=b"key=a") == read(headers=both[:1])


@pytest.mark.parametrize("comma", [b",", b", ", b",\t"])
def test_lines_that_a_server_has_joined_are_as_many_credentials(comma):
    def joined(*values):
        return read(CredentialSource(), headers=[(b"authorization", comma.join(values))])

    alone = joined(b"Bearer a")
    assert joined(b"Bearer a", b"bearer a") == joined(b"Basic b", b"Bearer a") == alone
    with pytest.raises(AmbiguousCredentialError, match="two different"):
        joined(b"Bearer a", b"Bearer b")
    assert joined(b"Bearer a", b"b") not in (alone, None)


@pytest.mark.parametrize("blank", [b"", b" ", b"\t", b"\r\n", b"\x0b\x0c", b"\x1c\x1d\x1e\x1f"])
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_case_of_the_scheme_and_white_space_around_do_not_count(scheme, blank):
    plain = read(headers=[(b"authorization", b"Bearer key")])

    assert read(headers=[(b"authorization", blank + scheme + b"  key" + blank)]) == plain
    assert read(headers=[(b"x-api-key", blank + b"key" + blank)]) == plain


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40))
def test_after_the_trim_exact_bytes_count(one, other):
    trim = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
    assume(one.strip(trim) and other.strip(trim))
    first, second = (read(headers=[(b"x-api-key", raw)]) for raw in (one, other))

    assert (first == second) == (one.strip(trim) == other.strip(trim))


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Basic a2V5", b"key", b"Bearerkey", b"\xff"]
)
def test_what_is_no_bearer_token_is_no_credential(value):
    assert read(CredentialSource(), headers=[(b"authorization", value)]) is None


def test_an_empty_key_is_none():
    assert read(headers=[(b"x-api-key", b"  ")], query=b"key=&key") is None


def test_a_query_key_is_decoded_as_hosts_do():
    assert read(query=b"a=1&key=a%2Bb%20c&b=2") == read(headers=[(b"x-api-key", b"a+b c")])
    assert read(query=b"Key=a&keys=b&akey=c") is None


def test_the_id_depends_on_the_hash_key_and_tells_nothing():
    found = credential_id(CANARY, HASH_KEY)

    assert found != credential_id(CANARY, b"l" * 32)
    assert len(found) == 24
    assert len(credential_id("x" * (1 << 20), HASH_KEY)) == 24


@pytest.mark.parametrize(("name", "hint"), [("beaer", "did you mean `bearer`?"), ("zz", "write")])
def test_an_unknown_place_is_refused(name, hint):
    with pytest.raises(SettingError) as caught:
        CredentialSource.of(name)

    assert f"`{name}` is no place of a credential" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_secret_is_shown_nowhere(place, caplog):
    callers = CallerResolver(hash_key=CANARY.encode(), reads=EVERYWHERE)
    caller = callers.read("8.8.8.8", **carried(place, CANARY.encode()))  # type: ignore[arg-type]
    found = caller.credential
    assert found is not None
    with caplog.at_level(logging.DEBUG):
        logging.getLogger().error("%s %r", found, caller)
        logging.getLogger().error("%s", callers.look_up(caller, 0.0))
    with pytest.raises(AmbiguousCredentialError) as caught:
        read(
            headers=[(b"authorization", b"Bearer " + CANARY.encode()), (b"x-api-key", b"CANARY")],
        )
    shown = [repr(found), str(found), f"{caller}", caplog.text, repr(callers), str(caller.facts)]
    shown += [str(caught.value), repr(caught.value), repr(caught.value.args)]
    shown += [repr(found.secret), str(found.secret), f"{found.secret!s:>40}"]

    assert "CANARY" not in "".join(shown)
    assert found.secret.reveal() == CANARY.encode()


def test_a_secret_is_not_pickled_or_copied():
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a secret is not pickled"):
            leak(Secret(b"x"))


@given(
    st.sampled_from([b"Bearer ", b"bearer ", b"Bearer", b"Bearer\t", b" Bearer ", b"Basic ", b""]),
    st.binary(max_size=6) | st.sampled_from([b"a,b", b"a, Bearer b", b" \x1f k \r", b"\x1c"]),
    st.sampled_from([(), ("sk-other",)]),
    st.sampled_from([b"", b"key=k"]),
    st.sampled_from([("bearer",), ("bearer", "x-api-key"), ("bearer", "query", "subprotocol")]),
)
def test_a_credential_is_the_same_where_the_fields_are_known_by_name(
    scheme, secret, others, query, places
):
    resolver = CallerResolver(hash_key=HASH_KEY, reads=CredentialSource.of(*places))
    headers = [(b"authorization", scheme + secret)]
    headers += [(b"x-api-key", other.encode()) for other in others]
    protocols = [SUBPROTOCOL_PREFIX + other for other in others]

    def found(**known):
        try:
            caller = resolver.read("192.0.2.1", headers, query, protocols, **known)
        except AmbiguousCredentialError as problem:
            return str(problem)
        credential = caller.credential
        return (
            credential,
            caller.facts,
            credential and (credential.kind, credential.secret.reveal()),
        )

    assert found(named=dict(headers)) == found()
