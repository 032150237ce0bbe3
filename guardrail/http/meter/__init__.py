"""What a response used: metered from its bytes as they pass, cut anywhere, in bounded memory."""

from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.meter import Meter
from guardrail.http.meter.realtime import RealtimeMeter, Turn, TurnUsage
from guardrail.http.meter.units import FED_UNITS, unfed_notes, unfed_units

__all__ = [
    "FED_UNITS",
    "Meter",
    "RealtimeMeter",
    "Turn",
    "TurnUsage",
    "UsageFormat",
    "unfed_notes",
    "unfed_units",
]
