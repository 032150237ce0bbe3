"""A Realtime connection is metered turn by turn, whoever starts the turn."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.asked import ReadingLimits
from guardrail.http.meter import RealtimeMeter, Turn, TurnUsage
from tests.http.requests import KEY

USAGE = {
    "total_tokens": 49,
    "input_tokens": 9,
    "output_tokens": 40,
    "input_token_details": {"cached_tokens": 4},
}
DONE = {"type": "response.done", "response": {"status": "completed", "usage": USAGE}}
CREATED = {"type": "response.created", "response": {}}


def frame(event=None, **members):
    return json.dumps(event or members)


def create(**response):
    return frame(type="response.create", response=response)


def meter(**options):
    return RealtimeMeter(hash_key=KEY, model="r-1", **options)


def test_a_turn_is_asked_for_as_a_request_of_its_own():
    turn = meter().sent(create(max_output_tokens=50, tools=[{"type": "function", "name": "f"}]))

    assert turn.facts["request.model"] == "r-1"
    assert turn.facts["request.capability"] == "agentic"
    assert turn.facts["request.tools"] == 1
    assert turn.facts["request.endpoint"] == "/v1/realtime"
    assert turn.estimate["output_tokens"] == 50
    assert not turn.automatic


def test_a_session_sets_what_its_turns_do_not():
    open_turns = meter()
    session = {"max_output_tokens": 70, "instructions": "You are Ada.", "tools": [{"type": "mcp"}]}

    assert open_turns.sent(frame(type="session.update", session=session)) is None

    turn = open_turns.sent(frame(type="response.create"))
    assert (turn.estimate["output_tokens"], turn.facts["request.tools"]) == (70, 1)
    assert "request.template" in turn.facts
    assert open_turns.sent(create(max_output_tokens=50)).estimate["output_tokens"] == 50
    assert "output_tokens" not in open_turns.sent(create(max_output_tokens="inf")).estimate


def test_a_turn_ends_with_its_usage_and_context_grows_by_it():
    open_turns = meter()
    first = open_turns.sent(create())

    assert open_turns.received(frame(CREATED)) is None
    assert open_turns.received(frame(DONE)) == TurnUsage(
        {"input_tokens": 9, "output_tokens": 40, "cached_input_tokens": 4}
    )
    assert open_turns.cut() is None
    second = open_turns.sent(create())
    assert second.estimate["input_tokens"] == first.estimate["input_tokens"] + 49


def test_a_turn_that_the_host_starts_by_itself_is_told():
    open_turns = meter()
    open_turns.sent(create())

    assert open_turns.received(frame(CREATED)) is None
    automatic = open_turns.received(frame(CREATED).encode())

    assert isinstance(automatic, Turn)
    assert automatic.automatic
    assert automatic.facts["request.model"] == "r-1"


def test_what_the_client_adds_counts_as_input_of_later_turns():
    open_turns = meter()
    content = [{"type": "input_text", "text": "x" * 4_000}]
    before = open_turns.sent(create()).estimate["input_tokens"]

    open_turns.sent(frame(type="conversation.item.create", item={"content": content}))
    open_turns.sent(frame(type="input_audio_buffer.append", audio="A" * 409_600))

    grown = open_turns.sent(create()).estimate["input_tokens"] - before
    assert 1_100 <= grown < 1_150


def test_a_turn_cut_short_is_charged_for_what_streamed_within_its_cap():
    def cut(cap):
        open_turns = meter()
        open_turns.sent(create(**({"max_output_tokens": cap} if cap else {})))
        open_turns.received(frame(CREATED))
        for kind in ("response.output_text.delta", "response.output_audio.delta"):
            open_turns.received(frame(type=kind, delta="x" * 400))
        return open_turns.cut().usage["output_tokens"]

    assert cut(None) == 100
    assert cut(30) == 30
    assert meter().cut() is None


def test_a_turn_without_usage_is_charged_at_least_one_token():
    open_turns = meter()
    open_turns.sent(create())

    failed = open_turns.received(frame(type="response.done", response={"status": "failed"}))

    assert failed == TurnUsage({"output_tokens": 1}, failed=True)


def test_a_frame_that_cannot_be_read_counts_as_the_most_restricted_turn():
    limits = ReadingLimits(max_body=1_000)

    for text in (
        "no JSON",
        '{"type": "response.cancel", "type": "response.create"}',
        '{"type": "response.create", "response": {"max_output_tokens": 1.5}}',
        '{"type": "session.update", "session": {"max_output_tokens": -1}}',
        json.dumps({"type": "response.create", "x": "y" * 1_000}),
    ):
        turn = meter(limits=limits).sent(text)
        assert turn.problem
        assert turn.facts["request.capability"] == "agentic"
        assert turn.estimate["input_tokens"] > 0


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40) | st.text(max_size=40))))
def test_no_frame_raises(frames):
    open_turns = meter()

    for by_client, text in frames:
        (open_turns.sent if by_client else open_turns.received)(text)
    assert open_turns.cut() is None or open_turns.cut().usage["output_tokens"] >= 1
