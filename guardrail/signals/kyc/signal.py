"""The fact `kyc.status`, from the ledger of verifications."""

from __future__ import annotations

from collections.abc import Mapping

from guardrail.signals.kyc.ledger import KycLedger


class KycSignal:
    """Tells an account's `kyc.status`; policies declare it, as a server fact of those values.

    A request path never asks a provider: what webhooks told before is all there is to know.
    """

    provides = frozenset({"kyc.status"})
    needs = frozenset({"account.id"})
    sources: tuple[str, ...] = ()

    def __init__(self, ledger: KycLedger) -> None:
        self._ledger = ledger

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the status of the account, `unknown` if nothing was told of it.

        Raises:
            DataError: the ledger cannot be read.
        """
        return {"kyc.status": self._ledger.status(str(known["account.id"]))}
