"""What tools, reasoning and system prompts make of a request, and what hashes alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.parsing import read_request
from guardrail.http.parsing.shape import normalised
from tests.http.requests import JSON, KEY, asked

CHAT, GEMINI = "/v1/chat/completions", "/v1beta/models/g:generateContent"
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

# Members of a body, tools in it, capability.
TOOLS = [
    ({}, 0, "chat"),
    ({"tools": []}, 0, "chat"),
    ({"tools": None}, 0, "chat"),
    ({"tools": [FUNCTION, FUNCTION]}, 2, "agentic"),
    ({"functions": [{"name": "f"}]}, 1, "agentic"),
    ({"tools": [{"type": "custom", "name": "f"}]}, 1, "agentic"),
    ({"tools": [{"name": "f", "input_schema": {}}]}, 1, "agentic"),
    ({"tools": [FUNCTION], "tool_choice": "none"}, 1, "agentic"),
    ({"tools": [{"type": "mcp", "server_url": "x"}]}, 1, "agentic"),
    ({"mcp_servers": [{"type": "url", "url": "x"}]}, 1, "agentic"),
    ({"tools": [{"type": "computer_20251124"}, {"type": "bash_20250124"}]}, 2, "agentic"),
    ({"tools": [{"type": "code_execution_20260521"}]}, 1, "agentic"),
    ({"tools": [{"type": "code_interpreter"}]}, 1, "agentic"),
    ({"tools": [{"type": "text_editor_20250728"}]}, 1, "agentic"),
    ({"tools": [{"type": "local_shell"}, {"type": "apply_patch"}]}, 2, "agentic"),
    ({"container": {"skills": [{"skill_id": "pptx"}]}}, 1, "agentic"),
    ({"tools": [{"type": "web_search"}]}, 1, "chat"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 1, "chat"),
    ({"tools": [{"type": "web_search_29991231"}]}, 1, "chat"),
    ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, 1, "chat"),
    ({"tools": [{"type": "file_search"}]}, 1, "chat"),
    ({"web_search_options": {}}, 1, "chat"),
    ({"tools": [{"type": "image_generation"}]}, 1, "image"),
    ({"tools": [{"type": "web_search"}, FUNCTION]}, 2, "agentic"),
    ({"tools": [{"type": "web_search_agent"}]}, 1, "agentic"),
    ({"tools": [{"type": "web_search_2025"}]}, 1, "agentic"),
    ({"tools": [{"type": "brand_new_20300101"}]}, 1, "agentic"),
    ({"tools": [{"type": 7}]}, 1, "agentic"),
    ({"tools": ["f", None, 7]}, 3, "agentic"),
    ({"tools": [{}]}, 1, "agentic"),
    ({"tools": [{}, {}, []]}, 3, "agentic"),
    ({"tools": "f"}, 1, "agentic"),
    ({"tools": {"name": "f"}}, 1, "agentic"),
    ({"session": {"tools": [FUNCTION]}}, 1, "agentic"),
    ({"multi_agent": {"enabled": True, "max_concurrent_subagents": 8}}, 1, "agentic"),
    ({"multi_agent": {"max_concurrent_subagents": 8}}, 1, "agentic"),
    ({"extra_body": {"multi_agent": True}}, 1, "agentic"),
    ({"multi_agent": {"enabled": False}}, 0, "chat"),
    ({"multi_agent": None}, 0, "chat"),
    ({"compound_custom": {"tools": {"enabled_tools": ["code_interpreter"]}}}, 1, "agentic"),
    ({"modalities": ["text", "audio"]}, 0, "audio"),
    ({"prediction": {"type": "content", "content": "x"}}, 0, "code"),
]
GEMINI_TOOLS = [
    ([{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}], 2, "agentic"),
    ([{"googleSearch": {}}], 1, "chat"),
    ([{"urlContext": {}, "codeExecution": {}}], 2, "agentic"),
    ([{"computerUse": {}}], 1, "agentic"),
    ([{"brandNew": {}}], 1, "agentic"),
    ([{"parallelAiSearch": {}}, {"exaAiSearch": {}}], 2, "chat"),
]
INLINE_TOOLS = [
    ({"type": "tool_definition", "definition": {"name": "f", "input_schema": {}}}, 1, "agentic"),
    ({"type": "tool_definition", "definition": {"type": "mcp_toolset"}}, 1, "agentic"),
    ({"type": "tool_definition", "definition": {"type": "web_search_20260209"}}, 1, "chat"),
    ({"type": "tool_definition", "definition": "f"}, 1, "agentic"),
    ({"type": "tool_reference", "name": "f"}, 0, "chat"),
    ({"type": "glossary", "definition": {"name": "f"}}, 0, "chat"),
]


@pytest.mark.parametrize(("members", "count", "capability"), TOOLS)
def test_tools_that_act_make_a_request_agentic_and_unknown_ones_too(members, count, capability):
    facts = asked(CHAT, {"model": "m", "messages": [], **members}).facts

    assert (facts["request.tools"], facts["request.capability"]) == (count, capability)


@pytest.mark.parametrize(("tools", "count", "capability"), GEMINI_TOOLS)
def test_tools_of_gemini_are_told_by_the_member_they_stand_in(tools, count, capability):
    facts = asked(GEMINI, {"contents": [], "tools": tools}).facts

    assert (facts["request.tools"], facts["request.capability"]) == (count, capability)


@pytest.mark.parametrize(("tool", "count", "capability"), INLINE_TOOLS)
def test_tools_may_be_defined_in_the_course_of_a_conversation(tool, count, capability):
    message = {"role": "system", "content": [{"type": "tool_addition", "tool": tool}]}

    facts = asked("/v1/messages", {"model": "m", "max_tokens": 5, "messages": [message]}).facts

    assert (facts["request.tools"], facts["request.capability"]) == (count, capability)


def test_pictures_asked_for_make_a_request_one_for_images():
    settings = {"responseModalities": ["TEXT", "IMAGE"]}

    facts = asked(GEMINI, {"contents": [], "generationConfig": settings}).facts

    assert facts["request.capability"] == "image"


@pytest.mark.parametrize(
    ("members", "reasoning"),
    [
        ({}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": None}, False),
        ({"reasoning": {"effort": "low"}}, True),
        ({"reasoning": {"summary": "auto"}}, False),
        ({"reasoning": {"mode": "pro"}}, True),
        ({"reasoning": {"mode": "standard"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"output_config": {"effort": "high"}}, True),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 9}}}, True),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"think": True}, True),
        ({"generation_config": {"thinking_level": "high"}}, True),
    ],
)
def test_reasoning_is_what_a_body_asks_for(members, reasoning):
    assert asked(CHAT, {"messages": [], **members}).facts["request.reasoning"] is reasoning


@pytest.mark.parametrize(("members", "streams"), [({}, True), ({"stream": False}, False)])
def test_ollama_streams_unless_it_is_told_not_to(members, streams):
    for path, content in (("/api/chat", {"messages": []}), ("/api/generate", {"prompt": "x"})):
        facts = asked(path, {"model": "m", **content, **members}).facts
        assert facts["request.stream"] is streams


@pytest.mark.parametrize(("stream", "expected"), [(True, True), (False, False), (None, False)])
def test_a_stream_is_asked_for_by_true(stream, expected):
    assert asked(CHAT, {"messages": [], "stream": stream}).streams is expected
    assert asked("/v1beta/models/g:streamGenerateContent", {"contents": []}).streams


@pytest.mark.parametrize("stream", [1, "true", 0, [], 1.0])
def test_a_stream_that_is_neither_true_nor_false_is_a_problem(stream):
    assert asked(CHAT, {"messages": [], "stream": stream}).param == "stream"


@pytest.mark.parametrize("model", [7, " ", "m" * 257, ["m"], True, {"a": 1}])
def test_a_model_that_is_no_name_is_a_problem(model):
    assert asked(CHAT, {"messages": [], "model": model}).param == "model"


SYSTEM = "You are Ada, agent 4711 of run 8f14e45f-ceea, on Monday, March 3, 2026 at 10:15 AM."
AGAIN = "You are Ada,  agent 12 of run 00aa-ff1,\non Friday, 28 November 2025 at 9:05 pm."


def template(path, body, key=KEY):
    return asked_with(path, body, key).facts.get("request.template")


def asked_with(path, body, key):
    request = asked(path, body)
    return read_request("POST", path, b"", JSON, request.body, hash_key=key)


def test_system_prompts_that_differ_in_ids_numbers_and_dates_hash_alike():
    one, two = ({"messages": [{"role": "system", "content": text}]} for text in (SYSTEM, AGAIN))

    assert template(CHAT, one) == template(CHAT, two)
    other = {"messages": [{"role": "system", "content": SYSTEM.replace("Ada", "Bob")}]}
    assert template(CHAT, other) != template(CHAT, one)
    assert template(CHAT, one, b"another key") != template(CHAT, one)
    assert template(CHAT, one, b"k" * 200) != template(CHAT, one, b"k" * 201)
    assert template(CHAT, {"messages": [{"role": "user", "content": SYSTEM}]}) is None


def test_a_system_prompt_is_found_wherever_its_vendor_puts_it():
    parts = [{"type": "text", "text": SYSTEM}]
    bodies = [
        (CHAT, {"messages": [{"role": "system", "content": SYSTEM}]}),
        (CHAT, {"messages": [{"role": "developer", "content": parts}]}),
        (CHAT, {"messages": [[{"role": "system", "content": SYSTEM}]]}),
        ("/v1/responses", {"instructions": SYSTEM, "input": "x"}),
        ("/v1/responses", {"input": [{"role": "developer", "content": SYSTEM}]}),
        ("/v1/messages", {"system": SYSTEM, "messages": []}),
        ("/v1/messages", {"system": parts, "messages": []}),
        (GEMINI, {"systemInstruction": {"parts": [{"text": SYSTEM}]}}),
        (GEMINI, {"system_instruction": {"parts": {"text": SYSTEM}}}),
    ]

    assert len({template(path, body) for path, body in bodies}) == 1


@given(st.text(max_size=300))
def test_normalising_is_stable_and_leaves_no_digit(text):
    once = normalised(text)

    assert normalised(once) == once
    assert not any(character in "0123456789" for character in once)


def toolset(tools, path=CHAT, **more):
    return asked(path, {"messages": [], "tools": tools, **more}).facts.get("request.toolset")


def test_toolsets_hash_alike_in_any_order_and_any_wrapping():
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    turned = {"properties": {"b": {"type": "integer"}, "a": {"type": "string"}}, "type": "object"}

    def wrapped(name, schema, day):
        described = {"name": name, "description": f"as of 2026-01-0{day}", "parameters": schema}
        return {"type": "function", "function": described}

    one = [wrapped("f", schema, 1), wrapped("g", schema, 2)]
    two = [wrapped("g", turned, 3), wrapped("f", turned, 4)]
    flat = [{"type": "function", **tool["function"]} for tool in one]
    anthropic = [
        {
            "name": tool["function"]["name"],
            "description": tool["function"]["description"],
            "input_schema": schema,
            "cache_control": {"type": "ephemeral"},
        }
        for tool in one
    ]

    assert toolset(one) == toolset(two) == toolset(flat, "/v1/responses")
    assert toolset(one) == toolset(anthropic, "/v1/messages")
    assert toolset(one) != toolset(one[:1])
    assert toolset(one) != toolset([wrapped("h", schema, 1), wrapped("g", schema, 2)])
    assert toolset([]) is None
