"""What a request asks for: facts and an estimate from its path, headers and body."""

from guardrail.http.asked.reading import header_only, read_parts, read_request
from guardrail.http.asked.rewriting import rewritten, rewritten_path, with_stream_usage
from guardrail.http.asked.values import (
    Asked,
    Classifier,
    ReadingLimits,
    RequestParts,
    RewriteError,
)
from guardrail.http.dialects import Dialect, UsageFormat

__all__ = [
    "Asked",
    "Classifier",
    "Dialect",
    "ReadingLimits",
    "RequestParts",
    "RewriteError",
    "UsageFormat",
    "header_only",
    "read_parts",
    "read_request",
    "rewritten",
    "rewritten_path",
    "with_stream_usage",
]
