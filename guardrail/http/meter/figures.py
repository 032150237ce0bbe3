"""Usage objects of all vendors in guardrail's units, each by what its figures include.

| | input | output | cached input | reasoning |
|---|---|---|---|---|
| OpenAI chat, vLLM, SGLang | `prompt_tokens` (has cached) | `completion_tokens` (has reasoning) | in details | in details |
| OpenAI responses, media, realtime | `input_tokens` (has cached) | `output_tokens` (has reasoning) | in details | in details |
| Anthropic | `input_tokens` + cache read + cache creation | `output_tokens` (has thinking) | cache read | in details |
| Gemini | `promptTokenCount` (has cached) + tool use | candidates + thoughts | `cachedContentTokenCount` | thoughts |

Figures that are no counts (negative, not whole, beyond 2⁵³ − 1) are left out.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping

from guardrail.engine.sizes import as_count
from guardrail.http.dialects import UsageFormat
from guardrail.model.cells import TOP

Figures = dict[str, int]
"""Units to amounts: `input_tokens, output_tokens, cached_input_tokens, reasoning_tokens`."""

_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = (
    "completion_tokens_details",
    "output_tokens_details",
    "output_token_details",
)


def figures_of(usage: Mapping[str, object], usage_format: UsageFormat) -> Figures:
    """Return what a usage object says, only the units it tells."""
    if usage_format is UsageFormat.ANTHROPIC:
        found = _anthropic(usage)
    elif usage_format is UsageFormat.GEMINI:
        found = _gemini(usage)
    else:
        found = _openai(usage)
        if usage_format is UsageFormat.OPENAI_EMBEDDINGS and found["input_tokens"] is not None:
            found["output_tokens"] = 0
    return {unit: min(amount, TOP) for unit, amount in found.items() if amount is not None}


def _openai(usage: Mapping[str, object]) -> dict[str, int | None]:
    incoming = _first(usage, "prompt_tokens", "input_tokens", "prompt_eval_count")
    outgoing = _first(usage, "completion_tokens", "output_tokens", "eval_count")
    total = _first(usage, "total_tokens")
    if outgoing is None and incoming is not None and total is not None:
        outgoing = max(total - incoming, 0)
    reasoning = _detail(usage, _OUTPUT_DETAILS, "reasoning_tokens")
    cached = _detail(usage, _INPUT_DETAILS, "cached_tokens")
    return {
        "input_tokens": incoming,
        "output_tokens": outgoing,
        "cached_input_tokens": _first(usage, "cached_tokens") if cached is None else cached,
        "reasoning_tokens": _first(usage, "reasoning_tokens") if reasoning is None else reasoning,
    }


def _anthropic(usage: Mapping[str, object]) -> dict[str, int | None]:
    cached = _first(usage, "cache_read_input_tokens")
    created = _first(usage, "cache_creation_input_tokens")
    fresh = _first(usage, "input_tokens")
    return {
        "input_tokens": None if fresh is None else fresh + (cached or 0) + (created or 0),
        "output_tokens": _first(usage, "output_tokens"),
        "cached_input_tokens": cached,
        "reasoning_tokens": _detail(usage, _OUTPUT_DETAILS, "thinking_tokens"),
    }


def _gemini(usage: Mapping[str, object]) -> dict[str, int | None]:
    prompt = _first(usage, "promptTokenCount")
    candidates = _first(usage, "candidatesTokenCount")
    thoughts = _first(usage, "thoughtsTokenCount")
    total = _first(usage, "totalTokenCount")
    incoming = (
        prompt if prompt is None else prompt + (_first(usage, "toolUsePromptTokenCount") or 0)
    )
    outgoing = None
    if candidates is not None or thoughts is not None:
        outgoing = (candidates or 0) + (thoughts or 0)
    elif incoming is not None and total is not None:
        outgoing = max(total - incoming, 0)
    return {
        "input_tokens": incoming,
        "output_tokens": outgoing,
        "cached_input_tokens": _first(usage, "cachedContentTokenCount"),
        "reasoning_tokens": thoughts,
    }


def _first(usage: Mapping[str, object], *names: str) -> int | None:
    for name in names:
        count = as_count(usage.get(name))
        if count is not None:
            return count
    return None


def _detail(usage: Mapping[str, object], within: tuple[str, ...], name: str) -> int | None:
    for container in within:
        inner = usage.get(container)
        if isinstance(inner, dict) and (count := as_count(inner.get(name))) is not None:
            return count
    return None
