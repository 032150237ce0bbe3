"""Identity verification: what providers tell by webhook, kept and read as `kyc.status`."""

from guardrail.signals.kyc.ledger import KycLedger, KycSignal, KycWebhooks
from guardrail.signals.kyc.providers import STATUSES, Event, Provider

__all__ = ["STATUSES", "Event", "KycLedger", "KycSignal", "KycWebhooks", "Provider"]
