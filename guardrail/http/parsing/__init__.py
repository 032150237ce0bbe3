"""What a request asks for: facts and an estimate from its path, headers and body."""

from guardrail.http.dialects import Dialect, UsageFormat
from guardrail.http.parsing.plain import read_plainly
from guardrail.http.parsing.reading import header_only, read_parts, read_request, with_units
from guardrail.http.parsing.rewriting import rewritten, rewritten_path, with_stream_usage
from guardrail.http.parsing.values import (
    Classifier,
    ParsedRequest,
    ReadingLimits,
    RequestParts,
    RewriteError,
)

__all__ = [
    "Classifier",
    "Dialect",
    "ParsedRequest",
    "ReadingLimits",
    "RequestParts",
    "RewriteError",
    "UsageFormat",
    "header_only",
    "read_parts",
    "read_plainly",
    "read_request",
    "rewritten",
    "rewritten_path",
    "with_stream_usage",
    "with_units",
]
