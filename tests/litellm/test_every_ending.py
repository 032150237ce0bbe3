"""However a call through LiteLLM's app ends, the store holds what it would behind another host."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from guardrail.http.litellm import GuardrailCallback, ProxyMiddleware, facts_of_key
from tests.http import test_endings as endings
from tests.http.test_endings import Asgi, Socket

SCENARIOS = (
    endings.test_a_degrade_that_is_not_possible_gives_everything_back,
    endings.test_a_fault_of_ours_before_the_host_is_asked_refuses_and_gives_back,
    endings.test_a_fault_of_ours_on_the_way_to_the_host_gives_back,
    endings.test_a_place_that_others_took_meanwhile_stays_theirs,
    endings.test_a_place_that_was_regained_is_given_back_at_the_end,
    endings.test_a_place_that_was_regained_is_renewed_from_then_on,
    endings.test_a_request_that_is_held_is_served_after_its_wait_and_leaves_its_place_among_those_held,
    endings.test_a_store_that_fails_at_a_regain_lets_the_request_go_on,
    endings.test_a_store_that_fails_at_a_renewal_costs_the_request_nothing,
    endings.test_a_store_that_fails_at_the_settlement_has_it_once_it_answers,
    endings.test_a_store_that_is_away_from_the_start_charges_nothing_there,
    endings.test_a_stream_that_breaks_is_charged_for_what_passed,
    endings.test_waits_are_summed_and_end_where_they_would_be_longer_than_allowed,
    endings.test_what_is_served_is_charged_and_what_is_not_is_given_back,
    endings.test_where_no_more_are_to_be_held_a_request_is_refused_at_once,
)
globals().update({scenario.__name__: scenario for scenario in SCENARIOS})


class Guarded:
    """The proxy's middleware around a host of ours, with the door that its entry has."""

    def __init__(self, host: Any, **options: Any) -> None:
        self._entry = GuardrailCallback(app=FastAPI(), **options)
        self._app = ProxyMiddleware(host, entry=self._entry, facts=facts_of_key)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    @property
    def door(self) -> Any:
        return self._entry.door

    def metrics(self) -> str:
        return self._entry._door.metrics()


class Proxied(Asgi):
    """A call that the proxy itself authenticates."""

    def open(self, policies: Any, options: dict[str, Any]) -> None:
        super().open(policies, options)
        self.credentials = ["Bearer sk-acct-a"]
        self.app = Guarded(
            self._host,
            guard=self.guard,
            clock=self.clock,
            **{"sleep": self.sleep, **self.settings, **options},
        )


class ProxiedSocket(Proxied, Socket):
    """A session of which the proxy authenticates each turn."""


@pytest.fixture(params=[Proxied])
def way(request, proxy):
    return request.param


@pytest.fixture(params=[Proxied, ProxiedSocket])
def any_way(request, proxy):
    return request.param
