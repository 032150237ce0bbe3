"""Which requests are guarded: all but those to exempt paths, written exactly so."""

from __future__ import annotations

import pytest

from tests.http.driving import Guarded

POLICY = """
guardrail: 1
policy: paths
rules:
  - {id: closed, when: always, block: {reason: closed}}
"""


def test_an_exempt_path_is_let_through():
    guarded = Guarded(POLICY, exempt=["/health"])

    assert guarded.ask(path="/health").status == 200
    assert guarded.host.scopes[0].get("guardrail.passage") is None


@pytest.mark.parametrize(
    "path",
    [
        "/invocations",
        "/inference/v1/generate",
        "/generate",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/V1/Chat/Completions",
        "/health/",
        "/Health",
        "//health",
        "/health/../v1/chat/completions",
        "/health;x=1",
        "/healthz",
        "/",
        "",
        "*",
    ],
)
def test_every_other_path_is_guarded(path):
    assert Guarded(POLICY, exempt=["/health"]).ask(path=path).status == 403


@pytest.mark.parametrize("raw", [b"/%68ealth", b"/health%2F", b"/a/../health", b"/v1%2fchat"])
def test_an_escape_in_the_path_exempts_nothing(raw):
    call = Guarded(POLICY, exempt=["/health"]).ask(path="/health", raw_path=raw)

    assert call.status == 403


@pytest.mark.parametrize("raw", [None, b"/health", b"/health?verbose=1"])
def test_an_exempt_path_may_have_a_query(raw):
    call = Guarded(POLICY, exempt=["/health"]).ask(path="/health", raw_path=raw)

    assert call.status == 200


def test_a_path_is_the_one_that_routes_see_below_a_prefix_that_the_host_is_mounted_under():
    guarded = Guarded(POLICY, exempt=["/health"])

    assert guarded.ask(path="/api/health", root_path="/api").status == 200
    assert guarded.ask(path="/api/health", root_path="/api", raw_path=b"/api/health").status == 200
    assert (
        guarded.ask(path="/api/health", root_path="/api", raw_path=b"/api/%68ealth").status == 403
    )
    assert guarded.ask(path="/api/health").status == 403
    assert guarded.ask(path="/health", root_path="/health").status == 403
    # Some servers leave the prefix out of the path.
    assert guarded.ask(path="/health", root_path="/api").status == 200
    assert guarded.ask(path="/apix/health", root_path="/api").status == 403


@pytest.mark.parametrize("path", ["/health*", "health", "/a?b"])
def test_a_wildcard_is_no_exempt_path(path):
    with pytest.raises(ValueError, match="give whole paths"):
        _ = Guarded(POLICY, exempt=[path]).app.door
