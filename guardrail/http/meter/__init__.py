"""What a response used: metered from its bytes as they pass, cut anywhere, in bounded memory."""

from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.encodings import readable
from guardrail.http.meter.meter import Meter
from guardrail.http.meter.realtime import RealtimeMeter
from guardrail.http.meter.sessions import session_meter
from guardrail.http.meter.turns import Frame, SessionMeter, Turn, TurnUsage
from guardrail.http.meter.units import FED_UNITS, unfed_notes, unfed_units

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
