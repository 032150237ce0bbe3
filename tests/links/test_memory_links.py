"""What links take in a process's memory."""

from __future__ import annotations

from guardrail.links import MemoryLinks
from guardrail.links.evidence import Evidence
from guardrail.links.forest import EXEMPT, STRANGER, is_account
from guardrail.links.linking import MOST_LINKS
from tests.links.histories import LINKS
from tests.links.test_actors import DAY, MONDAY, guard_for, shown, together, used


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


def test_an_exempt_account_is_told_to_act_alone_once_and_again_when_others_join() -> None:
    guard = guard_for()
    links = guard._context.links
    assert isinstance(links, MemoryLinks)
    guard.decide(shown("a", card="c"), now=MONDAY)
    versions = set()
    for number in range(5):
        # Its card is not shown: the link by it lasts until it expires.
        assert used(guard, shown("a", org="acme"), MONDAY + 3600 * number) == 2 + number
        versions.add(links.marks.version)
    assert len(versions) == 1

    # What is settled of it goes to the counter of its own, also after others' have met that.
    guard.decide(shown("b", card="c"), now=MONDAY + 5 * 3600)
    decision = guard.decide(shown("a", org="acme"), now=MONDAY + 6 * 3600)
    guard.settle(decision, {"requests": 11}, now=MONDAY + 6 * 3600)
    assert used(guard, shown("a", org="acme"), MONDAY + 7 * 3600) == 18

    guard.decide(shown("z"), now=MONDAY + 400 * DAY)
    assert len(links) == 0
    assert not links._state.handles


def test_a_linked_account_is_noted_as_exempt_for_as_long_as_it_is() -> None:
    guard = guard_for()
    links = guard._context.links
    assert isinstance(links, MemoryLinks)
    forest = links._linking.forest
    member, alone = shown("a", card="c"), shown("a", org="acme")
    kinds = []
    for number, facts in enumerate((member, alone, member, alone, member)):
        guard.decide(facts, now=MONDAY + 20 * number)
        kinds.append(forest.kind[forest.index[links.evidence.account("a")]])
    assert kinds == [STRANGER, EXEMPT, STRANGER, EXEMPT, STRANGER]


def test_however_many_kinds_of_evidence_there_were_none_is_taken_for_an_account() -> None:
    kinds: list[tuple[str, ...]] = [(f"x.fact{number}",) for number in range(400)]
    evidence = Evidence(LINKS, b"secret", kinds)
    showing = evidence.sighting({"account.id": "a", "payment.fingerprint": "c"}, 0.0)
    assert showing is not None
    (card,) = showing.strong
    assert not is_account(card.kind)
