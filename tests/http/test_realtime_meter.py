"""A Realtime connection is metered turn by turn, whoever starts the turn."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.metering import Turn, TurnUsage
from guardrail.http.parsing import ReadingLimits, RewriteError
from tests.http.following import Followed, frame

USAGE = {
    "total_tokens": 49,
    "input_tokens": 9,
    "output_tokens": 40,
    "input_token_details": {"cached_tokens": 4},
}
TOLD = {"input_tokens": 9, "output_tokens": 40, "cached_input_tokens": 4}
TOOL = {"type": "function", "name": "f"}
TRANSCRIBED = "conversation.item.input_audio_transcription."


def create(**response):
    return frame(type="response.create", response=response)


def created(name=None):
    return frame(type="response.created", response={} if name is None else {"id": name})


def done(name=None, usage=USAGE, **more):
    named = {} if name is None else {"id": name}
    return frame(type="response.done", response={**named, "usage": usage, **more})


def meter(**options):
    return Followed(model="r-1", **options)


def told(turn, *names):
    return [turn.facts.get(f"request.{name}") for name in names]


def test_a_frame_that_is_not_understood_is_measured_as_text_or_as_media():
    unknown = Followed("/socket").meter

    assert unknown.read("x" * 4000).tokens == unknown.read("é" * 2000).tokens
    assert unknown.read("x" * 4000).tokens > 10 * unknown.read(b"x" * 4000).tokens > 10


def test_a_turn_is_asked_for_as_a_request_of_its_own():
    turn = meter().asked(create(max_output_tokens=50, tools=[TOOL]))

    assert told(turn, "model", "capability", "tools") == ["r-1", "agentic", 1]
    assert turn.facts["request.endpoint"] == "/v1/realtime"
    assert turn.estimate["output_tokens"] == 50
    assert not turn.automatic


def test_a_session_sets_what_its_turns_do_not():
    followed = meter()
    session = {"max_output_tokens": 70, "instructions": "You are Ada.", "tools": [{"type": "mcp"}]}

    assert followed.sent(frame(type="session.update", session=session)) == []

    turn = followed.asked(frame(type="response.create"))
    assert (turn.estimate["output_tokens"], told(turn, "tools")) == (70, [1])
    assert "request.template" in turn.facts
    assert followed.asked(create(max_output_tokens=50)).estimate["output_tokens"] == 50
    endless = followed.asked(create(max_output_tokens="inf"))
    assert (endless.problem, "output_tokens" in endless.estimate) == (None, False)
    assert told(followed.asked(create(tools=[])), "tools") == [0]


def test_a_change_of_the_session_that_its_host_did_not_confirm_takes_no_tool_away():
    followed = meter()
    followed.received(frame(type="session.created", session={"tools": [TOOL], "model": "r-1"}))
    followed.sent(frame(type="session.update", event_id="u", session={"tools": []}))
    assert told(followed.asked(create()), "tools") == [1]

    followed.received(frame(type="error", error={"event_id": "u", "code": "invalid"}))
    assert told(followed.asked(create()), "tools") == [1]
    followed.sent(frame(type="session.update", session={"tools": []}))
    followed.received(frame(type="session.updated", session={"tools": []}))
    assert told(followed.asked(create()), "tools", "capability") == [0, "audio"]


def test_a_model_that_the_client_claims_for_its_session_is_not_believed():
    followed = meter()

    followed.sent(frame(type="session.update", session={"model": "r-2"}))
    assert told(followed.asked(create()), "model") == [None]
    followed.received(frame(type="session.updated", session={"model": "r-2"}))
    assert told(followed.asked(create()), "model") == ["r-2"]
    named = Followed()
    named.sent(frame(type="session.update", model="v"))
    assert told(named.asked(create()), "model") == ["v"]


def test_a_model_that_its_host_confirmed_without_naming_it_stays_unknown():
    followed = meter()
    followed.received(frame(type="session.created", session={"model": "r-1"}))
    followed.sent(frame(type="session.update", session={"model": "r-2"}))

    followed.received(frame(type="session.updated", session={"tools": []}))
    assert told(followed.asked(create()), "model") == [None]
    followed.received(frame(type="session.updated", session={"model": "r-1"}))
    assert told(followed.asked(create()), "model") == ["r-1"]


def test_a_model_that_its_host_refuses_for_a_session_is_not_in_doubt():
    followed = meter()
    followed.sent(frame(type="session.update", session={"model": "r-2", "tools": [TOOL]}))

    followed.received(frame(type="error", error={"code": "x", "param": "session.tools"}))
    assert told(followed.asked(create()), "model") == [None]
    followed.received(frame(type="error", error={"code": "x", "param": "session.model"}))
    assert told(followed.asked(create()), "model", "tools") == ["r-1", 0]


def test_a_change_that_its_host_refuses_by_name_is_no_longer_in_doubt():
    followed = meter()
    for name, model in (("u", "r-2"), ("v", "r-1")):
        followed.sent(frame(type="session.update", event_id=name, session={"model": model}))
    assert told(followed.asked(create()), "model") == [None]

    followed.received(frame(type="error", error={"event_id": "u", "code": "invalid"}))
    assert told(followed.asked(create()), "model") == ["r-1"]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "additional_tools", "tools": [TOOL]},
        {"type": "mcp_list_tools", "tools": [TOOL]},
        {"type": "message", "content": [{"type": "input_text", "text": "x", "tools": [TOOL]}]},
        {"type": "message", "mcp_servers": [{"url": "https://x"}]},
    ],
)
def test_tools_that_an_item_of_the_conversation_hands_over_count_from_then_on(item):
    followed = meter()
    assert told(followed.asked(create()), "tools") == [0]

    followed.sent(frame(type="conversation.item.create", item=item))

    for text in (create(), create(tools=[])):
        turn, read = followed.asked(text), followed.meter.read(text)
        assert told(turn, "tools", "capability") == [1, "agentic"]
        with pytest.raises(RewriteError):
            followed.meter.changed(read, turn, {"disable": ("tools",)})


def test_tools_among_the_input_of_a_response_are_taken_out():
    followed = meter()
    text = create(input=[{"type": "additional_tools", "tools": [TOOL]}, {"type": "message"}])
    turn = followed.asked(text)

    left = followed.meter.changed(followed.meter.read(text), turn, {"disable": ("tools",)})

    assert json.loads(left)["response"]["input"] == [{"type": "message"}]


@pytest.mark.parametrize("options", [{"ephemeral": True}, {"query": b"call_id=rtc_1"}])
def test_what_a_session_was_set_up_with_elsewhere_is_unknown_until_its_host_tells(options):
    followed = Followed(**options)
    turn = followed.asked(create())
    assert told(turn, "tools", "reasoning", "capability") == [None, None, "agentic"]

    followed.received(frame(type="session.created", session={"tools": []}))
    assert told(followed.asked(create()), "tools", "capability") == [0, "audio"]


@pytest.mark.parametrize(
    "frames",
    [
        [create(prompt={"id": "p"})],
        [frame(type="session.update", session={"prompt": {"id": "p"}}), create()],
        [create(prompt={"id": "p"}, tools=[])],
    ],
)
def test_a_stored_prompt_may_hold_any_tool(frames):
    followed = meter()
    *before, last = frames
    for text in before:
        followed.sent(text)

    assert told(followed.asked(last), "tools", "capability") == [None, "agentic"]


def test_a_frame_that_asks_for_no_response_is_no_turn_and_one_unknown_is_a_restricted_one():
    followed = Followed("/v1/responses")

    for kind in ("response.steer", "response.cancel"):
        assert followed.sent(frame(type=kind, input="x", tools=[])) == []
    unknown = followed.asked(frame(type="never.heard.of", input="x", tools=[]))
    assert (unknown.brief, told(unknown, "tools", "capability")) == (True, [None, "agentic"])
    asked = followed.asked(frame(type="response.create", input="x", tools=[]))
    assert (asked.brief, told(asked, "tools", "capability")) == (False, [0, "chat"])


def test_a_response_that_follows_another_reserves_what_was_said_before():
    follows = frame(type="response.create", input="x", previous_response_id="r1")
    before = Followed("/v1/responses").asked(follows)
    followed = Followed("/v1/responses")
    followed.asked(frame(type="response.create", input="x"))
    followed.received(frame(type="response.completed", response={"id": "r1", "usage": USAGE}))

    told = followed.asked(follows).estimate["input_tokens"]
    assert told == before.estimate["input_tokens"] + 49


def test_a_response_that_the_host_goes_on_with_has_the_settings_of_the_one_before():
    followed = Followed("/v1/responses")
    followed.asked(frame(type="response.create", model="small", input="x", tools=[TOOL]))
    followed.received(frame(type="response.created", response={"id": "r1"}))
    followed.received(frame(type="response.completed", response={"id": "r1", "usage": USAGE}))

    (turn,) = followed.received(frame(type="response.created", response={"id": "r2"}))
    assert (turn.automatic, told(turn, "model", "tools")) == (True, ["small", 1])


def test_a_turn_ends_with_its_usage_and_context_grows_by_it():
    followed = meter()
    first = followed.asked(create())

    assert followed.received(created()) == []
    assert followed.used(done()) == (first.number, TOLD)
    assert followed.cut() == {}
    second = followed.asked(create())
    assert second.estimate["input_tokens"] == first.estimate["input_tokens"] + 49


def test_turns_side_by_side_are_told_apart_by_their_ids():
    followed = meter()
    caps = [10, 20, 30]
    turns = [followed.asked(create(conversation="none", max_output_tokens=c)) for c in caps]
    for name in "abc":
        assert followed.received(created(name)) == []
    delta = {"type": "response.output_text.delta", "delta": "x" * 400}
    followed.received(frame({**delta, "response_id": "a"}))
    followed.received(frame({**delta, "response_id": "c"}))

    assert followed.used(done("b"))[0] == turns[1].number
    cut = followed.cut()
    assert {number: used["output_tokens"] for number, used in cut.items()} == {
        turns[0].number: 10,
        turns[2].number: 30,
    }


def test_a_turn_that_the_host_starts_by_itself_is_told():
    followed = meter()
    followed.asked(create())

    assert followed.received(created("a")) == []
    (automatic,) = followed.received(created("b").encode())
    assert automatic.automatic
    assert told(automatic, "model") == ["r-1"]
    assert json.loads(followed.meter.cancel(automatic)) == {
        "type": "response.cancel",
        "response_id": "b",
    }
    assert followed.used(done("b"))[0] == automatic.number


def test_usage_that_is_told_of_no_turn_is_a_turn_of_its_own():
    (turn, used) = meter().received(done("a"))

    assert (turn.automatic, used.number, used.usage) == (True, turn.number, TOLD)


def test_what_the_client_adds_counts_as_input_of_later_turns_and_sound_is_no_text():
    followed = meter()
    content = [{"type": "input_text", "text": "x" * 4_000}]
    before = followed.asked(create()).estimate["input_tokens"]

    followed.sent(frame(type="conversation.item.create", item={"content": content}))
    followed.sent(frame(type="input_audio_buffer.append", audio="A" * 409_600))
    sound = [{"type": "input_audio", "audio": "A" * 409_600}]
    followed.sent(frame(type="conversation.item.create", item={"content": sound}))

    grown = followed.asked(create()).estimate["input_tokens"] - before
    assert 1_200 <= grown < 1_300


@pytest.mark.parametrize(
    ("kind", "most"), [("audio/pcm", 20), ("image/jpeg", 20), ("text/plain", 9_000)]
)
@pytest.mark.parametrize("name", ["audio", "mediaChunks"])
def test_text_that_comes_as_sound_to_the_live_api_is_text(kind, most, name):
    followed = Followed("/ws/g.v1beta.GenerativeService.BidiGenerateContent")
    blob = {"mimeType": kind, "data": "A" * 32_000}
    followed.sent(frame(setup={"model": "models/g"}))
    followed.sent(frame(realtimeInput={name: [blob] if name == "mediaChunks" else blob}))

    turn = followed.asked(frame(clientContent={"turns": [], "turnComplete": True}))

    assert most * 0.8 < turn.estimate["input_tokens"] < most + 30


def test_a_turn_cut_short_is_charged_for_what_streamed_within_its_cap():
    def cut(cap):
        followed = meter()
        followed.asked(create(**({"max_output_tokens": cap} if cap else {})))
        followed.received(created())
        for kind in ("response.output_text.delta", "response.output_audio.delta"):
            followed.received(frame(type=kind, delta="x" * 400))
        (used,) = followed.cut().values()
        return used["output_tokens"]

    assert cut(None) == 100
    assert cut(30) == 30
    assert meter().cut() == {}


def test_sound_of_a_turn_cut_short_is_charged_a_token_a_piece():
    followed = meter()
    turn = followed.asked(create())
    followed.received(created("a"))
    for _ in range(7):
        delta = {"type": "response.output_audio.delta", "delta": "AAAA" * 100, "response_id": "a"}
        followed.received(frame(delta))

    assert followed.cut()[turn.number]["output_tokens"] == 7


def test_a_turn_without_usage_is_charged_at_least_one_token():
    followed = meter()
    turn = followed.asked(create())

    (failed,) = followed.received(frame(type="response.done", response={"status": "failed"}))

    assert (failed.number, failed.usage, failed.failed) == (turn.number, {"output_tokens": 1}, True)


def test_a_nothing_that_is_told_for_what_passed_is_not_believed():
    followed = meter()
    followed.asked(create())
    followed.received(created("a"))
    followed.received(frame(type="response.output_text.delta", response_id="a", delta="x" * 400))

    usage = {"input_tokens": 3, "output_tokens": 0}
    assert followed.used(done("a", usage))[1] == {"input_tokens": 3, "output_tokens": 100}


def test_less_than_surely_passed_and_an_input_of_nothing_are_not_believed():
    followed = meter()
    followed.asked(create())
    followed.received(created("a"))
    for _ in range(40):
        delta = {"type": "response.output_text.delta", "delta": "word ", "response_id": "a"}
        followed.received(frame(delta))

    told = {"input_tokens": 0, "output_tokens": 1}
    assert followed.used(done("a", told))[1] == {"output_tokens": 40}


def test_seconds_of_sound_and_pictures_that_a_turn_tells_are_fed():
    followed = transcribing("query")
    followed.asked(COMMIT)
    usage = {"type": "duration", "seconds": 2.5}
    (heard,) = followed.received(frame(type=f"{TRANSCRIBED}completed", item_id="i", usage=usage))
    drawing = Followed("/v1/responses")
    drawing.asked(frame(type="response.create", model="m", input="x"))
    output = [{"type": "image_generation_call", "result": "iVBOR"}]
    response = {"id": "r", "output": output, "usage": {"input_tokens": 1, "output_tokens": 2}}
    (drawn,) = drawing.received(frame(type="response.completed", response=response))

    assert heard.fed == {"audio_seconds": 3, "images": 0}
    assert drawn.fed == {"audio_seconds": 0, "images": 1}


def test_a_turn_is_charged_what_its_tools_used():
    drawing = Followed("/v1/responses")
    drawing.asked(frame(type="response.create", model="m", input="x"))
    tools = {"image_gen": {"input_tokens": 5, "output_tokens": 70}, "web_search": {"n": 1}}
    response = {"id": "r", "usage": {"input_tokens": 1, "output_tokens": 2}, "tool_usage": tools}
    drawn = drawing.used(frame(type="response.completed", response=response))

    assert drawn[1] == {"input_tokens": 6, "output_tokens": 72}


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        ({"type": "invalid_request_error", "event_id": "evt-2"}, 1),
        ({"type": "invalid_request_error", "code": "conversation_already_has_active_response"}, 0),
        ({"type": "invalid_request_error", "event_id": "another"}, None),
        ({"type": "invalid_request_error", "code": "item_not_found"}, None),
    ],
)
def test_an_error_ends_the_turn_that_it_is_about(error, ends):
    followed = meter()
    turns = [
        followed.asked(frame(type="response.create", event_id=f"evt-{number}")) for number in (1, 2)
    ]

    ended = followed.received(frame(type="error", error=error))
    nothing = {"input_tokens": 0, "output_tokens": 0}
    told = [(one.number, one.usage, one.failed) for one in ended]
    assert told == ([] if ends is None else [(turns[ends].number, nothing, False)])


TRANSCRIPTS = {"type": "tokens", "input_tokens": 30, "output_tokens": 8, "total_tokens": 38}
COMMIT = frame(type="input_audio_buffer.commit")


def transcribing(way):
    if way == "query":
        return Followed(query=b"intent=transcription")
    followed = Followed()
    if way == "host":
        session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "t"}}}}
        followed.received(frame(type="session.created", session=session))
    elif way == "beta":
        session = {"input_audio_transcription": {"model": "t"}}
        followed.sent(frame(type="transcription_session.update", session=session))
    elif way == "update":
        session = {"audio": {"input": {"transcription": {"model": "t"}}}}
        followed.sent(frame(type="session.update", session=session))
    return followed


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"transcription": {"model": "t"}}}},
        {"input_audio_transcription": {"model": "t"}},
    ],
)
def test_a_session_that_heard_only_transcribes_once_that_is_asked_for(session, confirmed):
    followed = Followed()
    followed.received(frame(type="session.created", session={"type": "realtime"}))
    assert followed.sent(COMMIT) == []

    followed.sent(frame(type="session.update", session=session))
    if confirmed:
        followed.received(frame(type="session.updated", session=session))
    assert told(followed.asked(COMMIT), "capability") == ["audio"]


@pytest.mark.parametrize("way", ["query", "host", "beta", "update", "unknown"])
def test_sound_that_is_committed_to_be_transcribed_is_a_turn(way):
    followed = transcribing(way)
    turn = followed.asked(COMMIT)
    assert told(turn, "capability", "tools") == ["audio", 0]
    assert told(turn, "model") == (["t"] if way == "host" else [None])

    assert followed.received(frame(type="input_audio_buffer.committed", item_id="i")) == []
    completed = frame(type=f"{TRANSCRIBED}completed", item_id="i", usage=TRANSCRIPTS)
    assert followed.used(completed) == (turn.number, {"input_tokens": 30, "output_tokens": 8})


def test_what_a_host_hears_by_itself_is_a_turn_where_it_transcribes():
    followed = transcribing("query")
    (turn,) = followed.received(frame(type="input_audio_buffer.committed", item_id="i"))
    assert (turn.automatic, followed.meter.cancel(turn)) == (True, None)
    failed = frame(type=f"{TRANSCRIBED}failed", item_id="i", error={})
    (used,) = followed.received(failed)
    assert (used.number, used.failed) == (turn.number, True)

    talking = meter()
    talking.received(frame(type="session.created", session={"type": "realtime", "tools": []}))
    assert talking.received(frame(type="input_audio_buffer.committed", item_id="i")) == []
    assert talking.sent(COMMIT) == []


def test_transcripts_side_by_side_are_told_apart_by_their_items():
    followed = transcribing("query")
    started = []
    for item in "ij":
        started += followed.received(frame(type="input_audio_buffer.committed", item_id=item))
    delta = frame(type=f"{TRANSCRIBED}delta", item_id="j", delta="x y " * 100)
    followed.received(delta)

    first, second = (turn.number for turn in started)
    cut = followed.cut()
    assert cut[second]["output_tokens"] >= 100 > cut[first]["output_tokens"]


def test_a_transcription_that_nobody_announced_is_charged_by_what_it_tells():
    completed = frame(type=f"{TRANSCRIBED}completed", item_id="i", usage=TRANSCRIPTS)
    turn, used = meter().received(completed)

    assert isinstance(turn, Turn)
    assert used.usage == {"input_tokens": 30, "output_tokens": 8}


def test_a_vllm_session_is_one_turn_from_its_first_commit_to_its_last():
    followed = Followed()
    followed.received(frame(type="session.created", id="s", created=1))
    followed.sent(frame(type="session.update", model="voxtral"))
    turn = followed.asked(COMMIT)
    assert told(turn, "model") == ["voxtral"]
    assert followed.sent(frame(type="input_audio_buffer.commit", final=True)) == []
    followed.received(frame(type="transcription.delta", delta="hello"))
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}

    said = frame(type="transcription.done", text="hello", usage=usage)
    assert followed.used(said) == (turn.number, {"input_tokens": 12, "output_tokens": 5})


@pytest.mark.parametrize("text", ['{"type": "speak"}', "{}", "[]", '{"type": 5}', "7"])
def test_a_frame_of_a_kind_that_is_not_known_counts_as_the_most_restricted_turn(text):
    turn = meter().asked(text)

    assert (turn.brief, told(turn, "capability", "tools")) == (True, ["agentic", None])


def test_a_frame_that_cannot_be_read_counts_as_the_most_restricted_turn():
    for text in (
        "no JSON",
        b"\x00\xff",
        "[" * 50_000,
        '{"type": "response.cancel", "type": "response.create"}',
        '{"type": "response.create", "response": {"max_output_tokens": 1.5}}',
        '{"type": "response.create", "response": [], "event_id": "e"}',
        '{"type": "response.create", "tools": [{"type": "function"}], "response": {}}',
        '{"type": "session.update", "session": {"max_output_tokens": -1}}',
        json.dumps({"type": "response.create", "x": "y" * 60_000}),
    ):
        turn = meter(limits=ReadingLimits(max_body=55_000)).asked(text)
        assert turn.problem
        assert turn.facts["request.capability"] == "agentic"
        assert turn.estimate["input_tokens"] > 0


def test_changes_of_a_session_that_no_host_confirms_are_bounded():
    followed = meter()
    update = frame(type="session.update", session={"tools": [TOOL]})

    problems = [followed.sent(update) for _ in range(100)]

    assert problems[0] == []
    assert problems[-1][0].problem
    assert told(followed.asked(create()), "tools") == [1]


kinds = st.sampled_from(
    "response.create response.created response.done session.update session.created error "
    "input_audio_buffer.commit input_audio_buffer.committed transcription.done "
    f"{TRANSCRIBED}completed response.output_text.delta".split()
)
values = st.none() | st.integers(-5, 99) | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
inner = st.dictionaries(
    st.sampled_from("id tools model usage event_id max_output_tokens prompt audio".split()), values
)
shaped = st.builds(
    lambda kind, rest: json.dumps({"type": kind, **rest}),
    kinds,
    st.dictionaries(
        st.sampled_from("response session error item_id delta usage".split()), values | inner
    ),
)
paths = st.sampled_from(["/v1/realtime", "/v1/responses", "/ws/x.BidiGenerateContent", "/ws"])


@given(
    paths,
    st.lists(st.tuples(st.booleans(), st.binary(max_size=40) | st.text(max_size=40) | shaped)),
)
def test_no_frame_raises_and_each_turn_ends_once(path, frames):
    followed = Followed(path)
    started, ended = {0} if path == "/ws" else set(), []

    for by_client, text in frames:
        for event in (followed.sent if by_client else followed.received)(text):
            if isinstance(event, TurnUsage):
                ended.append(event.number)
            elif event.problem is None and not event.brief:
                started.add(event.number)
    ended += followed.cut()
    assert sorted(ended) == sorted(started)
