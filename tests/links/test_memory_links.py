"""What links take in a process's memory."""

from __future__ import annotations

from guardrail.links import MemoryLinks
from guardrail.links.linking import MOST_LINKS
from tests.links.test_actors import DAY, MONDAY, guard_for, shown, together


def test_one_account_cannot_make_links_grow_by_showing_ever_new_values() -> None:
    guard = guard_for(limit=100_000)
    for number in range(3_000):
        facts = shown("a", network="n", device="d", template=f"t{number}", toolset=f"s{number}")
        guard.decide(facts, now=MONDAY + number)
    links = guard._context.links
    assert isinstance(links, MemoryLinks)
    assert len(links) <= MOST_LINKS + 6
    # What it shared before still ties it.
    assert together(guard, shown("a", network="n", device="d"), shown("b", network="n", device="d"))


def test_nothing_is_kept_of_accounts_whose_links_have_expired() -> None:
    guard = guard_for()
    for number in range(200):
        guard.decide(shown(f"a{number}", card=f"c{number // 2}"), now=MONDAY)
    for number in range(300):
        guard.decide(shown(f"b{number}"), now=MONDAY + 200 * DAY)
    links = guard._context.links
    assert isinstance(links, MemoryLinks)
    assert len(links) == 0
    assert not links._state.handles
