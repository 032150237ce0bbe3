"""A directory behind HTTP: a service that is asked whose a credential's keyed hash is.

The service is POSTed `{"credential": ID}` and answers, with status 200 or 404, a JSON object:
`{"facts": {"account.id": "a1", "account.tier": "verified", …}}`, or `{"facts": null}` for a
credential it does not know. Anything else is a failure, not an answer: another status, a redirect,
another shape, a value that is not of its fact's type, an answer that comes late or is too large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from guardrail.model.facts import Fact
from guardrail.signals.directory.asked import AskedDirectory
from guardrail.signals.directory.background import Background
from guardrail.signals.directory.fetching import Fetcher
from guardrail.signals.directory.identity import Credential, Secret
from guardrail.signals.directory.kept import Freshness, SourceError
from guardrail.signals.directory.vocabulary import Vocabulary

MOST_BYTES = 1 << 16
"""The size of the largest answer that is read."""

_ANSWERS = frozenset({200, 404})


class ServiceDirectory(AskedDirectory):
    """Asks a service; it never sees a key, only the keyed hash it was told for it."""

    def __init__(
        self,
        url: str,
        facts: Mapping[str, Fact],
        *,
        provides: Iterable[str] | None = None,
        authorization: str | Secret | None = None,
        freshness: Freshness | None = None,
        most_bytes: int = MOST_BYTES,
        plain_http: bool = False,
    ) -> None:
        """Take the service's URL and a policy set's facts.

        `provides` names the facts the service gives, if fewer than a directory may; `authorization`
        is what it is sent in the field of that name.

        Raises:
            SettingError: the URL cannot be used, or a directory cannot provide what is named.
        """
        times = freshness or Freshness()
        secret = authorization
        if isinstance(secret, str):
            secret = Secret(secret.encode())
        self._fetcher = Fetcher(
            url,
            timeout=times.timeout,
            most_bytes=most_bytes,
            authorization=secret,
            plain_http=plain_http,
        )
        self._background = Background(self._fetcher.close)
        super().__init__(self._fetcher.place, Vocabulary(facts, provides), times)

    def close(self) -> None:
        """Let go of the connections; calls under way bring nothing."""
        self._background.close()

    def _ask(self, credential: Credential) -> Future[object]:
        question = {"credential": credential.id}
        return self._background.submit(lambda: self._answer(question))

    async def _answer(self, question: Mapping[str, object]) -> object:
        answer = await self._fetcher.fetch(question, _ANSWERS)
        if not isinstance(answer, dict) or "facts" not in answer:
            raise SourceError("an answer without `facts`")
        return answer["facts"]
