"""Usage objects of all vendors in guardrail's units, each by what its figures include.

| | input | output | cached input | reasoning |
|---|---|---|---|---|
| OpenAI chat, vLLM, SGLang, Mistral | `prompt_tokens` (has cached) | `completion_tokens` (has reasoning) | in details | in details |
| xAI, some hosts | `prompt_tokens` | `completion_tokens` + reasoning, as `total_tokens` tells | in details | in details |
| Mistral, Perplexity | `prompt_tokens` + connectors, citations, sound as `total_tokens` tells | `completion_tokens` + reasoning | in details | `reasoning_tokens` |
| OpenAI responses, media, realtime | `input_tokens` (has cached) | `output_tokens` (has reasoning) | in details | in details |
| Anthropic | `input_tokens` + cache read + cache creation | `output_tokens` (has thinking) | cache read | in details |
| Bedrock | `inputTokens` + cache read + cache write | `outputTokens` | cache read | |
| Gemini | `promptTokenCount` (has cached) + tool use | candidates + thoughts | `cachedContentTokenCount` | thoughts |
| Gemini, interactions | `total_input_tokens` (has cached) + tool use | `total_output_tokens` + thoughts | `total_cached_tokens` | thoughts |
| OpenRouter, of Anthropic's models | the larger of `prompt_tokens` and the `iterations` | the same | in details | in details |
| Cohere | the larger of `tokens` and `billed_units` | the same | | |

Vendors and hosts disagree about what a figure includes, and some tell one of them wrong. So each
figure is the larger of what it says, of what its parts add up to, and of what the total implies.
Figures that are no counts (negative, not whole, beyond 2⁵³ − 1) are left out; digits in quotes are
a count, as protocol buffers write long ones in JSON.

Units of a policy's own that responses tell of (seconds of sound, pictures) are read, too. Which
ones these are is public (`FED_UNITS`): a policy may declare others, but the middleware then
never learns how much of them was used.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from guardrail.engine import as_count
from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import object_of, objects_of
from guardrail.model.cells import TOP

Figures = dict[str, int]
"""Units to amounts: `input_tokens, output_tokens, cached_input_tokens, reasoning_tokens`."""

_Found = dict[str, int | None]
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = tuple(
    "completion_tokens_details output_tokens_details output_token_details".split()
)
_FETCHED = ("connector_tokens", "citation_tokens")
_READ_BY_COHERE = ("text_tokens", "image_tokens")
_SOUND = "prompt_audio_seconds"
_INPUTS = tuple(
    "prompt_tokens input_tokens prompt_eval_count promptTokens tokens_evaluated".split()
)
_OUTPUTS = tuple(
    "completion_tokens output_tokens eval_count completionTokens tokens_predicted".split()
)
_MODALITIES = ("text_tokens", "audio_tokens", "image_tokens")
_GEMINI = frozenset(
    "promptTokenCount candidatesTokenCount responseTokenCount thoughtsTokenCount totalTokenCount "
    "prompt_token_count candidates_token_count thoughts_token_count total_token_count "
    "total_input_tokens total_output_tokens".split()
)
_WRITTEN_BY_GEMINI = tuple(
    "candidatesTokenCount candidates_token_count responseTokenCount response_token_count "
    "generation_token_count total_output_tokens".split()
)
_USED_BY_GEMINI = tuple(
    "toolUsePromptTokenCount tool_use_prompt_token_count total_tool_use_tokens".split()
)
_BEDROCK = frozenset("inputTokens outputTokens inputTokenCount outputTokenCount".split())
_MOST_ITERATIONS = 10_000
_LONGEST_COUNT = 16


def figures_of(
    usage: Mapping[str, object], usage_format: UsageFormat, reserved: int | None = None
) -> Figures:
    """Return what a usage object says, only the units it tells.

    Where nothing but a total is told, it is the input of what makes no output; elsewhere the output
    is what the total leaves beyond the input that was `reserved`.
    """
    names = usage.keys()
    if names <= _PLAIN and usage_format not in _READ_APART:
        into: Any = usage.get("prompt_tokens")
        out: Any = usage.get("completion_tokens")
        numbers = into.__class__ is int and out.__class__ is int and into >= 0 <= out
        if numbers and TOP >= into + out == usage.get("total_tokens"):
            return {"input_tokens": into, "output_tokens": out}
        found = _openai(usage)
    elif names.isdisjoint(_OPENAI_ONLY) and (
        usage_format is UsageFormat.ANTHROPIC or not names.isdisjoint(_ANTHROPIC_ONLY)
    ):
        found = _anthropic(usage)
    elif usage_format is UsageFormat.GEMINI or not usage.keys().isdisjoint(_GEMINI):
        found = _gemini(usage)
    elif not usage.keys().isdisjoint(_BEDROCK):
        found = _bedrock(usage)
    else:
        found = _openai(usage)
        if "iterations" in usage:  # gateways hand Anthropic's on beside their own names
            found = _with_iterations(found, usage)
    if found["input_tokens"] is None and found["output_tokens"] is None:
        _divide(found, _most(usage, *_TOTALS), usage_format, reserved)
    if usage_format is UsageFormat.OPENAI_EMBEDDINGS and found["input_tokens"] is not None:
        found["output_tokens"] = found["output_tokens"] or 0
    return {unit: min(amount, TOP) for unit, amount in found.items() if amount is not None}


def _divide(
    found: _Found, total: int | None, usage_format: UsageFormat, reserved: int | None
) -> None:
    """Divide a total that is all that is told."""
    if usage_format is UsageFormat.OPENAI_EMBEDDINGS:
        found["input_tokens"] = total
    elif total is not None and reserved is not None and total > reserved:
        found["output_tokens"] = total - reserved


_TOTALS = ("total_tokens", "totalTokens", "totalTokenCount", "total_token_count")
_READ_APART = (UsageFormat.GEMINI, UsageFormat.OPENAI_EMBEDDINGS)
# Most usage objects of OpenAI's kind have no more, and nothing to look for.
_PLAIN = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_OPENAI_ONLY = frozenset({"prompt_tokens", "completion_tokens", "total_tokens", "inputTokens"})
_ANTHROPIC_ONLY = frozenset(
    {"cache_read_input_tokens", "cache_creation_input_tokens", "iterations"}
)


def merge_usage(kept: dict[str, object], told: Mapping[str, object]) -> None:
    """Take a later usage of the same response in: running totals only grow.

    A figure that is told as null, or lower than before, leaves the former one.
    """
    if not kept:
        kept.update({name: value for name, value in told.items() if value is not None})
        return
    for name, value in told.items():
        before = kept.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged = dict(before)
            merge_usage(merged, value)
            kept[name] = merged
        elif value is not None and not _is_lower(value, before):
            kept[name] = value


def beside(document: Mapping[str, object]) -> Iterable[tuple[str, Mapping[str, object]]]:
    """Yield the usage that stands beside the model's own, by whose it is.

    A picture that is drawn in the course of a response is told under the name of its tool; what a
    drawing of vectors used, under a name of its own.
    """
    if isinstance(drawn := document.get("svg_usage"), dict):
        yield "svg", drawn
    for name, used in object_of(document, "tool_usage").items():
        if isinstance(used, dict):
            yield name, used


BESIDE = frozenset({"svg_usage", "tool_usage"})
"""The members in which usage stands beside the model's own."""


def with_tools(figures: Figures, document: Mapping[str, object]) -> Figures:
    """Return the figures that a response tells, with what its tools used beside that."""
    total = dict(figures)
    for _, used in beside(document) if figures else ():
        add_figures(total, figures_of(used, UsageFormat.OPENAI_RESPONSES))
    return total


def add_figures(total: Figures, figures: Figures) -> None:
    """Add figures to a total; where nothing was used, nothing is told."""
    for unit, amount in figures.items():
        if amount:
            total[unit] = min(total.get(unit, 0) + amount, TOP)


def _is_lower(value: object, before: object) -> bool:
    now, then = _count(value), _count(before)
    return then is not None and (now is None or now < then)


def _found(
    incoming: int | None, outgoing: int | None, cached: int | None, reasoning: int | None
) -> _Found:
    return {
        "input_tokens": incoming,
        "output_tokens": outgoing,
        "cached_input_tokens": cached,
        "reasoning_tokens": reasoning,
    }


def _openai(usage: Mapping[str, object]) -> _Found:
    incoming = _most(usage, *_INPUTS)
    outgoing = _most(usage, *_OUTPUTS)
    total = _most(usage, "total_tokens")
    reasoning = cached = None
    if not usage.keys() <= _PLAIN:
        if incoming is not None:
            incoming += _sum(usage, _FETCHED) or 0  # read by the model, and no part of the prompt
        for name in ("tokens", "billed_units"):  # Cohere's
            inner = usage.get(name)
            if isinstance(inner, dict):
                read = _larger(_most(inner, "input_tokens"), _sum(inner, _READ_BY_COHERE))
                incoming = _larger(incoming, read)
                outgoing = _larger(outgoing, _most(inner, "output_tokens"))
        reasoning = _larger(
            _detail(usage, _OUTPUT_DETAILS, "reasoning_tokens"), _most(usage, "reasoning_tokens")
        )
        cached = _detail(usage, _INPUT_DETAILS, "cached_tokens")
        if cached is None:
            cached = _most(usage, "cached_tokens", "prompt_cache_hit_tokens")
        beside = _sum(usage, ("cache_read_input_tokens", "cache_creation_input_tokens"))
        if incoming is not None:
            left = 0 if total is None or outgoing is None else total - incoming - outgoing
            aside = _aside(left, reasoning or 0, (beside, cached, (cached or 0) + _written(usage)))
            if aside:
                incoming += aside
            elif (cached or 0) > incoming:
                incoming += cached or 0  # more is cached than there is: it stands beside
            elif (beside or 0) > incoming:
                incoming += beside or 0
            parts = _parts(usage, _INPUT_DETAILS)
            hits = _sum(usage, ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"))
            incoming = max(incoming, parts, hits or 0)
        if outgoing is not None:
            rejected = _detail(usage, _OUTPUT_DETAILS, "rejected_prediction_tokens")
            for hidden in (reasoning or 0, rejected or 0):
                outgoing += hidden if hidden > outgoing else 0
            outgoing = max(outgoing, _parts(usage, _OUTPUT_DETAILS))
    total = _most(usage, "total_tokens")
    if total is not None:
        if outgoing is not None and (incoming is None or usage.get(_SOUND)):
            # What Mistral's models hear is told in seconds, and in the total alone.
            incoming = max(total - outgoing, incoming or 0)
        elif incoming is not None:
            outgoing = max(total - incoming, outgoing or 0)
    return _found(incoming, outgoing, cached, reasoning)


def _aside(left: int, reasoning: int, cached: Iterable[int | None]) -> int:
    """Return what is cached beside the prompt, if a total leaves just that.

    `left` is what it leaves beyond prompt and completion, beside which reasoning may stand as well.
    """
    if left in (0, reasoning):
        return 0
    return next((part for part in cached if part and left in (part, part + reasoning)), 0)


def _written(usage: Mapping[str, object]) -> int:
    """Return how many tokens were written to a cache."""
    told = _most(usage, "cache_creation_input_tokens")
    for name in ("cache_creation_tokens", "cache_write_tokens"):
        told = _larger(told, _detail(usage, _INPUT_DETAILS, name))
    return told or 0


def _anthropic(usage: Mapping[str, object]) -> _Found:
    return _with_iterations(_anthropic_once(usage), usage)


def _with_iterations(top: _Found, usage: Mapping[str, object]) -> _Found:
    """Return the larger, figure by figure, of what a usage and what its iterations say."""
    summed: _Found = {}
    for one in _iterations(usage.get("iterations")):
        for unit, amount in _anthropic_once(one).items():
            if amount is not None:
                summed[unit] = (summed.get(unit) or 0) + amount
    # Some tops include the iterations, some only the last of them.
    return {unit: _larger(amount, summed.get(unit)) for unit, amount in top.items()}


def _anthropic_once(usage: Mapping[str, object]) -> _Found:
    cached = _most(usage, "cache_read_input_tokens")
    created = _larger(
        _most(usage, "cache_creation_input_tokens"),
        _sum(
            object_of(usage, "cache_creation"),
            ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
        ),
    )
    fresh = _most(usage, "input_tokens")
    thinking = _detail(usage, _OUTPUT_DETAILS, "thinking_tokens")
    outgoing = _most(usage, "output_tokens")
    incoming = None if fresh is None else fresh + (cached or 0) + (created or 0)
    outgoing = None if outgoing is None else max(outgoing, thinking or 0)
    return _found(incoming, outgoing, cached, thinking)


def _iterations(listed: object) -> Iterable[Mapping[str, object]]:
    """Yield the iterations that were billed: not those of a model that declined to answer.

    Where another model answered in its place, its own last iteration is a `fallback_message`;
    the iterations of the one that declined are messages of another model.
    """
    every = listed[:_MOST_ITERATIONS] if isinstance(listed, list) else []
    found = [one for one in every if isinstance(one, dict)]
    served = [one.get("model") for one in found if one.get("type") == "fallback_message"]
    for one in found:
        if one.get("declined") is True or one.get("status") == "declined":
            continue
        if served and one.get("type") == "message" and one.get("model") not in served:
            continue
        yield one


def _bedrock(usage: Mapping[str, object]) -> _Found:
    fresh = _most(usage, "inputTokens", "inputTokenCount")
    outgoing = _most(usage, "outputTokens", "outputTokenCount")
    cached = _most(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _most(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    total = _most(usage, "totalTokens")
    incoming = None if fresh is None else fresh + (cached or 0) + (written or 0)
    if total is not None and incoming is not None:
        outgoing = max(total - incoming, outgoing or 0)
    return _found(incoming, outgoing, cached, None)


def _gemini(usage: Mapping[str, object]) -> _Found:
    prompt = _most(usage, "promptTokenCount", "prompt_token_count", "total_input_tokens")
    written = _most(usage, *_WRITTEN_BY_GEMINI)
    candidates = _larger(written, _modal(usage, "candidatesTokensDetails", "responseTokensDetails"))
    thoughts = _most(usage, "thoughtsTokenCount", "thoughts_token_count", "total_thought_tokens")
    total = _most(usage, "totalTokenCount", "total_token_count", "total_tokens")
    incoming = _larger(prompt, _modal(usage, "promptTokensDetails"))
    if incoming is not None:
        used = _most(usage, *_USED_BY_GEMINI)
        incoming += _larger(used, _modal(usage, "toolUsePromptTokensDetails")) or 0
    outgoing = None
    if candidates is not None or thoughts is not None:
        outgoing = (candidates or 0) + (thoughts or 0)
    if incoming is not None and total is not None:
        outgoing = max(total - incoming, outgoing or 0)
    cached = ("cachedContentTokenCount", "cached_content_token_count", "total_cached_tokens")
    return _found(incoming, outgoing, _most(usage, *cached), thoughts)


def _modal(usage: Mapping[str, object], *names: str) -> int | None:
    """Return the sum over modalities of one of Gemini's lists of details."""
    for name in names:
        listed = usage.get(name)
        if isinstance(listed, list) and listed:
            counts = [_count(one.get("tokenCount")) for one in listed if isinstance(one, dict)]
            return sum(count for count in counts if count is not None)
    return None


def _count(value: object) -> int | None:
    # Nearly all are plain; what else is a count, `as_count` says.
    if isinstance(value, int) and value.__class__ is int and 0 <= value <= TOP:
        return value
    if isinstance(value, str):
        return as_count(int(value)) if value.isdecimal() and len(value) <= _LONGEST_COUNT else None
    return as_count(value)


def _most(usage: Mapping[str, object], *names: str) -> int | None:
    most = None
    for name in names:
        value = usage.get(name)
        if value is not None and (count := _count(value)) is not None:
            most = count if most is None or count > most else most
    return most


def _sum(usage: Mapping[str, object], names: Iterable[str]) -> int | None:
    total = None
    for name in names:
        value = usage.get(name)
        if value is not None and (count := _count(value)) is not None:
            total = count + (total or 0)
    return total


def _larger(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _parts(usage: Mapping[str, object], within: tuple[str, ...]) -> int:
    """Return what the kinds of tokens in one of the details add up to, 0 if none is told."""
    most = 0
    for name in within:
        details = usage.get(name)
        if isinstance(details, dict):
            most = max(most, _sum(details, _MODALITIES) or 0)
    return most


def _detail(usage: Mapping[str, object], within: tuple[str, ...], name: str) -> int | None:
    for container in within:
        details = usage.get(container)
        if isinstance(details, dict) and (count := _count(details.get(name))) is not None:
            return count
    return None


FED_UNITS = frozenset({"audio_seconds", "images"})
"""The declared units that the middleware settles by what a response tells.

`audio_seconds` is the length of the sound that was transcribed or translated, in whole seconds
rounded up: `usage.seconds`, the `duration` of a `verbose_json` answer, Mistral's
`usage.prompt_audio_seconds`. `images` are the pictures in a response of the images API, or made by
its tool, or in a chat; a request for pictures reserves as many as it asks for completions.
"""

_PICTURES = ("image_generation.completed", "image_edit.completed")
_SECONDS = ("seconds", "audio_seconds", "prompt_audio_seconds")


def unfed_units(units: Iterable[str]) -> tuple[str, ...]:
    """Return those of some declared units that the middleware never learns anything of."""
    return tuple(unit for unit in units if unit not in FED_UNITS)


def unfed_notes(units: Iterable[str]) -> tuple[str, ...]:
    """Return a warning for each declared unit that no response tells, in words for operators."""
    known = " and ".join(f"`{unit}`" for unit in sorted(FED_UNITS))
    return tuple(
        f"no response tells the middleware how much of the unit `{unit}` was used: each request "
        f"counts 1, unless a classifier or `guardrail.http.fastapi` states an estimate; the units "
        f"that responses tell are {known}"
        for unit in unfed_units(units)
    )


class Fed:
    """What a response told of seconds and pictures."""

    seconds: float | None = None
    pictures = 0
    unread = False
    """Whether a part of the response was too long to be read."""

    def take(self, document: Mapping[str, object], *, media: bool) -> None:
        """Take in a document of the response; `media` tells that it is of pictures or sound."""
        usage = object_of(document, "usage")
        for name in _SECONDS:
            self._heard(usage.get(name))
        if media:
            self._heard(document.get("duration"))
        kind, items = document.get("type"), objects_of(document, "output")
        if kind == "response.output_item.done":
            items.append(object_of(document, "item"))
        self.pictures += kind in _PICTURES
        self.pictures += sum(item.get("type") == "image_generation_call" for item in items)
        for name in ("choices", "candidates"):
            self.pictures += sum(map(_pictures_in, objects_of(document, name)))

    def listed(self, pictures: int) -> None:
        """Take in how many pictures the list in a whole response has."""
        self.pictures = max(self.pictures, pictures)

    def amounts(self, units: Collection[str], media: bool) -> dict[str, int]:
        """Return what was told of those of some units that are used.

        What a response of pictures or sound does not tell is left out; another has none of it.
        """
        if FED_UNITS.isdisjoint(units):
            return {}
        told = {"audio_seconds": math.ceil(self.seconds or 0), "images": self.pictures}
        complete = any(told.values()) if media else not self.unread
        return {
            unit: min(amount, TOP)
            for unit, amount in told.items()
            if unit in units and (amount or complete)
        }

    def _heard(self, value: object) -> None:
        """Take in a length in seconds; some hosts write it as text."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            return
        if 0 <= seconds <= TOP:
            self.seconds = max(self.seconds or 0.0, seconds)


def units_in(document: Mapping[str, object], *, media: bool) -> dict[str, int]:
    """Return what the end of a turn tells of these units, as `Fed.amounts` does."""
    fed = Fed()
    fed.take(document, media=media)
    return fed.amounts(FED_UNITS, media)


def _pictures_in(choice: Mapping[str, object]) -> int:
    """Return how many pictures a choice of a chat has: OpenRouter's `images`, Gemini's parts."""
    count = 0
    for inner in (object_of(choice, name) for name in ("message", "delta", "content")):
        images = inner.get("images")
        count += len(images) if isinstance(images, list) else 0
        for part in objects_of(inner, "parts"):
            kind = object_of(part, "inlineData").get("mimeType")
            count += isinstance(kind, str) and kind.startswith("image/")
    return count
