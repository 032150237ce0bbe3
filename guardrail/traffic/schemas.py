"""The JSON Schemas of a traffic line and of a map file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.model.cells import TOP
from guardrail.traffic.mapshapes import MapShape
from guardrail.traffic.requests import LATEST, LONGEST

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_AMOUNTS: Mapping[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": {"type": "number", "minimum": 0, "maximum": TOP},
    "description": "amounts by unit, whole numbers; `cost_usd` may have decimals",
}

TRAFFIC_SCHEMA: Mapping[str, Any] = {
    "$schema": _DRAFT,
    "title": "a line of traffic, version 1",
    "type": "object",
    "properties": {
        "ts": {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": LATEST},
                {"type": "string", "format": "date-time"},
            ],
            "description": "when the request came: seconds since the epoch, or RFC 3339",
        },
        "facts": {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    {"type": ["string", "number", "boolean", "null"]},
                    {"type": "array", "items": {"type": "string"}},
                ]
            },
            "description": "what is known of the request, by dotted names",
        },
        "estimate": _AMOUNTS,
        "usage": _AMOUNTS,
        "duration": {
            "type": "number",
            "minimum": 0,
            "maximum": LONGEST,
            "description": "how long it took, in seconds",
        },
        "ending": {"description": "`released`: everything was given back"},
    },
    "required": ["ts", "facts"],
}
"""The JSON Schema of a line of traffic; members that it does not name are ignored."""


def map_schema() -> dict[str, Any]:
    """Return the JSON Schema of a map file."""
    made = _without_nulls(MapShape.model_json_schema())
    assert isinstance(made, dict)
    made["properties"]["guardrail_map"] = {"const": 1}
    return {"$schema": _DRAFT, **made, "title": "guardrail traffic map, version 1"}


def _without_nulls(part: Any) -> Any:
    """Return a schema without the nulls and made-up titles that a model's schema has."""
    if isinstance(part, list):
        return [_without_nulls(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {
        name: _without_nulls(value)
        for name, value in part.items()
        if not (name == "title" and isinstance(value, str))
        and not (name == "default" and value is None)
    }
    choices = kept.get("anyOf")
    if isinstance(choices, list):
        choices = [choice for choice in choices if choice != {"type": "null"}]
        if len(choices) == 1:
            del kept["anyOf"]
            kept |= choices[0]
    return kept
