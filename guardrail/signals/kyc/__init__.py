"""Identity verification: what providers tell by webhook, kept and read as `kyc.status`."""

from guardrail.signals.kyc.ledger import KycLedger
from guardrail.signals.kyc.providers import STATUSES, Event, Provider
from guardrail.signals.kyc.receiving import KycWebhooks
from guardrail.signals.kyc.signal import KycSignal

__all__ = ["STATUSES", "Event", "KycLedger", "KycSignal", "KycWebhooks", "Provider"]
