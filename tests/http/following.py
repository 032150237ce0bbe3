"""Follows a connection as its session does, with every turn admitted."""

from __future__ import annotations

import json

from guardrail.http.metering import Turn, TurnUsage, session_meter
from guardrail.http.parsing import ReadingLimits
from tests.http.requests import KEY


def frame(event=None, **members):
    """Return a frame of JSON."""
    return json.dumps(members if event is None else event)


class Followed:
    """A meter whose turns all pass."""

    def __init__(self, path="/v1/realtime", query=b"", model=None, **options):
        self.meter = session_meter(
            path,
            query,
            hash_key=KEY,
            limits=options.pop("limits", ReadingLimits()),
            model=model,
            **options,
        )

    def sent(self, text):
        """Pass a frame of the client's on; return the turns that end and start with it."""
        frame = self.meter.read(text)
        events = self.meter.sent(frame)
        for event in events:
            if isinstance(event, Turn) and event.problem is None and not event.brief:
                self.meter.passed(event)
        return events

    def asked(self, text):
        """Return the one turn that a frame of the client's asks for."""
        (turn,) = (event for event in self.sent(text) if isinstance(event, Turn))
        return turn

    def received(self, text):
        """Pass a frame of the host's on; return the turns that start and end with it."""
        return self.meter.received(text)

    def used(self, text: str) -> tuple[int, dict[str, int]]:
        """Return the number and the usage of the one turn that a frame of the host's ends."""
        (used,) = (event for event in self.received(text) if isinstance(event, TurnUsage))
        return used.number, dict(used.usage)

    def cut(self):
        """End the connection; return what each running turn used, by its number."""
        ended = (event for event in self.meter.cut() if isinstance(event, TurnUsage))
        return {used.number: dict(used.usage) for used in ended}
