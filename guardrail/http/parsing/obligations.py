"""Whether a request does what a decision obliges it to: by its facts, and by its own members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from guardrail.http.parsing.caps import REALTIME
from guardrail.http.parsing.members import (
    CAPS,
    FLOORS,
    MODELS,
    REASONING,
    SETTINGS,
    TOOL_LISTS,
    TOOL_MEMBERS,
)
from guardrail.model.spellings import is_alike

CONTAINERS = (*sorted(SETTINGS), "requests", "request", "params")
"""Members that hold settings of a request, to be changed as those beside them are."""
LISTS = ("input", "messages", "contents")
"""Members that list what a model reads, and may hand it tools among that."""

_TOOLS = frozenset(TOOL_MEMBERS)
_REASONING = frozenset(REASONING)
_STORED = ("assistant_id", "cachedContent", "cached_content", "agent", "agent_id")
_NAMING = frozenset({*CONTAINERS, ""})
_LIMITS = frozenset({*CAPS, *FLOORS, *REALTIME.names})
_QUIET: tuple[object, ...] = (None, "none", "off", False, 0, {}, [])
# What stands there is read by the model, or described for it: it sets nothing.
_CONTENT = frozenset(
    "messages contents content prompt input text instances metadata labels schema json_schema "
    "response_format responseSchema response_schema responseJsonSchema response_json_schema "
    "guided_json structured_outputs arguments instructions system systemInstruction "
    "system_instruction".split()
)


def disabled_by(obligations: Mapping[str, object]) -> tuple[object, ...]:
    """Return what is to be taken out of a request."""
    disabled = obligations.get("disable", ())
    return tuple(disabled) if isinstance(disabled, list | tuple | set | frozenset) else (disabled,)


def unmet(
    facts: Mapping[str, object],
    estimate: Mapping[str, int],
    obligations: Mapping[str, object],
    *,
    capless: bool = False,
) -> str | None:
    """Return what of its obligations a request is not seen to keep, None if it keeps all.

    What is not known is not kept. `capless` tells that nothing caps what is asked for: pictures,
    sound, transcripts.
    """
    model, limit = obligations.get("model"), obligations.get("max_output_tokens")
    named = facts.get("request.model")
    if model is not None and not (isinstance(named, str) and is_alike(named, str(model))):
        return "its model cannot be changed"
    if isinstance(limit, int):
        output = estimate.get("output_tokens")
        if output is None and not capless:
            return "its output cannot be capped"
        if output is not None and output > limit * max(estimate.get("requests", 1), 1):
            return "its output cannot be capped"
    disabled = disabled_by(obligations)
    if "tools" in disabled and facts.get("request.tools") != 0:
        return "its tools cannot be taken out"
    if "reasoning" in disabled and facts.get("request.reasoning") is not False:
        return "its reasoning cannot be taken out"
    if "stream" in disabled and facts.get("request.stream") is not False:
        return "its stream cannot be taken out"
    return None


def unkept(document: object, obligations: Mapping[str, object]) -> str | None:
    """Return which member of a body, however deep, does not keep an obligation, None if all do."""
    disabled = disabled_by(obligations)
    limit, model = obligations.get("max_output_tokens"), obligations.get("model")
    for where, name, value in _members(document):
        problem = (
            ("tools" in disabled and _hands_tools(name, value))
            or ("reasoning" in disabled and name in _REASONING and _reasons(value))
            or ("stream" in disabled and name == "stream" and value not in (None, False))
            or (isinstance(limit, int) and name in _LIMITS and not _within(value, limit))
            or (
                isinstance(model, str)
                and name in MODELS
                and where in _NAMING
                and isinstance(value, str)
                and not is_alike(value, model)
            )
        )
        if problem:
            return f"`{name}` cannot be changed as obliged"
    return None


def _members(document: object) -> Iterator[tuple[str, str, object]]:
    """Yield the members that set something, each with the name of what it stands in."""
    level: list[tuple[str, object]] = [("", document)]
    while level:
        where, node = level.pop()
        if isinstance(node, list):
            level += [(where, one) for one in node]
        elif isinstance(node, dict):
            for name, value in node.items():
                yield where, name, value
                if name in LISTS and isinstance(value, list):
                    items = (item for item in value if isinstance(item, dict))
                    yield from (("item", "tools", i["tools"]) for i in items if "tools" in i)
                elif name not in _CONTENT:
                    level.append((name, value))


def _hands_tools(name: str, value: object) -> bool:
    if name in _TOOLS:
        # Empty settings of a search turn it on.
        return bool(value) or (name not in TOOL_LISTS and value not in (None, []))
    # What is stored with the host may hold tools that are not seen here.
    return (name in _STORED and value is not None) or (name == "prompt" and isinstance(value, dict))


def _reasons(value: object) -> bool:
    if isinstance(value, dict):
        kind = value.get("type", value.get("effort"))
        return kind not in ("disabled", "none") and bool(value)
    return value not in _QUIET


def _within(value: object, limit: int) -> bool:
    return value is None or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
    )
