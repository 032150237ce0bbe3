"""A body changes as obliged and in nothing else, and no cap is ever raised."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.http.parsing import RewriteError, rewritten, rewritten_path, with_stream_usage
from guardrail.http.parsing.members import CAPS, FLOORS, REASONING, TOOL_MEMBERS
from tests.http.requests import asked, body_of, form

CHAT, GEMINI = "/v1/chat/completions", "/v1beta/models/g:streamGenerateContent"
CAP = {"max_output_tokens": 100}
WITHIN = ("sampling_params", "generationConfig", "generation_config", "parameters", "options")
"""Members that hold caps of their own."""


def changed(path, body, obligations):
    text = rewritten(asked(path, body), obligations)
    return None if text is None else json.loads(text)


@pytest.mark.parametrize(
    ("path", "body", "after"),
    [
        (CHAT, {"max_tokens": 500}, {"max_tokens": 100}),
        (CHAT, {"max_tokens": 500, "max_completion_tokens": 50}, {"max_tokens": 100}),
        (CHAT, {}, {"max_completion_tokens": 100}),
        (CHAT, {"max_tokens": None}, {"max_completion_tokens": 100}),
        (CHAT, {"max_tokens": 500, "min_tokens": 300}, {"max_tokens": 100, "min_tokens": 100}),
        ("/v1/completions", {}, {"max_tokens": 100}),
        ("/v1/responses", {}, {"max_output_tokens": 100}),
        ("/v1/messages", {"max_tokens": 500}, {"max_tokens": 100}),
        (
            "/v1/messages",
            {"max_tokens": 9_000, "thinking": {"type": "enabled", "budget_tokens": 2_000}},
            {"max_tokens": 100, "thinking": ...},
        ),
        (GEMINI, {}, {"generationConfig": {"maxOutputTokens": 100}}),
        (
            GEMINI,
            {"generationConfig": {"temperature": 0.50, "maxOutputTokens": 500}},
            {"generationConfig": {"temperature": 0.50, "maxOutputTokens": 100}},
        ),
        ("/generate", {"text": "x"}, {"sampling_params": {"max_new_tokens": 100}}),
        (
            "/generate",
            {"sampling_params": [{"max_new_tokens": 500}, {"max_new_tokens": 5}]},
            {"sampling_params": [{"max_new_tokens": 100}, {"max_new_tokens": 5}]},
        ),
        ("/inference/v1/generate", {"x": 1}, {"sampling_params": {"max_tokens": 100}}),
        ("/api/chat", {"messages": []}, {"options": {"num_predict": 100}}),
        ("/v2/chat", {"messages": []}, {"max_tokens": 100}),
        ("/v1/interactions", {"input": "x"}, {"generation_config": {"max_output_tokens": 100}}),
        ("/model/m/converse", {"messages": []}, {"inferenceConfig": {"maxTokens": 100}}),
    ],
)
def test_caps_are_lowered_or_set_where_the_endpoint_reads_them(path, body, after):
    body = body if path == GEMINI else {"model": "m", **body}
    expected = {name: value for name, value in {**body, **after}.items() if value is not ...}

    assert changed(path, body, CAP) == expected


@pytest.mark.parametrize("body", [{"max_tokens": 100}, {"max_tokens": 7}])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_cap_that_is_low_enough_stays_and_so_does_the_body(path, body):
    assert rewritten(asked(path, {"model": "m", **body}), CAP) is None


@pytest.mark.parametrize("within", ["extraBody", "extra_body", "sampling_params", "options"])
def test_a_cap_in_settings_within_the_body_is_lowered_wherever_it_is_read(within):
    body = {"model": "a", "messages": [], "max_tokens": 10, within: {"max_tokens": 900}}

    after = changed("/v1/chat/completions", body, {"max_output_tokens": 50})

    assert after == {**body, within: {"max_tokens": 50}}


def test_a_thinking_budget_is_kept_below_the_cap():
    body = {"max_tokens": 9_000, "thinking": {"type": "enabled", "budget_tokens": 8_000}}

    after = changed("/v1/messages", body, {"max_output_tokens": 4_000})

    assert after["thinking"] == {"type": "enabled", "budget_tokens": 3_999}


def test_a_cap_of_zero_that_hosts_read_differently_is_not_passed_on():
    for body in ({"max_completion_tokens": 0}, {"max_completion_tokens": 0, "max_tokens": 0}):
        with pytest.raises(RewriteError):
            rewritten(asked(CHAT, {"model": "m", "messages": [], **body}), CAP)
    body = {"max_completion_tokens": 0, "max_tokens": 500}
    assert changed(CHAT, body, CAP) == {"max_completion_tokens": 0, "max_tokens": 100}
    assert rewritten(asked("/v1/messages", {"max_tokens": 0}), CAP) is None


def test_the_model_is_replaced_where_the_request_names_it():
    assert changed(CHAT, {"model": "m", "x": 1}, {"model": "s"}) == {"model": "s", "x": 1}
    assert changed(CHAT, {"x": 1}, {"model": "s"}) == {"x": 1, "model": "s"}
    assert rewritten(asked(CHAT, {"model": "m"}), {"model": "m"}) is None
    request = asked(GEMINI, {"contents": []})
    assert rewritten(request, {"model": "s"}) is None
    assert rewritten_path(request, {"model": "s"}) == "/v1beta/models/s:streamGenerateContent"
    assert rewritten_path(asked(CHAT, {"model": "m"}), {"model": "s"}) is None
    azure = asked("/openai/deployments/big/chat/completions", {"messages": []})
    assert rewritten_path(azure, {"model": "s"}) == "/openai/deployments/s/chat/completions"
    assert rewritten(azure, {"model": "s"}) is None


def test_what_is_disabled_is_taken_out():
    body = {
        "model": "m",
        "tools": [{"name": "f"}],
        "tool_choice": "auto",
        "mcp_servers": [],
        "container": {"id": "c", "skills": [1]},
        "reasoning_effort": "high",
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high", "format": {}},
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1,
    }

    def without(*disabled):
        return changed(CHAT, body, {"disable": disabled})

    gone = {"tools", "tool_choice", "mcp_servers"}
    assert without("tools") == {
        **{name: value for name, value in body.items() if name not in gone},
        "container": {"id": "c"},
    }
    quiet = without("reasoning")
    assert body.keys() - quiet.keys() == {"reasoning_effort", "thinking"}
    assert quiet["output_config"] == {"format": {}}
    plain = without("stream")
    assert (plain["stream"], "stream_options" in plain) == (False, False)
    for disabled in ("tools", "reasoning", "stream"):
        assert not any(
            asked(CHAT, without("tools", "reasoning", "stream")).facts[f"request.{disabled}"]
            for disabled in ("tools", "reasoning", "stream")
        )
    request = asked(GEMINI, {"contents": []})
    assert rewritten_path(request, {"disable": ("stream",)}) == "/v1beta/models/g:generateContent"


def test_a_model_in_a_path_of_bedrock_is_changed_and_its_stream_is_not():
    request = asked("/model/large-v1:0/converse-stream", {"messages": []})

    assert rewritten_path(request, {"model": "small"}) == "/model/small/converse-stream"
    with pytest.raises(RewriteError, match="its path asks for a stream"):
        rewritten_path(request, {"disable": ("stream",)})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/conversations", {"agent_id": "a", "inputs": "x"}),
        ("/v1/agents/completions", {"agent_id": "a", "messages": []}),
        ("/v1beta/interactions", {"agent": "deep-research", "input": "x"}),
    ],
)
def test_the_model_of_a_stored_agent_is_not_changed(path, body):
    with pytest.raises(RewriteError, match="the model of an agent is stored with the host"):
        changed(path, body, {"model": "small"})


@pytest.mark.parametrize("name", TOOL_MEMBERS)
@pytest.mark.parametrize("within", ["", "extra_body", "config"])
def test_whatever_is_read_as_tools_can_be_taken_out(name, within):
    tool = True if name == "enable_search" else [{"id": "web", "name": "f"}]
    body = {"model": "m", "messages": [], **({within: {name: tool}} if within else {name: tool})}
    assert asked(CHAT, body).facts["request.tools"] == 1

    left = changed(CHAT, body, {"disable": ("tools",)})

    assert left == {"model": "m", "messages": [], **({within: {}} if within else {})}


@pytest.mark.parametrize("name", REASONING)
@pytest.mark.parametrize("within", ["", "chat_template_kwargs", "generationConfig"])
def test_whatever_is_read_as_reasoning_can_be_taken_out(name, within):
    value = {"type": "enabled"} if "onfig" in name or name == "thinking" else "high"
    asks = {
        "enable_thinking": True,
        "reasoning": {"effort": "high"},
        "prompt_mode": "reasoning",
    }.get(name, value)
    body = {"model": "m", "messages": [], **({within: {name: asks}} if within else {name: asks})}
    assert asked(CHAT, body).facts["request.reasoning"] is True

    left = changed(CHAT, body, {"disable": ("reasoning",)})

    assert left == {"model": "m", "messages": [], **({within: {}} if within else {})}


def test_a_body_without_what_is_disabled_stays():
    every = {"disable": ("tools", "reasoning", "stream"), "x-note": "hello"}

    assert rewritten(asked(CHAT, {"model": "m", "messages": []}), every) is None
    assert rewritten(asked(CHAT, {"model": "m"}), {"x-note": "hello"}) is None
    assert rewritten(asked(CHAT, {"model": "m"}), {}) is None


PARAMS = {"model": "m", "max_tokens": 500, "messages": [], "tools": [{"name": "f"}]}
GENERATE: dict = {"contents": [], "generationConfig": {}, "tools": [{"googleSearch": {}}]}
STREAM = ("stream", "true")


@pytest.mark.parametrize("obligations", [{"model": "s"}, CAP, {"disable": ("tools",)}])
def test_a_body_that_cannot_be_changed_is_not_passed_on(obligations):
    line = b'{"body": {"model": "m", "max_tokens": 500, "messages": []}}'
    batch_headers, lines = form(("purpose", "batch"), ("file", line))
    unchangeable = [
        asked(CHAT, b"no JSON"),
        asked("/v1/files", lines, headers=batch_headers),
        asked("/v1/messages/batches", {"requests": [{"params": {"max_tokens": 500}}, 1]}),
        asked("/v1/batches", {"input_file_id": "f"}),
    ]

    for request in unchangeable:
        with pytest.raises(RewriteError):
            rewritten(request, obligations)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages/batches", {"requests": [{"custom_id": "a", "params": PARAMS}] * 2}),
        (
            "/v1beta/models/g:batchGenerateContent",
            {"batch": {"input_config": {"requests": {"requests": [{"request": GENERATE}]}}}},
        ),
    ],
)
def test_each_request_of_a_batch_is_changed(path, body):
    changed = body_of(rewritten(asked(path, body), {**CAP, "disable": ("tools",)}))
    after = json.loads(changed)

    found = after.get("requests") or after["batch"]["input_config"]["requests"]["requests"]
    for one in found:
        inner = one.get("params") or one["request"]
        assert "tools" not in inner
        assert inner.get("max_tokens", 100) == 100
        assert inner.get("generationConfig", {}).get("maxOutputTokens", 100) == 100
    assert len(found) == str(body).count("tools")
    assert rewritten(asked(path, json.loads(changed)), {**CAP, "disable": ("tools",)}) is None


def test_a_form_passes_unless_its_model_or_its_stream_would_have_to_change():
    def changed(obligations, *more):
        headers, body = form(("model", "whisper-1"), ("file", b"x"), *more)
        return rewritten(asked("/v1/audio/transcriptions", body, headers=headers), obligations)

    assert changed({**CAP, "disable": ("tools", "reasoning", "stream")}) is None
    for obligations, more in (({"model": "s"}, ()), ({"disable": ("stream",)}, [STREAM])):
        with pytest.raises(RewriteError):
            changed(obligations, *more)


def test_a_request_that_makes_no_model_speak_stays():
    every = {"model": "s", **CAP, "disable": ("tools", "reasoning", "stream")}

    for request in (
        asked("/v1/models", None, method="GET"),
        asked("/v1/threads", {"messages": []}),
        asked("/v1/messages/count_tokens", {"model": "m", "messages": []}),
    ):
        assert rewritten(request, every) is None
        assert rewritten_path(request, every) is None
    embedding = asked("/v1/embeddings", {"model": "m", "input": "x"})
    assert json.loads(body_of(rewritten(embedding, every))) == {"model": "s", "input": "x"}


def test_what_stays_is_copied_byte_for_byte():
    rest = rb'"a":1.50e+02,"b":{"z":1, "a" :"\u00e9\/"},"c":18446744073709551617,"d":[ ]'

    after = rewritten(asked(CHAT, b'{"model":"m",' + rest + b',"max_tokens":500}'), CAP)

    assert rest in body_of(after)


def test_stream_usage_is_asked_for_once_and_only_in_streams():
    def told(path, body):
        text = with_stream_usage(asked(path, body))
        return None if text is None else json.loads(text)

    streamed = {"model": "m", "messages": [], "stream": True}
    usage = {"include_usage": True}
    assert told(CHAT, streamed) == {**streamed, "stream_options": usage}
    options = {"include_obfuscation": False, "include_usage": False}
    assert told(CHAT, {**streamed, "stream_options": options})["stream_options"] == options | usage
    assert told(CHAT, {**streamed, "stream_options": None})["stream_options"] == usage
    assert told(CHAT, {**streamed, "stream_options": usage}) is None
    assert told(CHAT, {**streamed, "stream": False}) is None
    assert told("/v1/responses", {"input": "x", "stream": True}) is None
    assert told("/v1/messages", streamed) is None
    assert with_stream_usage(asked(CHAT, b"no JSON")) is None


def test_stream_usage_is_added_to_a_rewritten_body():
    request = asked(CHAT, {"model": "m", "messages": [], "stream": True})

    body = rewritten(request, {"model": "s"})
    assert json.loads(body_of(with_stream_usage(request, body)))["model"] == "s"
    quiet = rewritten(request, {"disable": ("stream",)})
    assert with_stream_usage(request, quiet) is None


numbers = st.integers(1, 2_000) | st.none()
members = st.dictionaries(st.sampled_from([*CAPS, *FLOORS]), numbers, max_size=3)
others = st.dictionaries(
    st.sampled_from(["messages", "temperature", "x", "tools", "stream_options"]),
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers()),
    max_size=3,
)
paths = st.sampled_from([CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/generate"])


@given(paths, members, st.dictionaries(st.sampled_from(WITHIN), members, max_size=2), others)
@settings(max_examples=400)
def test_no_cap_is_raised_and_the_rest_means_the_same(path, caps, within, rest):
    body = {"model": "m", "messages": [], **rest, **caps, **within}
    limit = 100

    after = changed(path, body, {"max_output_tokens": limit}) or body

    for before, now in [(body, after), *((body[name], after[name]) for name in within)]:
        for name in {*before, *now}:
            if name in CAPS or name in FLOORS:
                assert now[name] in (before.get(name), limit)
                assert now[name] is None or now[name] <= min(before.get(name) or limit, limit)
            elif name not in WITHIN:
                assert now[name] == before[name]
    estimate = asked(path, after).estimate
    assert estimate["output_tokens"] <= limit * estimate["requests"]
