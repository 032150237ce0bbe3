"""Members of a body that limit or multiply what it costs: caps, completions, prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from guardrail.http.asked.caps import CapRules
from guardrail.http.asked.values import UnreadableError, shown
from guardrail.model.cells import TOP

CAPS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxOutputTokens",
    "max_new_tokens",
    "max_tokens_to_sample",
    "num_predict",
)
"""Members that cap output, over all vendors; hosts disagree on which wins, so the largest does."""
FLOORS = ("min_tokens", "min_new_tokens", "thinking_token_budget")
"""Members that ask for at least so much output."""
WITHIN = ("sampling_params", "generationConfig", "generation_config", "parameters", "options")
"""Members that hold caps of their own."""

_MULTIPLIERS = frozenset(
    {
        "n",
        "best_of",
        "candidateCount",
        "candidate_count",
        "sampleCount",
        "num_return_sequences",
    }
)
_OUTPUT = frozenset({*CAPS, *FLOORS})
_PROMPTS = ("prompt", "prompts", "prompt_embeds", "text", "input_ids", "token_ids", "instances")
_SEVERAL = frozenset({*_PROMPTS, "messages"})


class Counts(NamedTuple):
    """Completions asked for, and the output they may have, None where no cap was sent."""

    completions: int
    output_tokens: int | None


def counts_of(document: Mapping[str, object], rules: CapRules) -> Counts:
    """Return what a body asks for: completions of each prompt × prompts, and the largest cap.

    The largest of all, whoever's it is, but only if one of those caps that the endpoint heeds.

    Raises:
        UnreadableError: a member that limits is not a whole number.
    """
    caps: list[int] = []
    each = 1
    for where, members in _settings(document):
        for name, value in members.items():
            if name in _OUTPUT and (number := whole(value, where + name)) is not None:
                caps.append(number)
            elif name in _MULTIPLIERS and (number := whole(value, where + name)) is not None:
                each = max(each, number)
    thinking = document.get("thinking")
    if isinstance(thinking, dict):
        budget = whole(thinking.get("budget_tokens"), "thinking.budget_tokens")
        caps += [] if budget is None else [budget]
    completions = min(each * _prompts(document), TOP)
    capped = bool(caps) and rules.hold(document)
    return Counts(completions, min(max(caps) * completions, TOP) if capped else None)


def whole(value: object, name: str) -> int | None:
    """Return a count, None for null, and for the `inf` that a session may have for its cap.

    Raises:
        UnreadableError: it is anything but a whole number from 0 to 2⁵³ − 1.
    """
    if value is None or (value == "inf" and name.endswith("output_tokens")):
        return None
    if value.__class__ is int and 0 <= value <= TOP:
        return value
    raise UnreadableError(
        f"`{name}` is `{shown(value)}`; send a whole number from 0 to {TOP}", param=name
    )


def _settings(document: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    yield "", document
    for name in WITHIN:
        inner = document.get(name)
        if inner is None:
            continue
        for members in inner if isinstance(inner, list) else [inner]:
            if isinstance(members, dict):
                yield f"{name}.", members


def _prompts(document: Mapping[str, object]) -> int:
    """Return how many prompts there are; a list of token ids is one, of such lists several."""
    if _SEVERAL.isdisjoint(document):
        return 1
    count = 0
    for name in _PROMPTS:
        listed = document.get(name)
        if isinstance(listed, list) and set(map(type, listed)) != {int}:
            count += len(listed)
    messages = document.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        count += len(messages)
    return max(count, 1)
