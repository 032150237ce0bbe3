"""Takes webhooks: verified on the bytes as they came, kept once, answered at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping

from guardrail.errors import DataError, SettingError
from guardrail.signals.kyc.ledger import KycLedger
from guardrail.signals.kyc.providers import TOLERANCE, Provider, event_of, is_signed

LOG = logging.getLogger("guardrail")

MOST_BYTES = 1 << 18
SHORTEST_SECRET = 16
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class KycWebhooks:
    """What a host's own endpoint hands webhooks to, and answers their status with.

    `secrets` are those that the providers sign with, by the provider's name.

    Raises:
        SettingError: a provider is not known, or its secret is too short to be one.
    """

    def __init__(self, ledger: KycLedger, secrets: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._secrets: dict[Provider, bytes] = {}
        for name, secret in secrets.items():
            known = [provider.value for provider in Provider]
            if name not in known:
                raise SettingError(f"`{name}` is no provider: it can be {', '.join(known)}")
            if len(secret) < SHORTEST_SECRET:
                raise SettingError(f"the secret of `{name}` is shorter than {SHORTEST_SECRET}")
            self._secrets[Provider(name)] = secret.encode()

    def receive(
        self, provider: str, headers: Iterable[tuple[str, str]], body: bytes, now: float
    ) -> int:
        """Take one webhook at `now` (seconds since the epoch); return the status to answer.

        204: taken, or known already, or of no account. 400: not signed as it must be, stale, of a
        time to come, or not readable. 404: no such provider here. 503: it could not be kept; the
        provider will send it again. It may wait some seconds for a file that others write: an
        event loop calls it in a thread.
        """
        of = next((each for each in self._secrets if each.value == provider), None)
        if of is None:
            return 404
        named = {name.lower(): value for name, value in headers}
        if len(body) > MOST_BYTES or not is_signed(of, named, body, self._secrets[of], now):
            LOG.warning("a webhook of `%s` is not signed as it must be; it is not taken", provider)
            return 400
        try:
            event = event_of(of, json.loads(body))
        except _UNREADABLE:
            LOG.warning("a webhook of `%s` is of another shape than expected", provider)
            return 400
        # Taken, it would go over all that happens until then.
        if event is not None and event.at > now + TOLERANCE:
            LOG.warning("a webhook of `%s` tells of a time to come; it is not taken", provider)
            return 400
        try:
            if event is not None and not self._ledger.take(event):
                LOG.info("a webhook of `%s` tells nothing new: %s", provider, event.id)
        except DataError as problem:
            LOG.error("a webhook of `%s` is not kept: %s", provider, problem)
            return 503
        return 204
