"""What a response used: metered from its bytes as they pass, cut anywhere, in bounded memory."""

from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.meter import Meter
from guardrail.http.meter.realtime import RealtimeMeter, Turn, TurnUsage

__all__ = ["Meter", "RealtimeMeter", "Turn", "TurnUsage", "UsageFormat"]
