"""Which members cap output at which endpoint: elsewhere the same names may be passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from guardrail.http.asked.endpoints import Endpoint, Kind
from guardrail.http.dialects import Dialect, UsageFormat


class CapRules(NamedTuple):
    """The members that cap, written `within.name`; a missing cap is set as the first of them.

    `zero` tells that a cap of 0 is one; some hosts take it for none.
    """

    names: tuple[str, ...] = ()
    zero: bool = False

    def hold(self, document: Mapping[str, object]) -> bool:
        """Whether a body's output is capped; of several settings in a list, each has to be."""
        for dotted in self.names:
            if "." not in dotted:
                if dotted in document and self._caps(document[dotted]):
                    return True
                continue
            within, _, name = dotted.rpartition(".")
            settings = document.get(within)
            every = settings if isinstance(settings, list) else [settings]
            if every and all(isinstance(one, dict) and self._caps(one.get(name)) for one in every):
                return True
        return False

    def _caps(self, value: object) -> bool:
        if value.__class__ is not int:
            return value is not None
        return value > 0 or (value == 0 and self.zero)


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
_BY_NAME: Mapping[str, CapRules] = {
    "/v1/complete": CapRules(("max_tokens_to_sample",)),
    "/generate": CapRules(("sampling_params.max_new_tokens",)),
    "/vertex_generate": CapRules(("parameters.max_new_tokens",)),
    "/inference/v1/generate": CapRules(("sampling_params.max_tokens",)),
    "/api/chat": CapRules(("options.num_predict",)),
    "/api/generate": CapRules(("options.num_predict",)),
}
_OF_BATCHES: Mapping[Dialect, CapRules] = {
    Dialect.ANTHROPIC: _BY_USAGE[UsageFormat.ANTHROPIC],
    Dialect.GEMINI: _BY_USAGE[UsageFormat.GEMINI],
}


def caps_of(endpoint: Endpoint) -> CapRules:
    """Return what caps output at an endpoint; on unknown paths nothing is known to."""
    if endpoint.kind is Kind.BATCH:
        return _OF_BATCHES.get(endpoint.dialect, NO_CAPS)
    if endpoint.kind is not Kind.GENERATE:
        return NO_CAPS
    return _BY_NAME.get(endpoint.name) or _BY_USAGE.get(endpoint.usage, NO_CAPS)


def caps_by_usage(usage_format: UsageFormat) -> CapRules:
    """Return what caps output where the body suggests how its response is metered."""
    return _BY_USAGE.get(usage_format, NO_CAPS)
