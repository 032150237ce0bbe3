"""Policies that change while they are served: whole, or not at all and loudly."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from guardrail.asgi import GuardrailMiddleware
from guardrail.http.identity.directory_file import written as named
from guardrail.http.settings.reload import LONGEST_PAUSE, Reloading
from guardrail.testing import MovableClock
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.accounts import HASH_KEY, Accounts
from tests.http.driving import JSON, Call, Host, ask, body_messages, completion, scope_of
from tests.http.wsgi_driving import Hosted, answering
from tests.signals.conftest import write_database

__all__ = ["write_database"]

POLICY = """
guardrail: 1
policy: changing
rules:
  - {id: calls, when: always, budget: {requests: AMOUNT, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 5, key: account.id}}
"""
BLOCKS = "  - {id: closed, when: always, block: {reason: closed}}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "policies").mkdir()
    written(tmp_path, 2)
    return tmp_path


def written(folder, amount, more=""):
    text = POLICY.replace("AMOUNT", str(amount)) + more
    (folder / "policies" / "p.yaml").write_text(text)


def options(folder, **more):
    return {
        "policies": folder / "policies",
        "clock": MovableClock(),
        "environ": {},
        "hash_key": HASH_KEY,
        "directory": Accounts(),
        "store": "memory://",
        **more,
    }


def asgi(folder, host=None, **more):
    return GuardrailMiddleware(
        host or Host([completion()], headers=JSON), **options(folder, **more)
    )


def statuses(app, times=1):
    return [ask(app).status for _ in range(times)]


def test_a_reload_takes_effect_and_keeps_what_was_counted(folder):
    app = asgi(folder)
    assert statuses(app, 3) == [200, 200, 429]
    before = app.door.guard.policies.revision
    written(folder, 3)
    found = asyncio.run(app.reload())

    assert (found.loaded, found.failed, found.problem) == (1, 0, None)
    assert found.revision == app.door.guard.policies.revision != before
    assert statuses(app, 2) == [200, 429]


def test_a_model_is_known_however_it_is_spelled_by_the_policies_in_force(folder):
    app = asgi(folder)
    body = json.dumps({"model": "Large-1", "messages": []}).encode()
    assert ask(app, body).status == 200
    closed = "  - {id: m, when: {request.model: large-1}, block: {}}\nmodels: {large-1: {}}\n"
    written(folder, 99, closed)
    asyncio.run(app.reload())

    assert ask(app, body).status == 403
    written(folder, 99)
    asyncio.run(app.reload())
    assert ask(app, body).status == 200


@pytest.mark.parametrize("broken", ["rulez: []", "guardrail: 1\npolicy: p\nrules: [", "\x00"])
def test_a_broken_file_keeps_the_old_revision_and_raises_an_alarm(folder, broken, caplog):
    app = asgi(folder)
    before = app.door.guard.policies.revision
    (folder / "policies" / "second.yaml").write_text(broken)
    found = asyncio.run(app.reload())

    assert (found.loaded, found.failed, found.revision) == (0, 1, before)
    assert found.problem is not None
    assert "second.yaml" in found.problem
    assert app.door.guard.policies.revision == before
    assert statuses(app) == [200]
    assert 'guardrail_policy_reloads_total{result="failed"} 1\n' in app.metrics()
    assert "guardrail_policy_stale 1\n" in app.metrics()
    assert [r.levelname for r in caplog.records if "not reloaded" in r.message] == ["ERROR"]
    (folder / "policies" / "second.yaml").unlink()
    written(folder, 9)
    asyncio.run(app.reload())
    assert "guardrail_policy_stale 0\n" in app.metrics()


def test_a_request_under_way_is_settled_by_the_policies_that_decided_it(folder):
    async def host(scope, receive, send):
        written(folder, 9, BLOCKS)
        await app.reload()
        await Host([completion()], headers=JSON)(scope, receive, send)

    app = asgi(folder, host)

    async def run():
        first = await Call(scope_of(body=BODY), body_messages(BODY)).run(app)
        second = await Call(scope_of(body=BODY), body_messages(BODY)).run(app)
        decision = await app.door.guard.decide({"account.id": "acct-a"}, {"requests": 0})
        return first.status, second.status, decision.limits

    assert asyncio.run(run())[:2] == (200, 403)
    written(folder, 9)
    asyncio.run(app.reload())
    decision = asyncio.run(app.door.guard.decide({"account.id": "acct-a"}, {"requests": 0}))
    used = {limit.rule: limit.used for limit in decision.limits}
    assert used == {"calls": 1, "places": 1}


PEOPLE = f"""\
guardrail_directory: 1
accounts:
  - {{credential: {named("sk-1", HASH_KEY)}, account.id: acct-a}}
"""
BODY = b'{"model": "small", "messages": []}'


def test_the_first_request_after_an_edit_that_is_due_for_a_look_is_decided_by_it(folder):
    app = asgi(folder, reload=1)
    assert statuses(app) == [200]
    written(folder, 90, BLOCKS)
    assert statuses(app) == [200]
    app.door.clock.advance(20)

    assert statuses(app) == [403]


def test_requests_that_come_while_changed_policies_are_loaded_wait_for_them(folder):
    app = asgi(folder, reload=1)
    assert statuses(app) == [200]
    written(folder, 90, BLOCKS)
    app.door.clock.advance(20)

    async def run():
        calls = [Call(scope_of(body=BODY), body_messages(BODY)) for _ in range(8)]
        return [call.status for call in await asyncio.gather(*(call.run(app) for call in calls))]

    assert asyncio.run(run()) == [403] * 8


def test_files_that_go_on_changing_are_left_for_the_next_look(folder, monkeypatch):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        written(folder, 100 + len(pauses))

    found = Reloading([folder / "policies"], 1, pause)
    before = found.policies
    written(folder, 7)
    taken: list[object] = []
    found.look(taken.append)

    assert taken == []
    assert found.policies is before
    assert sum(pauses) == pytest.approx(LONGEST_PAUSE)
    found._pause = lambda seconds: None
    found.look(taken.append)
    assert len(taken) == 1


def test_files_are_looked_at_now_and_then_and_taken_once_they_rest(folder, caplog):
    caplog.set_level(logging.INFO)
    written(folder, 90)
    given = options(folder, reload=10)
    app = WsgiMiddleware(answering([completion()]), **given)
    hosted = Hosted(answering([]))
    hosted.app = app
    revisions = []
    for step in range(5):
        if step == 1:
            written(folder, 91)
        given["clock"].advance(9 if step == 0 else 10)
        assert hosted.ask()[0] == 200
        revisions.append(app.door.guard.policies.revision)

    assert len(set(revisions[1:])) == 1
    assert revisions[0] != revisions[-1]
    assert caplog.text.count("are in force") == 1
    app.close()


def test_without_the_setting_no_file_is_looked_at(folder):
    app = asgi(folder)
    written(folder, 9, BLOCKS)
    for _ in range(2):
        app.door.clock.advance(3600)
        assert statuses(app) == [200]


def test_other_facts_than_those_a_directory_was_opened_for_need_a_new_start(folder, tmp_path):
    (tmp_path / "people.yaml").write_text(PEOPLE)
    app = asgi(folder, directory=tmp_path / "people.yaml")
    written(folder, 9, "facts: {account.seats: {type: integer, source: server}}\n")

    found = asyncio.run(app.reload())
    assert found.failed == 1
    assert "other facts" in str(found.problem)


GEO = "  - {id: away, when: {geo.country: KP}, unknown: skip, block: {}}\n"
ASKER = {"account.id": "a", "client.ip": "192.0.9.1"}


@pytest.mark.parametrize("named", ["setting", "environment"])
def test_a_geo_database_that_was_replaced_is_looked_at_with_the_policies(
    folder, write_database, caplog, named
):
    written(folder, 100, GEO)
    place = write_database({"192.0.8.0/21": {"country": {"iso_code": "DE"}}})
    clock = MovableClock()
    given = {"geo": place} if named == "setting" else {"environ": {"GUARDRAIL_GEO": str(place)}}
    app = WsgiMiddleware(answering([]), **options(folder, clock=clock, reload=1, **given))
    hosted = Hosted(answering([]))
    hosted.app = app
    assert hosted.ask()[0] == 200
    assert app.door.guard.decide(ASKER).allowed

    moved = write_database({"192.0.8.0/21": {"country": {"iso_code": "KP"}}}, name="new.mmdb")
    moved.rename(place)
    clock.advance(2)
    hosted.ask()
    assert app.door.guard.decide(ASKER).rule == "away"

    (folder / "broken").write_bytes(b"no database")
    (folder / "broken").rename(place)
    clock.advance(2)
    hosted.ask()
    assert app.door.guard.decide(ASKER).rule == "away"
    assert "were not reloaded" in caplog.text
    assert "test.mmdb" in caplog.text
