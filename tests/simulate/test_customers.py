"""What customers do when they are refused, and how much of several requests is served."""

from __future__ import annotations

from random import Random

import pytest

from guardrail.simulate.customers import Ask, Hourly, split, trusted
from guardrail.simulate.population import DAY, ENDED, START
from tests.simulate.worlds import OPEN, TRIAL, World

DAILY = """\
  - id: daily
    when: always
    budget: {requests: 10, per: day, key: account.id}
"""
PACED = """\
  - id: pace
    when: always
    rate: {requests: 2/minute, key: account.id}
"""
BARRED = "  - {id: barred, when: {request.capability: code}, block: {reason: closed}}\n"


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11, 25, 400])
def test_of_many_requests_as_many_are_served_as_one_by_one(size):
    world = World(DAILY, segment="production")

    world.deliver(START, size=size, span=3600.0)

    assert world.account.served == min(10, size)
    assert world.account.refused == size - world.account.served


def test_requests_of_an_hour_are_served_at_the_pace_that_is_allowed():
    world = World(PACED, segment="production")

    world.deliver(START, size=100, span=3600.0)

    assert world.account.served == 100


def test_more_than_an_hour_allows_is_not_served_in_it():
    world = World(PACED, segment="production")

    world.deliver(START, size=600, span=3600.0)

    assert 120 <= world.account.served <= 140
    assert world.account.served + world.account.refused == 600


def test_a_retry_comes_after_the_wait_that_was_told():
    world = World(PACED.replace("2/minute", "1/minute"))

    world.deliver(START)
    world.deliver(START + 10)

    assert world.account.served == 2
    assert world.account.throttled == 1


def test_the_third_refusal_in_a_row_is_the_last():
    world = World(PACED.replace("2/minute", "1/minute"), segment="production")
    for _ in range(8):
        world.put_back(START, _ask(world))
    world.account.asked = 8

    world.run()

    assert world.account.served == 3
    assert world.account.refused == 5


def _ask(world):
    return Ask(world.account, "code", 1, 0.0, 100, 10, 10)


def test_who_is_asked_for_an_id_shows_it_and_goes_on():
    world = World(TRIAL)
    world.deliver(START, size=20)
    world.deliver(START + 60)

    assert world.account.stepped
    assert world.account.refused == 1

    world.deliver(START + 120)
    assert world.account.held == 1

    world.deliver(START + 2 * 3600)
    assert world.account.tier == "verified"
    assert world.account.served == 21
    assert world.account.facts["account.verified_at"] == START + 2 * 3600


def test_chat_goes_on_while_an_id_is_looked_at():
    world = World(TRIAL)
    world.deliver(START, size=21)
    world.deliver(START + 60, capability="chat")

    assert world.account.served == 21


def test_a_program_goes_on_sending():
    world = World(TRIAL, segment="production")
    world.deliver(START, size=21)
    world.deliver(START + 60, size=3)

    assert world.account.held == 0
    assert world.account.refused == 4


def test_who_cannot_show_an_id_leaves_if_that_is_what_he_came_for():
    world = World(TRIAL)
    world.account.verifies_in, world.account.sensitive = ENDED, 0.9
    world.deliver(START, size=21)
    world.deliver(START + DAY, capability="chat")

    assert world.account.gone
    assert world.account.held == 1


def test_who_came_to_chat_stays_without_an_id():
    world = World(TRIAL)
    world.account.verifies_in, world.account.sensitive = ENDED, 0.05
    world.deliver(START, size=21)
    world.deliver(START + DAY, capability="chat")
    world.deliver(START + DAY, capability="code")

    assert not world.account.gone
    assert world.account.served == 21
    assert world.account.held == 1


def test_who_is_shut_out_for_days_goes_away():
    world = World(BARRED)
    world.account.answers = 0.1
    for day in range(5):
        world.deliver(START + day * DAY)

    assert world.account.gone
    assert world.account.blocked == 4
    assert world.account.held == 1


def test_what_was_used_is_paid_for():
    world = World(OPEN)
    account = world.account
    account.paid_since, account.paid, account.reload = START - DAY, 100.0, 20.0
    world.deliver(START, tokens_in=10_000_000, tokens_out=0)

    assert account.paid == pytest.approx(130.0)
    assert account.cached == {}


def test_a_first_payment_clears_when_it_is_due():
    world = World(OPEN)
    account = world.account
    account.paid_since, account.paid, account.reload = None, 0.0, 25.0
    account.pays_after = DAY + 600
    world.deliver(START + 60)
    assert account.paid == 0.0

    world.deliver(START + 601)
    assert account.paid == 25.0
    assert account.paid_since == pytest.approx(START + 600)


PREPAID = """\
  - id: prepaid
    when: always
    budget:
      requests: {by: account.paid_usd, bands: {0: 3, 100: 50}, else: 3}
      per: 7d
      key: account.id
    over: {throttle: {reason: prepaid, remedy: pay}}
"""


def test_a_customer_who_pays_pays_in_advance_when_he_is_asked_to():
    world = World(PREPAID)
    account = world.account
    account.pays_after, account.paid_since, account.paid = 0.0, START - DAY, 20.0
    account.reload, account.answers = 20.0, 0.5
    world.deliver(START, size=10)

    assert account.paid == 120.0
    assert account.served == 10
    assert account.refused == 0
    assert account.asked_to_pay
    assert not account.stepped


@pytest.mark.parametrize(("ahead", "paid", "stepped"), [(800.0, 120.0, False), (801.0, 20.0, True)])
def test_a_customer_who_has_paid_far_ahead_shows_an_id_instead(ahead, paid, stepped):
    world = World(PREPAID)
    account = world.account
    account.pays_after, account.paid_since, account.paid = 0.0, START - DAY, 20.0
    account.reload, account.answers, account.spent = 20.0, 0.5, -ahead
    world.deliver(START, size=10)

    assert (account.paid, account.stepped, account.asked_to_pay) == (paid, stepped, True)


@pytest.mark.parametrize(("answers", "paying"), [(0.9, True), (0.5, False)])
def test_others_go_without(answers, paying):
    world = World(PREPAID, segment="production")
    account = world.account
    account.pays_after, account.paid_since = (0.0, START - DAY) if paying else (ENDED, None)
    account.paid, account.answers = 0.0, answers
    world.deliver(START, size=10)

    assert account.served == 3
    assert account.refused == 7
    assert account.asked_to_pay
    assert not account.stepped


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_parts_of_an_ask_add_up_to_it(count):
    ask = _ask(World(OPEN))._replace(size=7, span=70.0, tokens_in=700, tokens_out=71)
    first, rest = split(ask, count)

    assert (first.size, rest.size) == (count, 7 - count)
    assert first.tokens_in == 100 * count
    assert first.tokens_in + rest.tokens_in == 700
    assert first.tokens_out + rest.tokens_out == 71
    assert first.span == pytest.approx(10.0 * count)
    assert first.span + rest.span == pytest.approx(70.0)


def test_an_account_is_trusted_when_its_id_has_been_known_for_two_months():
    world = World(OPEN)
    account = world.account
    account.created = START - 300 * DAY
    assert not trusted(account, START + 70 * DAY)
    world.population.verify(account, START)
    assert not trusted(account, START + 59 * DAY)
    assert trusted(account, START + 60 * DAY)


@pytest.mark.parametrize("volume", [1, 30, 49, 5000])
def test_a_days_volume_is_spread_whole(volume):
    spread = Hourly().spread(Random(1), 5.0, 0, volume)

    assert sum(spread.values()) == volume
    assert set(spread) <= set(range(24))
    if volume == 5000:
        assert max(spread, key=spread.__getitem__) == 14
        assert max(spread.values()) / min(spread.values()) == pytest.approx(5, rel=0.1)


def test_the_busiest_hour_moves_with_the_place():
    spread = Hourly().spread(Random(1), 5.0, 9, 50_000)

    assert max(spread, key=spread.__getitem__) == 5
