"""What a decoded body asks for, read over the members of all vendors at once.

One reading serves every endpoint, so that a body cannot hide a cap, a tool or a prompt from it by
being sent to a path that is taken for another's. System prompts and tools are told as keyed
hashes, alike for what is built alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

import msgspec

from guardrail.http.parsing.caps import NO_CAPS, Counts, counts_of, likely_completions
from guardrail.http.parsing.endpoints import LONGEST_MODEL, PLAIN_NAME, CapRules, is_name
from guardrail.http.parsing.members import (
    ALSO_MODELS,
    DECIDING,
    MODELS,
    OTHER_MODELS,
    OUTPUT_CONFIG,
    REASONING,
    STORED,
    STORED_ANYWHERE,
    STORED_FILES,
    Members,
    capability_with,
    check_spelling,
    members_in,
    models_asked,
    strictest,
    tools_in,
)
from guardrail.http.parsing.values import UnreadableError
from guardrail.model.spellings import is_alike, stands_for_another

_MOST_DISTINCT = 256
CONTENT = tuple("messages message prompt input contents text input_ids inputs instances".split())
"""Members that hold what a model is to read."""

_USUAL = frozenset(
    "model messages system max_tokens max_completion_tokens n stream stream_options temperature "
    "top_p top_k stop stop_sequences seed user metadata frequency_penalty presence_penalty "
    "response_format".split()
)
"""What nearly all chats consist of: none of it hands over tools, or refers to what is stored."""
SYSTEM_ROLES = ("system", "developer")
"""Who says what a model is told before all else."""
_TALKS = tuple(
    "previous_response_id previous_interaction_id conversation conversation_id thread".split()
)
# Whether a response of a Realtime session is a part of that session's own conversation.
_NO_CONVERSATION = ("auto", "none")
_WORDS_AND_PICTURES = frozenset({"prompt_string", "multimodal_data"})
# What an answer cited is no input: it tells where its text came from.
_CITED = ("file_citation", "container_file_citation", "file_path")
_MODEL_MEMBERS = frozenset({*MODELS, *ALSO_MODELS, *OTHER_MODELS})
_OTHERS = frozenset(OTHER_MODELS)
_ALSO = frozenset(ALSO_MODELS)
_PRESET = "@preset/"  # OpenRouter's: what is stored under it may name the model
# Most bodies have none of these members: that is seen at once.
_ELSEWHERE = frozenset({*STORED, *STORED_FILES})
_PICTURING = frozenset(
    "imageGenerationConfig textToImageParams text_prompts videoGenerationConfig textToVideoParams "
    "aspect_ratio".split()
)  # what Bedrock's models that draw are told
_TELLING = _PICTURING | frozenset(
    "suffix prediction modalities responseModalities response_modalities".split()
)
_EFFORTS = ("reasoning_effort", "think", "thinking_level", "thinkingLevel")
_REASONING = frozenset({*REASONING, OUTPUT_CONFIG})
_BUDGETS = ("thinking_budget", "reasoning_budget")
_SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction")
_BUDGET = "thinking_budget"
_NO_EFFORT = (None, "none", "off", False)
_USUAL_MODE = (None, "standard")


class Shape(NamedTuple):
    """What a body asks for; `unseen` counts references to input that the host keeps.

    `opaque` tells that what the host keeps may hold tools and settings besides: that a body has
    none says nothing then. `others` tells that another model may answer than is named, wherever.
    """

    counts: Counts
    model: str | None
    tools: tuple[object, ...]
    capability: str
    stream: bool
    reasoning: bool
    system: tuple[str, ...]
    unseen: int
    opaque: bool
    others: bool

    def facts(self, hash_key: bytes) -> dict[str, object]:
        """Return the facts of a request with this body, but for its endpoint."""
        facts: dict[str, object] = {
            "request.capability": self.capability,
            "request.stream": self.stream,
        }
        if self.tools or not self.opaque:
            facts["request.tools"] = len(self.tools)
        if self.reasoning or not self.opaque:
            facts["request.reasoning"] = self.reasoning
        if self.model is not None:
            facts["request.model"] = self.model
        if self.system and (template := template_of(self.system, hash_key)) is not None:
            facts["request.template"] = template
        if self.tools and not self.opaque:
            facts["request.toolset"] = toolset_of(self.tools, hash_key)
        return facts


def shape_of(
    document: Mapping[str, object],
    capability: str,
    rules: CapRules = NO_CAPS,
    names: Collection[str] | None = None,
) -> Shape:
    """Read a body, given what kind of request its endpoint makes it and which caps that heeds.

    `names` are the keys within it, where they are known: see `members_in`.

    Raises:
        UnreadableError: a member that decides is not of its type, or there twice in two ways.
    """
    usual = names is not None and document.keys() <= _USUAL and DECIDING.isdisjoint(names)
    every = [Members("", document, True)] if usual else members_in(document, names)
    try:
        return _shape_of(document, every, capability, rules, usual=usual)
    except UnreadableError as error:
        error.completions = likely_completions(every)
        raise


def _shape_of(
    document: Mapping[str, object],
    every: Sequence[Members],
    capability: str,
    rules: CapRules,
    *,
    usual: bool,
) -> Shape:
    """Read the objects of a body; a `usual` one has a model, messages and caps."""
    tools: tuple[object, ...] = ()
    unseen, opaque, reasoning = 0, False, False
    if not usual:
        check_spelling(every)
        tools = tuple(tools_in(every))
        unseen, opaque = _unseen(every)
        reasoning = _reasons(every)
        if opaque and not _only_goes_on(every):
            # What is stored with the host may hold tools that are not seen here.
            capability = strictest(capability, "agentic")
        capability = capability_with(tools, strictest(capability, _by_members(every)))
    counts, (model, others) = counts_of(document, rules, every), _model(every)
    if any(not is_alike(name, model or "") for tool in tools for name in models_asked(tool)):
        # A rule about one of them has to see a request that makes it work beside another.
        model, others = None, True
    if model is not None and "," in model:
        # LiteLLM asks each of the models named so.
        counts, model = counts.times(model.count(",") + 1), None
    stream = _flag(document, "stream")
    system = tuple(_system_texts(document))
    return Shape(
        counts, model, tools, capability, stream, reasoning, system, unseen, opaque, others
    )


def merged(shapes: Iterable[Shape]) -> Shape | None:
    """Return the shape of several requests in one, None of none: sums, and the most restricted."""
    every = list(shapes)
    if not every:
        return None
    caps = [shape.counts.output_tokens for shape in every]
    counts = Counts(
        sum(shape.counts.completions for shape in every),
        None if None in caps else sum(cap for cap in caps if cap is not None),
    )
    models = {shape.model for shape in every}
    # Each is compared by its digest: to look for it among the others takes ever longer.
    tools: dict[bytes, object] = {}
    for tool in chain.from_iterable(shape.tools for shape in every):
        if len(tools) > _MOST_DISTINCT:
            break
        tools.setdefault(digest_of(tool), tool)
    return Shape(
        counts=counts,
        model=models.pop() if len(models) == 1 else None,
        tools=tuple(tools.values()),
        capability=strictest(*(shape.capability for shape in every)),
        stream=False,
        reasoning=any(shape.reasoning for shape in every),
        system=every[0].system,
        unseen=sum(shape.unseen for shape in every),
        opaque=any(shape.opaque for shape in every),
        others=any(shape.others for shape in every),
    )


def generates(document: Mapping[str, object]) -> bool:
    """Whether a body, wherever it is sent, looks like one that makes a model speak."""
    return "inputs" in document or (
        "model" in document and any(name in document for name in CONTENT)
    )


def _model(every: Sequence[Members]) -> tuple[str | None, bool]:
    """Return the model a body names, and whether others may answer; None then, or if none is."""
    found: str | None = None
    also: set[str] = set()
    others = False
    for _, members, settles in every:
        if not settles or _MODEL_MEMBERS.isdisjoint(members):
            continue
        for name in filter(members.__contains__, MODELS):
            model = members[name]
            if model is None or model == "":
                continue  # hosts take either for their own
            if not isinstance(model, str) or not (PLAIN_NAME.fullmatch(model) or is_name(model)):
                raise UnreadableError(
                    f"`{name}` is not a name; send up to {LONGEST_MODEL} characters that can be "
                    "printed, and no blanks around them",
                    param=name,
                )
            if found not in (None, model):
                raise UnreadableError("the body names two models; send one", param=name)
            found = model
        if not others and not _OTHERS.isdisjoint(members):
            others = any(members.get(name) for name in OTHER_MODELS)
        if not _ALSO.isdisjoint(members):
            named = (members.get(name) for name in ALSO_MODELS)
            also |= {name[: LONGEST_MODEL + 1] for name in named if isinstance(name, str) and name}
    if found is None and len(also) == 1:
        found = also.pop()
    stored = found is not None and (
        _PRESET in found or (":" in found and stands_for_another(found))
    )
    others = others or stored or not also <= {found} or len(found or "") > LONGEST_MODEL
    return (None if others else found), others


def names_models(document: object, *, batched: bool) -> bool:
    """Whether a body names a model at all, wherever hosts may look; `batched` in its requests."""
    if not isinstance(document, dict):
        return False
    return any(
        (settles or batched) and any(members.get(name) for name in _MODEL_MEMBERS)
        for _, members, settles in members_in(document)
    )


def _flag(document: Mapping[str, object], name: str) -> bool:
    value = document.get(name)
    if value is None or value.__class__ is bool:
        return value is True
    raise UnreadableError(f"`{name}` is neither true nor false; send one", param=name)


def _unseen(every: Sequence[Members]) -> tuple[int, bool]:
    """Return how often a body refers to what the host keeps, and whether that may hold tools."""
    count, opaque = 0, False
    for _, members, settles in every:
        if settles and _is_stored(members.get("prompt")):
            count, opaque = count + 1, True
        if _ELSEWHERE.isdisjoint(members):
            continue
        found = len(_referred(members, settles))
        count, opaque = count + found, opaque or found > 0
        if members.get("type") not in _CITED:
            count += sum(members.get(name) is not None for name in STORED_FILES)
    items = every[0].of.get("input") if every else None
    if isinstance(items, list) and any(_is_reference(item) for item in items):
        # Items of one conversation: together they are at most what an earlier response is.
        count += 1
    return count, opaque


def _is_stored(prompt: object) -> bool:
    """Whether a prompt is stored: llama.cpp has one of words beside pictures."""
    return isinstance(prompt, dict) and not prompt.keys() <= _WORDS_AND_PICTURES


def _referred(members: Mapping[str, object], settles: bool) -> list[str]:
    """Return the members that refer to something that is stored."""
    return [name for name in (STORED if settles else STORED_ANYWHERE) if _refers(members, name)]


def _refers(members: Mapping[str, object], name: str) -> bool:
    """Whether a member refers to something that is stored; a conversation may be of none."""
    value = members.get(name)
    if name == "thread":
        # One of an assistant's that is begun here has no type, and its messages are in it.
        return isinstance(value, dict) and value.get("type") not in (None, "create")
    return value is not None and not (name == "conversation" and value in _NO_CONVERSATION)


def _is_reference(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "item_reference"


def _only_goes_on(every: Sequence[Members]) -> bool:
    """Whether all that a body refers to is a conversation: tools are handed over anew in it."""
    return not any(
        (settles and _is_stored(members.get("prompt")))
        or not set(_TALKS).issuperset(_referred(members, settles))
        for _, members, settles in every
    )


def _by_members(every: Sequence[Members]) -> str:
    """Return what a body's own members make it: code is what fills in between two texts."""
    capability = "other"
    for _, members, settles in every:
        if not settles or _TELLING.isdisjoint(members):
            continue
        if members.get("suffix") is not None or members.get("prediction") is not None:
            return "code"
        if not _PICTURING.isdisjoint(members):
            capability = strictest(capability, "image")
        for name in ("modalities", "responseModalities", "response_modalities"):
            wanted = members.get(name)
            lowered = {str(kind).lower() for kind in wanted} if isinstance(wanted, list) else ()
            for kind in ("audio", "image"):
                if kind in lowered:
                    capability = strictest(capability, kind)
    return capability


def _reasons(every: Sequence[Members]) -> bool:
    """Whether a body asks for reasoning; a model may do so unasked."""
    return any(
        not _REASONING.isdisjoint(members) and _asks_to_reason(members, settles)
        for _, members, settles in every
    )


def _asks_to_reason(members: Mapping[str, object], settles: bool) -> bool:
    efforts: list[object] = [members.get(name) for name in _EFFORTS] if settles else []
    for name in ("reasoning", OUTPUT_CONFIG):
        inner = members.get(name)
        if isinstance(inner, dict):
            efforts.append(inner.get("effort"))
            if name == "reasoning" and (
                inner.get("enabled") is True
                or inner.get("max_tokens")
                or inner.get("mode") not in _USUAL_MODE
            ):
                return True
    if any(effort not in _NO_EFFORT for effort in efforts):
        return True
    thinking = members.get("thinking")
    for inner in (thinking, members.get("reasoning_config"), members.get("reasoningConfig")):
        if isinstance(inner, dict) and inner.get("type") != "disabled":
            return True
    for name in ("thinkingConfig", "thinking_config"):
        config = members.get(name)
        if isinstance(config, dict) and config.get("thinkingBudget", config.get(_BUDGET)) != 0:
            return True
    if settles and any(members.get(name) not in (None, False, 0) for name in _BUDGETS):
        return True
    if members.get("prompt_mode") == "reasoning":
        return True
    return members.get("enable_thinking") is True or thinking is True


def _system_texts(document: Mapping[str, object]) -> Iterator[str]:
    for name in filter(document.__contains__, _SYSTEM):
        yield from _texts(document[name])
    for name in ("messages", "input"):
        messages = document.get(name)
        if isinstance(messages, list) and messages and isinstance(messages[0], list):
            messages = messages[0]
        for message in messages if isinstance(messages, list) else []:
            if isinstance(message, dict) and message.get("role") in SYSTEM_ROLES:
                yield from _texts(message.get("content"))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from _texts(content.get("parts", content.get("text")))
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
            elif isinstance(part, str):
                yield part


HASHED_CHARACTERS = 32_768
"""How much of a system prompt is hashed: what follows may be padding, and time is bounded."""

HASHED_DESCRIPTIONS = 131_072
"""How much of the descriptions of all tools of a request is hashed, in characters."""

_SIZE = 16
_SHORTEST_DESCRIPTION = 64
_LONGEST_KEY = 64
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_NAMES = (
    r"(?:january|february|march|april|june|july|august|september|october|november|december|"
    rf"{_MONTHS}|sept|monday|tuesday|wednesday|thursday|friday|saturday|sunday|"
    r"mon|tue|wed|thu|fri|sat|sun|am|pm|utc|gmt)"
)
# A word with a digit in it is a number, a date or an id; names of days and months go with one.
# Each starts where a word starts, and each run is taken whole: both take linear time.
_WORD_WITH_DIGIT = re.compile(r"(?<![\w-])(?:[^\W\d]|-)*+\d[\w-]*+")
_PART = rf"(?:#|\b{_NAMES}\b)"
_RUN = re.compile(rf"{_PART}(?:[ .,:/+t-]{{1,3}}{_PART})*")
_SPACE = re.compile(r"\s+")
_VOLATILE = frozenset({"cache_control", "defer_loading", "headers", "authorization", "strict"})


def normalised(text: str) -> str:
    """Return a text with ids, numbers and dates as `#`, in one case, its spaces single."""
    text = _SPACE.sub(" ", text[:HASHED_CHARACTERS].casefold()).strip()
    text = _WORD_WITH_DIGIT.sub("#", text)
    return _RUN.sub(lambda run: "#" if "#" in run[0] else run[0], text)


def template_of(texts: Iterable[str], hash_key: bytes) -> str | None:
    """Return the hash of a system prompt, None if there is none."""
    joined = "\n".join(texts)
    if not joined:
        return None
    return _keyed(normalised(joined).encode("utf-8", "replace"), b"template", hash_key) or None


def toolset_of(tools: Sequence[object], hash_key: bytes) -> str | None:
    """Return the hash of the tools of a request, whatever their order, None if there are none.

    A function counts by its name, description and parameters, however its vendor wraps it.
    """
    if not tools:
        return None
    # Of many descriptions less of each is looked at: their sum is bounded, whatever their order.
    most = max(HASHED_DESCRIPTIONS // len(tools), _SHORTEST_DESCRIPTION)
    written = sorted(msgspec.json.encode(_essence(tool, most), order="sorted") for tool in tools)
    return _keyed(b"\n".join(written), b"toolset", hash_key) or None


def digest_of(tool: object) -> bytes:
    """Return a digest by which tools are told apart, however their members are ordered."""
    return blake2b(msgspec.json.encode(tool, order="sorted"), digest_size=_SIZE).digest()


def _essence(tool: object, most: int) -> object:
    if not isinstance(tool, dict):
        return tool
    inner = tool.get("function")
    function = inner if isinstance(inner, dict) else tool
    if "name" not in function:
        return {key: value for key, value in tool.items() if key not in _VOLATILE}
    described = function.get("description")
    schema = function.get("parameters", function.get("input_schema"))
    kind = tool.get("type")
    return {
        "type": None if kind in {"function", "custom"} else kind,
        "name": function.get("name"),
        "description": normalised(described[:most]) if isinstance(described, str) else None,
        "schema": schema,
    }


def _keyed(data: bytes, purpose: bytes, key: bytes) -> str:
    if not data:
        return ""
    if len(key) > _LONGEST_KEY:
        key = blake2b(key).digest()
    return blake2b(data, key=key, person=purpose, digest_size=_SIZE).hexdigest()
