"""Keys of other tools in constructs other than rules, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping

_KEY_WORDS: Mapping[str, Mapping[str, str]] = {
    "ScenarioShape": {
        **dict.fromkeys(("given", "request", "input", "with", "context"), "write `facts`"),
        **dict.fromkeys(("at", "time", "date", "when", "clock", "today"), "write `now`"),
        **dict.fromkeys(("then", "want", "result", "outcome", "assert"), "write `expect`"),
        **dict.fromkeys(("title", "test", "id", "description"), "write `name`"),
        **dict.fromkeys(
            ("estimate", "usage", "repeat", "amounts"),
            "it stands in a step: write `steps: [{tokens: …, expect: …}]`",
        ),
    },
    "ScenarioStepShape": {
        **dict.fromkeys(("times", "count", "n", "repeats", "loop"), "write `repeat`"),
        **dict.fromkeys(("wait", "sleep", "after", "delay", "pause", "skip"), "write `advance`"),
        **dict.fromkeys(("interval", "each", "apart", "spacing"), "write `every`"),
        **dict.fromkeys(("given", "request", "input", "with"), "write `facts`"),
        **dict.fromkeys(("estimate", "amounts"), "leave it out, and write what stands below it"),
        **dict.fromkeys(("took", "lasts", "latency"), "write `duration`"),
    },
    "ExpectShape": {
        **dict.fromkeys(("rule", "from", "rules", "decided_by"), "write `by`"),
        **dict.fromkeys(
            ("effect", "decision", "result", "action", "verdict"),
            "write the effect as a key: `{block: REASON}`, `{degrade: MODEL}`, `{allow: true}`",
        ),
        "reason": "write it beside the effect: `{block: REASON}`",
        "model": "write it beside the effect: `{degrade: MODEL}`",
        **dict.fromkeys(("wait", "retry", "retryAfter", "retry-after"), "write `retry_after`"),
        **dict.fromkeys(
            ("status", "message", "remedy", "code"),
            "leave it out: a test expects an effect, its reason and its rule",
        ),
    },
    "ExemptionShape": {
        **dict.fromkeys(("until", "end", "expiry", "expire", "valid_until"), "write `expires`"),
        **dict.fromkeys(
            ("accounts", "account", "for", "who", "match", "if", "condition", "users"),
            "write `when`, such as `when: {account.id: {in: [A, B]}}`",
        ),
        **dict.fromkeys(("because", "why", "comment", "note", "ticket"), "write `reason`"),
        **dict.fromkeys(("limit", "amount", "to_amount", "override"), "write `raise`"),
    },
    "ModelShape": {
        **dict.fromkeys(("input", "output", "cached_input"), "it stands in `price: {…}`"),
        **dict.fromkeys(("cost", "costs", "pricing", "rates"), "write `price`"),
        **dict.fromkeys(("fallback", "cheaper", "downgrade", "degrade", "next"), "write `weaker`"),
        **dict.fromkeys(
            ("max_tokens", "max_output_tokens", "max_completion_tokens", "output_limit"),
            "write `max_output`",
        ),
        **dict.fromkeys(("names", "also", "versions", "snapshots"), "write `aliases`"),
    },
    "PriceShape": {
        **dict.fromkeys(("prompt", "in", "input_tokens", "prompt_tokens"), "write `input`"),
        **dict.fromkeys(
            ("completion", "out", "output_tokens", "completion_tokens"), "write `output`"
        ),
        **dict.fromkeys(
            ("cached", "cache", "cache_read", "cached_tokens"),
            "write `cached_input`",
        ),
    },
    "DefaultsShape": {
        **dict.fromkeys(("tz", "time_zone", "timeZone", "zone"), "write `timezone`"),
        **dict.fromkeys(
            ("unknown", "on_store_error", "over", "key", "per", "escalate", "status", "message"),
            "leave it out: each rule says it for itself",
        ),
        **dict.fromkeys(("model", "default_model", "unlisted"), "write `unlisted_model`"),
        **dict.fromkeys(("now", "date"), "write `today`"),
    },
    "FactShape": {
        **dict.fromkeys(("enum", "choices", "options", "levels", "allowed"), "write `values`"),
        **dict.fromkeys(("kind", "datatype", "data_type"), "write `type`"),
        **dict.fromkeys(("trusted", "from", "origin"), "write `source: server`, or `client`"),
        **dict.fromkeys(("optional", "nullable"), "leave it out: a fact may be missing"),
    },
    "ClaimShape": {
        **dict.fromkeys(("max", "most", "limit", "atMost", "not_more_than"), "write `at_most`"),
        **dict.fromkeys(("rule", "rules"), "write `by`"),
        **dict.fromkeys(("key", "for_each"), "write `per`"),
        **dict.fromkeys(("window", "within", "period", "during"), "write `over`"),
    },
    "ThresholdShape": {
        **dict.fromkeys(("rule", "rules"), "write `by`"),
        **dict.fromkeys(("segment", "if", "where", "for"), "write `when`"),
    },
    "LinksShape": {
        **dict.fromkeys(("trust", "trusted_accounts"), "write `trusted`"),
        **dict.fromkeys(("max", "limit", "most"), "write `max_accounts`"),
    },
}
"""By the construct they stand in, keys that other tools have for one of its own."""


def key_within(construct: str, name: str) -> str | None:
    """Return the advice on a key of a construct other than a rule, by the name of its shape."""
    return _KEY_WORDS.get(construct, {}).get(name)
