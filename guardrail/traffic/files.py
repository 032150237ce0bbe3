"""The traffic files of one command, read one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from guardrail.errors import DataError
from guardrail.traffic.lines import LineSource
from guardrail.traffic.maps import TrafficMap
from guardrail.traffic.reading import Recorded, recorded_requests
from guardrail.traffic.requests import BadLines


class TrafficFiles:
    """Traffic files, opened together so that a missing one is noticed first.

    `current` is the file being read, `number` its place among them. Of `share` (0, 2) only every
    second piece of the traffic is read, of (1, 2) the other ones. `bad` counts the lines that
    could not be read, and `faults` tells of files that could not be read to their end.

    Raises:
        DataError: one cannot be opened.
    """

    def __init__(
        self, paths: Sequence[str], closing: ExitStack, *, share: tuple[int, int] = (0, 1)
    ) -> None:
        self._share = share
        self.sources = [closing.enter_context(LineSource(path)) for path in paths]
        self.bad = BadLines()
        self.faults: list[str] = []
        self.current = self.sources[0]
        self.number = 0

    @property
    def size(self) -> int | None:
        """How many bytes there are to read, None where that is not known."""
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return sum(source.position for source in self.sources)

    def requests(self, mapping: TrafficMap | None) -> Iterator[Recorded]:
        """Yield the requests of all files; a damaged file ends early and is noted."""
        for number, source in enumerate(self.sources):
            self.current, self.number = source, number
            divides = mapping is None or mapping.is_by_line
            if divides:
                source.share = self._share
            requests = recorded_requests(source, self.bad, mapping)
            try:
                yield from requests if divides else self._shared(requests)
            except DataError as error:
                self.faults.append(str(error))

    def _shared(self, requests: Iterator[Recorded]) -> Iterator[Recorded]:
        share, of = self._share
        for count, recorded in enumerate(requests):
            if count % of == share:
                yield recorded
