"""Members of a body that limit or multiply what it costs: caps, completions, prompts.

Which of them caps output depends on the endpoint: elsewhere the same name may be passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from guardrail.http.dialects import Dialect, UsageFormat
from guardrail.http.parsing.endpoints import CapRules, Endpoint, Kind
from guardrail.http.parsing.members import CAPS, FLOORS, MULTIPLIERS, Members, members_in
from guardrail.http.parsing.values import UnreadableError, shown
from guardrail.model.cells import TOP

_BATCH = Kind.BATCH
_GENERATE = Kind.GENERATE

NO_CAPS = CapRules()
"""Where no member is known to cap."""
REALTIME = CapRules(("max_output_tokens", "max_response_output_tokens"))
"""Caps of a turn of a Realtime session."""

_BY_USAGE: Mapping[UsageFormat, CapRules] = {
    UsageFormat.OPENAI_CHAT: CapRules(("max_completion_tokens", "max_tokens")),
    UsageFormat.OPENAI_COMPLETIONS: CapRules(("max_tokens",)),
    UsageFormat.OPENAI_RESPONSES: CapRules(("max_output_tokens",)),
    UsageFormat.ANTHROPIC: CapRules(("max_tokens",), zero=True),
    UsageFormat.GEMINI: CapRules(
        tuple(
            f"{within}.{name}"
            for within in ("generationConfig", "generation_config")
            for name in ("maxOutputTokens", "max_output_tokens")
        )
    ),
}
_OF_BATCHES: Mapping[Dialect, CapRules] = {
    Dialect.ANTHROPIC: _BY_USAGE[UsageFormat.ANTHROPIC],
    Dialect.GEMINI: _BY_USAGE[UsageFormat.GEMINI],
}


def caps_of(endpoint: Endpoint) -> CapRules:
    """Return what caps output at an endpoint; on unknown paths nothing is known to."""
    if endpoint.kind is _BATCH:
        return caps_of_batches(endpoint)
    if endpoint.kind is not _GENERATE:
        return NO_CAPS
    return caps_by_usage(endpoint.usage) if endpoint.caps is None else endpoint.caps


def caps_of_batches(endpoint: Endpoint) -> CapRules:
    """Return what caps output in the requests of a batch, or of a file of them, sent there."""
    return _OF_BATCHES.get(endpoint.dialect, NO_CAPS)


def caps_by_usage(usage_format: UsageFormat) -> CapRules:
    """Return what caps output where the body suggests how its response is metered."""
    return _BY_USAGE.get(usage_format, NO_CAPS)


_OUTPUT = frozenset({*CAPS, *FLOORS})
_COUNTED = _OUTPUT | MULTIPLIERS
# A host of these may be told to go on without end, or to the end of its context.
_ENDLESS = frozenset({"num_predict", "n_predict"})
_PROMPTS = ("prompt", "prompts", "prompt_embeds", "text", "input_ids", "token_ids", "instances")
_FRAMES = ("dataframe_records", "dataframe_split")  # MLflow's: a prompt in each row
_LISTING = frozenset({*_PROMPTS, *_FRAMES, "inputs"})
_SEVERAL = _LISTING | {"messages"}


class Counts(NamedTuple):
    """Completions asked for, and the output they may have, None where no cap was sent."""

    completions: int
    output_tokens: int | None

    def times(self, factor: int) -> Counts:
        """Return what so many of the same request ask for."""
        output = self.output_tokens
        return Counts(
            min(self.completions * factor, TOP),
            None if output is None else min(output * factor, TOP),
        )


def counts_of(
    document: Mapping[str, object], rules: CapRules, every: Iterable[Members] | None = None
) -> Counts:
    """Return what a body asks for: completions of each prompt × prompts, and the largest cap.

    The largest of all, whoever's it is and wherever it stands, but only if one of those caps that
    the endpoint heeds. `every` are the objects in the body, where they are known.

    Raises:
        UnreadableError: a member that limits is not a whole number.
    """
    caps: list[int] = []
    each = prompts = 1
    for where, members, settles in members_in(document) if every is None else every:
        read = whole if settles else _likely
        for name in filter(_COUNTED.__contains__, members):
            value = members[name]
            if name in _OUTPUT:
                if name in _ENDLESS and value.__class__ is int and value in (-1, -2):
                    continue
                if (number := read(value, where + name)) is not None:
                    caps.append(number)
            elif name in MULTIPLIERS and (number := read(value, where + name)) is not None:
                each = max(each, number)
        thinking = members.get("thinking")
        if isinstance(thinking, dict):
            budget = whole(thinking.get("budget_tokens"), "thinking.budget_tokens")
            caps += [] if budget is None else [budget]
        if settles:
            prompts = max(prompts, _prompts(members))
    completions = min(each * prompts, TOP)
    capped = bool(caps) and rules.hold(document)
    return Counts(completions, min(max(caps) * completions, TOP) if capped else None)


def likely_completions(every: Iterable[Members]) -> int:
    """Return how many completions a body may ask for that cannot be read for certain."""
    each = prompts = 1
    for _, members, _ in every:
        stated = (_likely(members.get(name), name) for name in MULTIPLIERS.intersection(members))
        each = max(each, *(number or 1 for number in stated), 1)
        prompts = max(prompts, _prompts(members))
    return min(each * prompts, TOP)


def _likely(value: object, name: str) -> int | None:
    """Return a count that stands where none is documented, None for what cannot be one."""
    if value.__class__ is str and str(value).isdecimal() and len(str(value)) < 17:
        value = int(str(value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return min(value, TOP)


def whole(value: object, name: str) -> int | None:
    """Return a count, None for null, and for the `inf` that a session may have for its cap.

    Raises:
        UnreadableError: it is anything but a whole number from 0 to 2⁵³ − 1.
    """
    if value.__class__ is int and 0 <= value <= TOP:
        return value
    if value is None or (value == "inf" and name.endswith("output_tokens")):
        return None
    text = "the text " if isinstance(value, str) else ""
    raise UnreadableError(
        f"`{name}` is {text}`{shown(value)}`; send a whole number from 0 to {TOP}", param=name
    )


def _prompts(document: Mapping[str, object]) -> int:
    """Return how many prompts there are; a list of token ids is one, of such lists several."""
    if _SEVERAL.isdisjoint(document):
        return 1
    count = 0 if _LISTING.isdisjoint(document) else _listed(document)
    messages = document.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        count += len(messages)
    return max(count, 1)


def _listed(document: Mapping[str, object]) -> int:
    count = 0
    for name in _PROMPTS:
        listed = document.get(name)
        if isinstance(listed, list) and set(map(type, listed)) != {int}:
            count += len(listed)
    inputs = document.get("inputs")
    if isinstance(inputs, list):
        # Others are parts of one, but for tensors, each of which has a row of every prompt.
        count += sum(isinstance(one, str) for one in inputs)
        count += max(map(_rows, inputs), default=0)
    for name in _FRAMES:
        frame = document.get(name)
        rows = frame.get("data") if isinstance(frame, dict) else frame
        count += len(rows) if isinstance(rows, list) else 0
    return count


def _rows(tensor: object) -> int:
    """Return how many prompts a tensor of KServe's protocol has, 0 for what is none.

    Its first dimension is the batch. Numbers in a single one are the tokens of a prompt; texts in
    one are a prompt each.
    """
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    if not isinstance(tensor, dict) or not isinstance(shape, list) or not shape:
        return 0
    if len(shape) == 1 and tensor.get("datatype") != "BYTES":
        return 0
    return _likely(shape[0], "shape") or 0
