"""Turns of a connection: what each of them asks for, and what it used by the host's own word.

Whatever a connection speaks, it is followed frame by frame: a frame of the client's may ask for a
turn, one of the host's may start one that nobody asked for, and end those that run. Turns may run
side by side; each has a number, and is told of by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from guardrail.http.documents import text_of
from guardrail.http.metering.accumulator import Passed
from guardrail.http.metering.texts import BYTES_PER_TOKEN
from guardrail.http.metering.usage_formats import units_in
from guardrail.http.parsing.json_body import read_document
from guardrail.http.parsing.members import strictest
from guardrail.http.parsing.obligations import unmet
from guardrail.http.parsing.values import (
    ParsedRequest,
    ReadingLimits,
    RewriteError,
    UnreadableError,
)

MEDIA_BYTES_PER_TOKEN = 64
"""How many bytes of what is no text count as a token."""
STANDARD = ReadingLimits()
NOTHING: Mapping[str, int] = {"input_tokens": 0, "output_tokens": 0}
"""What a turn uses that its client asked for wrongly: a request it is all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A turn is asked for: facts and an estimate as of a request of its own.

    `automatic` tells that the host started it by itself. `problem` says why the client's frame
    could not be read; such a turn counts as the most restricted kind. `brief` tells that nothing
    will say when it is over: it is, once its frame has passed. `family`, `lane` and `name` tell
    the turns apart in what the host says later; `event_id` is the client's own name of its frame.
    `stands` tells that the work goes on when the connection ends.
    """

    number: int
    facts: Mapping[str, object]
    estimate: Mapping[str, int]
    automatic: bool = False
    problem: str | None = None
    brief: bool = False
    family: str = "response"
    lane: str | None = None
    name: str | None = None
    event_id: str | None = None
    stands: bool = False


@dataclass(frozen=True, slots=True)
class TurnUsage:
    """A turn is over: what it used, in units, and whether it failed by the host's fault.

    `fed` are the units that a policy may declare: see `FED_UNITS`.
    """

    number: int
    usage: Mapping[str, int]
    failed: bool = False
    fed: Mapping[str, int] = field(default_factory=dict)


Event = Turn | TurnUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame of the client's as it was read: its bytes, and what they say if they are JSON.

    `problem` says why they cannot be read. `asked` is the request in it, where it holds one.
    """

    text: bytes
    event: Mapping[str, Any]
    tokens: int
    problem: str | None = None
    asked: ParsedRequest | None = None

    @property
    def kind(self) -> object:
        """What it says that it is."""
        return self.event.get("type")

    @property
    def event_id(self) -> str | None:
        """The client's own name for it, if it has one."""
        return text_of(self.event, "event_id")


@dataclass(slots=True)
class Running:
    """A turn that was passed on and is not over, and what the host has said in it so far."""

    turn: Turn
    started: bool = False
    output: Passed = field(default_factory=Passed)
    told: dict[str, int] = field(default_factory=dict)

    @property
    def streamed(self) -> int:
        """About how many output tokens passed, at most what was reserved."""
        passed = self.output.estimate
        return min(passed, self.turn.estimate.get("output_tokens", passed))

    def passed(self, text: str, *, media: bool = False) -> None:
        """Take a piece of output that passed."""
        self.output.take_piece("" if media else text)


class SessionMeter:
    """Follows the frames of one connection in both directions; bounded, without I/O.

    This one knows nothing of what they say. Each frame of the client's is a turn of the most
    restricted kind, and runs until the next one; the connection itself is the first, with the
    number 0. What the host says in it is its output.
    """

    speaks_errors = False
    """Whether a client is told of a refusal by an event: elsewhere the connection is closed."""
    opens = True
    """Whether the connection itself is a turn, which runs until the first frame."""
    names_model = False
    """Whether frames name the model: elsewhere the address of the connection does."""

    def __init__(
        self,
        *,
        hash_key: bytes,
        endpoint: str = "",
        model: str | None = None,
        limits: ReadingLimits = STANDARD,
    ) -> None:
        """Take the name of the endpoint, and the model that the connection's address names."""
        self._hash_key = hash_key
        self._endpoint = endpoint
        self._model = model
        self._limits = limits
        self._number = 0
        self._context = 0
        self._running: dict[int, Running] = {}
        if self.opens:
            self._running[0] = Running(self._most_restricted(0, number=0), started=True)

    def read(self, frame: str | bytes) -> Frame:
        """Return what a frame of the client's says; it changes nothing here."""
        text = frame.encode("utf-8", "replace") if isinstance(frame, str) else bytes(frame)
        per_token = BYTES_PER_TOKEN if isinstance(frame, str) else MEDIA_BYTES_PER_TOKEN
        return Frame(text=text, event={}, tokens=len(text) // per_token + 1)

    def sent(self, frame: Frame) -> list[Event]:
        """Take a frame of the client's; return the turns that end and start with it."""
        return [*self.cut(), self._most_restricted(frame.tokens)]

    def passed(self, turn: Turn) -> None:
        """Take that a turn was admitted, and its frame is passed on to the host."""
        self._running[turn.number] = Running(turn, started=turn.automatic)

    def received(self, frame: str | bytes) -> list[Event]:
        """Take a frame of the host's; return the turns that start and end with it."""
        for running in self._running.values():
            per_token = BYTES_PER_TOKEN if isinstance(frame, str) else MEDIA_BYTES_PER_TOKEN
            size = len(frame.encode("utf-8", "replace") if isinstance(frame, str) else frame)
            running.output.take_unread(size * BYTES_PER_TOKEN // per_token)
        return []

    def cut(self) -> list[Event]:
        """Return what each running turn used if the connection ends now, and forget them."""
        ended: list[Event] = []
        for number, running in self._running.items():
            incoming = running.turn.estimate.get("input_tokens", 0)
            figures = {"input_tokens": incoming, "output_tokens": max(running.streamed, 1)}
            if number == 0:
                figures["output_tokens"] = running.streamed
            usage = {} if running.turn.stands else {**figures, **running.told}
            ended.append(TurnUsage(number, usage))
        self._running.clear()
        return ended

    def cancel(self, turn: Turn) -> str | None:
        """Return the frame that ends a turn the host started, None if none can."""
        return None

    def changed(self, frame: Frame, turn: Turn, obligations: Mapping[str, object]) -> bytes | None:
        """Return a turn's frame changed as obliged, None if it may stay as it is.

        Raises:
            RewriteError: it cannot be changed so.
        """
        obey(turn, obligations)
        return None

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _most_restricted(
        self, tokens: int, *, number: int | None = None, problem: str | None = None, **more: Any
    ) -> Turn:
        """Return a turn of which only its size is known."""
        return Turn(
            number=self._next() if number is None else number,
            facts=self._facts("agentic", self._model),
            estimate={"requests": 1, "input_tokens": self._context + tokens},
            problem=problem,
            **more,
        )

    def _facts(self, capability: str, model: str | None) -> dict[str, object]:
        facts: dict[str, object] = {
            "request.endpoint": self._endpoint,
            "request.capability": capability,
        }
        return facts if model is None else {**facts, "request.model": model}


class EventMeter(SessionMeter):
    """What the meters of connections share whose frames are JSON objects."""

    opens = False

    def read(self, frame: str | bytes) -> Frame:
        """Return what a frame of the client's says; it changes nothing here."""
        text = frame.encode("utf-8", "replace") if isinstance(frame, str) else bytes(frame)
        try:
            value, tokens = read_document(text, self._limits)
        except UnreadableError as error:
            size = len(text) // BYTES_PER_TOKEN + 1
            return Frame(text=text, event={}, tokens=size, problem=str(error))
        # A host that takes a list of events would be asked for more than is seen here.
        several = isinstance(value, list) and bool(value)
        problem = "the message is a list; send its events one by one" if several else None
        event = value if isinstance(value, dict) else {}
        return Frame(text=text, event=event, tokens=tokens, problem=problem)

    def _oldest(self, holds: Callable[[Running], bool]) -> Running | None:
        return next((one for one in self._running.values() if holds(one)), None)

    def _end(
        self,
        running: Running,
        told: Mapping[str, int],
        document: Mapping[str, object] | None = None,
        *,
        failed: bool = False,
    ) -> TurnUsage:
        """Return that a turn is over: what it used is told, or else what passed.

        `document` is what the host says of it at its end. An input of nothing, and less output than
        surely passed, are not believed.
        """
        self._running.pop(running.turn.number, None)
        usage = {**running.told, **told}
        if told is not NOTHING and not usage.get("input_tokens"):
            usage.pop("input_tokens", None)
        if not usage.get("output_tokens"):
            least = 0 if "output_tokens" in usage else 1
            usage["output_tokens"] = max(running.streamed, least)
        usage["output_tokens"] = max(usage["output_tokens"], running.output.least)
        if "input_tokens" in usage:
            self._context = max(self._context, usage["input_tokens"] + usage["output_tokens"])
        fed = units_in(document or {}, media=running.turn.family != "response")
        return TurnUsage(running.turn.number, usage, failed, fed)

    def _unknown(self, frame: Frame, **more: Any) -> Turn:
        """Return the turn that a frame is taken for that cannot be read, or is of no known kind."""
        brief = frame.problem is None
        more = {"problem": frame.problem, "brief": brief, "event_id": frame.event_id, **more}
        return self._most_restricted(frame.tokens, **more)

    def _hearing(self, model: str | None, estimate: Mapping[str, int], **more: Any) -> Turn:
        """Return a turn in which the host hears, and nothing is asked for besides."""
        asked = {"request.tools": 0, "request.reasoning": False, "request.stream": True}
        facts = self._facts("audio", model) | asked
        estimate = {"requests": 1, **estimate}
        return Turn(number=self._next(), facts=facts, estimate=estimate, **more)

    def _begun(self, name: str | None, of: Callable[[Running], bool]) -> bool:
        """Take that the host has begun a turn of some; tell whether it was asked for, or known."""
        if self._oldest(lambda one: of(one) and one.turn.name == name is not None):
            return True
        asked = self._oldest(lambda one: of(one) and not one.started)
        if asked is not None:
            asked.started = True
            asked.turn = replace(asked.turn, name=name)
        return asked is not None

    def _unasked(self, turn: Turn) -> Running:
        """Take that the host has started a turn by itself."""
        self.passed(turn)
        return self._running[turn.number]


def doubtful(facts: dict[str, object]) -> dict[str, object]:
    """Return the facts of a turn in which there may be more than is seen here."""
    unsure = ("request.tools", "request.toolset", "request.reasoning")
    capability = strictest(str(facts["request.capability"]), "agentic")
    left = {name: value for name, value in facts.items() if name not in unsure}
    return left | {"request.capability": capability}


def obey(turn: Turn, obligations: Mapping[str, object]) -> None:
    """Check that a turn that is passed on as it is does what it is obliged to.

    Raises:
        RewriteError: it does not, or may not.
    """
    problem = unmet(turn.facts, turn.estimate, obligations)
    if problem is not None:
        raise RewriteError(problem)


def texts_in(value: object) -> Iterator[str]:
    """Yield the texts within a value, however deep."""
    level = [value]
    while level:
        one = level.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            level += one.values()
        elif isinstance(one, list):
            level += one
