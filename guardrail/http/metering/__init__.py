"""What a response used: metered from its bytes as they pass, cut anywhere, in bounded memory."""

from guardrail.http.dialects import UsageFormat
from guardrail.http.metering.meter import Meter
from guardrail.http.metering.realtime import RealtimeMeter
from guardrail.http.metering.sessions import session_meter
from guardrail.http.metering.streams import readable
from guardrail.http.metering.turns import Frame, SessionMeter, Turn, TurnUsage
from guardrail.http.metering.usage_formats import FED_UNITS, unfed_notes, unfed_units

__all__ = [
    "FED_UNITS",
    "Frame",
    "Meter",
    "RealtimeMeter",
    "SessionMeter",
    "Turn",
    "TurnUsage",
    "UsageFormat",
    "readable",
    "session_meter",
    "unfed_notes",
    "unfed_units",
]
