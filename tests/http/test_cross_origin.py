"""Browsers: a preflight is never limited, and a refusal can be read where that is configured."""

from __future__ import annotations

from tests.http.driving import ASK, Guarded, Host, body_messages

POLICY = """
guardrail: 1
policy: browsers
rules:
  - {id: r, when: always, rate: {requests: 1/day, key: account.id}}
"""
PAGE = [(b"origin", b"https://page.test")]
PREFLIGHT = [*PAGE, (b"access-control-request-method", b"POST")]


def test_a_preflight_is_never_limited():
    guarded = Guarded(POLICY, Host([b""], status=204))
    for _ in range(5):
        call = guarded.ask(None, method="OPTIONS", headers=PREFLIGHT, key=None)
        assert call.status == 204
        assert "ratelimit" not in call.headers


def test_a_host_sees_no_body_with_a_preflight_that_need_not_frame_one():
    guarded = Guarded(POLICY)

    call = guarded.ask(
        None,
        messages=body_messages(b"{", ASK),
        method="OPTIONS",
        headers=PREFLIGHT,
        http_version="2",
    )
    assert (call.status, guarded.host.bodies) == (200, [b""])


def test_an_exempt_path_gets_the_body_of_whatever_is_sent_to_it():
    guarded = Guarded(POLICY, exempt=["/own"])

    guarded.ask(ASK, path="/own", method="OPTIONS", headers=PREFLIGHT, http_version="2")
    assert guarded.host.bodies == [ASK]


def test_options_that_are_no_preflight_are_guarded():
    guarded = Guarded(POLICY)
    statuses = [
        guarded.ask(None, messages=[{"type": "http.request"}], method="OPTIONS").status
        for _ in range(2)
    ]

    assert statuses == [200, 429]


def test_a_page_can_read_a_refusal_where_its_origin_is_allowed():
    guarded = Guarded(POLICY, cors_origins=["https://page.test"])
    guarded.ask()
    headers = guarded.ask(headers=PAGE).headers

    assert headers["access-control-allow-origin"] == "https://page.test"
    assert headers["vary"] == "Origin"
    assert "retry-after" in headers["access-control-expose-headers"]


def test_other_origins_and_other_hosts_get_nothing():
    other = [(b"origin", b"https://else.test")]
    for guarded in (Guarded(POLICY, cors_origins=["https://page.test"]), Guarded(POLICY)):
        guarded.ask()
        assert "access-control" not in str(guarded.ask(headers=other).headers)


def test_any_origin_comes_without_credentials():
    guarded = Guarded(POLICY, cors_origins="*")
    headers = guarded.ask(headers=PAGE).headers

    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
