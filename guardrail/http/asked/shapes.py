"""What a decoded body asks for, read over the members of all vendors at once.

One reading serves every endpoint, so that a body cannot hide a cap, a tool or a prompt from it by
being sent to a path that is taken for another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from guardrail.http.asked.caps import NO_CAPS, CapRules
from guardrail.http.asked.counts import Counts, counts_of
from guardrail.http.asked.fingerprints import digest_of, template_of, toolset_of
from guardrail.http.asked.tools import capability_with, may_have_tools, strictest, tools_in
from guardrail.http.asked.values import UnreadableError

_MOST_DISTINCT = 256
LONGEST_MODEL = 256
"""The longest name of a model that is believed, in characters."""
CONTENT = ("messages", "prompt", "input", "contents", "text", "input_ids", "inputs", "instances")
"""Members that hold what a model is to read."""

_MODELS = ("model", "modelId", "model_name")
_SYSTEM_ROLES = ("system", "developer")
# Most bodies have none of these members: that is seen at once.
_ELSEWHERE = frozenset(
    "previous_response_id conversation cachedContent cached_content assistant_id thread_id file_id "
    "input_file_id".split()
)
_TELLING = frozenset("suffix prediction modalities generationConfig generation_config".split())
_REASONING = frozenset(
    "reasoning_effort think reasoning output_config thinking generationConfig generation_config "
    "chat_template_kwargs".split()
)
_SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction")
_NO_EFFORT = (None, "none", "off", False)


class Shape(NamedTuple):
    """What a body asks for; `unseen` counts references to input that the host keeps."""

    counts: Counts
    model: str | None
    tools: tuple[object, ...]
    capability: str
    stream: bool
    reasoning: bool
    system: tuple[str, ...]
    unseen: int

    def facts(self, hash_key: bytes) -> dict[str, object]:
        """Return the facts of a request with this body, but for its endpoint."""
        facts: dict[str, object] = {
            "request.capability": self.capability,
            "request.tools": len(self.tools),
            "request.stream": self.stream,
            "request.reasoning": self.reasoning,
            "request.model": self.model,
            "request.template": template_of(self.system, hash_key),
            "request.toolset": toolset_of(self.tools, hash_key),
        }
        for name in ("request.model", "request.template", "request.toolset"):
            if facts[name] is None:
                del facts[name]
        return facts


def shape_of(document: Mapping[str, object], capability: str, rules: CapRules = NO_CAPS) -> Shape:
    """Read a body, given what kind of request its endpoint makes it and which caps that heeds.

    Raises:
        UnreadableError: a member that decides is not of its type.
    """
    tools = tuple(tools_in(document)) if may_have_tools(document) else ()
    session = document.get("session")
    if isinstance(session, dict):
        tools += tuple(tools_in(session))
    stored = isinstance(document.get("prompt"), dict)
    if stored or document.get("assistant_id") is not None:
        # What is stored with the host may hold tools that are not seen here.
        capability = strictest(capability, "agentic")
    capability = capability_with(tools, strictest(capability, _by_members(document)))
    return Shape(
        counts=counts_of(document, rules),
        model=_model(document),
        tools=tools,
        capability=capability,
        stream=_flag(document, "stream"),
        reasoning=_reasons(document),
        system=tuple(_system_texts(document)),
        unseen=_unseen(document) + stored,
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
    )


def generates(document: Mapping[str, object]) -> bool:
    """Whether a body, wherever it is sent, looks like one that makes a model speak."""
    return "model" in document and any(name in document for name in CONTENT)


def _model(document: Mapping[str, object]) -> str | None:
    session = document.get("session")
    for members in (document, session) if isinstance(session, dict) else (document,):
        for name in _MODELS:
            model = members.get(name)
            if model is None:
                continue
            if not isinstance(model, str) or not 0 < len(model) <= LONGEST_MODEL:
                raise UnreadableError(
                    f"`{name}` is not a name; send up to {LONGEST_MODEL} characters", param=name
                )
            return model
    return None


def _flag(document: Mapping[str, object], name: str) -> bool:
    value = document.get(name)
    if value is None or value.__class__ is bool:
        return value is True
    raise UnreadableError(f"`{name}` is neither true nor false; send one", param=name)


def _unseen(document: Mapping[str, object]) -> int:
    if _ELSEWHERE.isdisjoint(document):
        return 0
    return sum(document.get(name) is not None for name in _ELSEWHERE)


def _by_members(document: Mapping[str, object]) -> str:
    """Return what a body's own members make it: code is what fills in between two texts."""
    if _TELLING.isdisjoint(document):
        return "other"
    if document.get("suffix") is not None or document.get("prediction") is not None:
        return "code"
    wanted = document.get("modalities")
    settings = document.get("generationConfig", document.get("generation_config"))
    if isinstance(settings, dict):
        wanted = settings.get("responseModalities", settings.get("response_modalities"))
    if isinstance(wanted, list):
        lowered = {str(kind).lower() for kind in wanted[:16]}
        if "image" in lowered:
            return "image"
        if "audio" in lowered:
            return "audio"
    return "other"


def _reasons(document: Mapping[str, object]) -> bool:
    """Whether a body asks for reasoning; a model may do so unasked."""
    if _REASONING.isdisjoint(document):
        return False
    efforts = [document.get("reasoning_effort"), document.get("think")]
    for name in ("reasoning", "output_config"):
        inner = document.get(name)
        if isinstance(inner, dict):
            efforts.append(inner.get("effort"))
    if any(effort not in _NO_EFFORT for effort in efforts):
        return True
    thinking = document.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        return True
    settings = document.get("generationConfig", document.get("generation_config"))
    if isinstance(settings, dict):
        config = settings.get("thinkingConfig", settings.get("thinking_config"))
        if isinstance(config, dict) and config.get("thinkingBudget") != 0:
            return True
    template = document.get("chat_template_kwargs")
    return isinstance(template, dict) and (
        template.get("enable_thinking") is True or template.get("thinking") is True
    )


def _system_texts(document: Mapping[str, object]) -> Iterator[str]:
    for name in _SYSTEM:
        if name in document:
            yield from _texts(document[name])
    for name in ("messages", "input"):
        messages = document.get(name)
        if isinstance(messages, list) and messages and isinstance(messages[0], list):
            messages = messages[0]
        for message in messages if isinstance(messages, list) else []:
            if isinstance(message, dict) and message.get("role") in _SYSTEM_ROLES:
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
