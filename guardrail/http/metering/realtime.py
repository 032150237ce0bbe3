"""Meters a Realtime connection by its turns: each response and each transcription.

A response starts with the client's `response.create`, or, where the session detects speech, with
the host's `response.created` that no client asked for; it ends with `response.done`. Sound that
is committed to a session that transcribes is a turn of its own: it ends with the event that
completes its transcription. Names are those of OpenAI, today's and the beta's, and of vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import decoded, object_of, text_of
from guardrail.http.metering.texts import BYTES_PER_TOKEN
from guardrail.http.metering.turns import (
    NOTHING,
    Event,
    EventMeter,
    Frame,
    Running,
    Turn,
    doubtful,
    obey,
)
from guardrail.http.metering.usage_formats import figures_of
from guardrail.http.parsing.caps import REALTIME
from guardrail.http.parsing.endpoints import LONGEST_MODEL
from guardrail.http.parsing.json_body import inner_of, members_of
from guardrail.http.parsing.members import members_in, strictest, tools_in
from guardrail.http.parsing.obligations import disabled_by
from guardrail.http.parsing.rewriting import rewritten_response
from guardrail.http.parsing.shape import shape_of
from guardrail.http.parsing.values import RewriteError, UnreadableError

CAPS = REALTIME.names
"""Members that cap a response: today's name, and the beta's."""
QUIET = frozenset(
    "session.update transcription_session.update input_audio_buffer.append "
    "input_audio_buffer.commit input_audio_buffer.clear output_audio_buffer.clear "
    "conversation.item.create conversation.item.retrieve conversation.item.truncate "
    "conversation.item.delete response.cancel".split()
)
"""What a client may send without asking for a response."""

_UPDATES = frozenset({"session.update", "transcription_session.update"})
_SESSIONS = frozenset(
    "session.created session.updated transcription_session.created "
    "transcription_session.updated".split()
)
_ENVELOPE = frozenset({"type", "event_id", "response", "session"})
_KEPT = ("tools", "prompt", "instructions", "modalities", "output_modalities", "reasoning", *CAPS)
_TRANSCRIBED = "conversation.item.input_audio_transcription."
_TRANSCRIPTION = "transcription"
_AUDIO_BYTES_PER_TOKEN = 4_096
_MOST_UNCONFIRMED = 64
_MOST_HANDED = 1_024


class RealtimeMeter(EventMeter):
    """Follows a Realtime connection.

    A session has what the host says it has. What the client has changed and the host has not
    confirmed may be in force or not: of tools and stored prompts, both count.
    """

    speaks_errors = True

    def __init__(self, *, transcribes: bool = False, stored: bool = False, **more: Any) -> None:
        """Take whether the address asks for transcription alone, as `intent=transcription` does.

        `stored` tells that the session was set up before, by another request, and may have what
        is not seen here until the host tells.
        """
        super().__init__(**{"endpoint": "/v1/realtime", **more})
        self._session: dict[str, Any] = {}
        self._unconfirmed: list[tuple[str | None, dict[str, Any]]] = []
        self._stored = stored
        self._only_transcribes = transcribes
        self._transcribes: bool | None = True if transcribes else None
        self._sound = 0
        # The tools that items of the conversation hand over, and the models that its changes named
        # and no word of the host's told from those in force.
        self._handed: list[Any] = []
        self._claimed: set[str] = set()

    def sent(self, frame: Frame) -> list[Event]:
        """Take a frame of the client's; return the turn that it asks for, if it asks for one."""
        kind, event = frame.kind, frame.event
        tokens = self._tokens(frame)
        try:
            if frame.problem is not None:
                raise UnreadableError(frame.problem)
            if kind == "response.create":
                return [replace(self._response(_asked(event), tokens), event_id=frame.event_id)]
            if kind in _UPDATES:
                self._update(event)
            if kind == "conversation.item.create":
                self._hand_over(object_of(event, "item"))
        except UnreadableError as error:
            return [self._most_restricted(tokens, problem=str(error), event_id=frame.event_id)]
        if kind not in QUIET:
            return [self._most_restricted(tokens, brief=True, event_id=frame.event_id)]
        if kind == "input_audio_buffer.append":
            self._sound += tokens
        self._context += tokens
        if kind == "input_audio_buffer.commit" and self._commits(event):
            return [replace(self._transcription(), event_id=frame.event_id)]
        return []

    def received(self, frame: str | bytes) -> list[Event]:
        """Take a frame of the host's; return the turns that start and end with it."""
        event = decoded(frame) or {}
        kind = event.get("type")
        if not isinstance(kind, str):
            return []
        if kind in _SESSIONS:
            self._told(object_of(event, "session"), created=kind.endswith("created"))
        elif kind == "response.created":
            return self._started("response", text_of(object_of(event, "response"), "id"))
        elif kind == "response.done":
            return self._done(object_of(event, "response"))
        elif kind == "input_audio_buffer.committed" and self._transcribes:
            return self._started(_TRANSCRIPTION, text_of(event, "item_id"))
        elif kind in (f"{_TRANSCRIBED}completed", f"{_TRANSCRIBED}failed", "transcription.done"):
            return self._transcribed(event, failed=kind.endswith("failed"))
        elif kind == "error":
            return self._error(event)
        elif kind.endswith(".delta"):
            self._delta(kind, event)
        return []

    def cancel(self, turn: Turn) -> str | None:
        """Return the frame that ends a response; a transcription cannot be ended."""
        if turn.family != "response":
            return None
        named = {} if turn.name is None else {"response_id": turn.name}
        return msgspec.json.encode({"type": "response.cancel", **named}).decode()

    def changed(self, frame: Frame, turn: Turn, obligations: Mapping[str, object]) -> bytes | None:
        """Return a turn's frame changed as obliged, None if it may stay as it is."""
        if turn.automatic or turn.brief or turn.family != "response":
            obey(turn, obligations)
            return None
        members = members_of(frame.text)
        response = inner_of(members, "response") or {}
        known = [self._session, *(session for _, session in self._unconfirmed)]
        if self._handed and "tools" in disabled_by(obligations):
            raise RewriteError("the conversation holds tools, which cannot be taken out of it")
        beta = CAPS[1] in response or any(CAPS[1] in session for session in known)
        if any(session.get("prompt") for session in known):
            raise RewriteError("the session has a stored prompt, which is not seen here")
        return rewritten_response(members, response, turn.facts, obligations, CAPS[beta])

    # What the client sends.

    def _tokens(self, frame: Frame) -> int:
        """Return a frame's tokens; sound is not counted as the text that it is written in."""
        if not _sound_in(frame.event):
            return frame.tokens
        # What was read may have long texts cut short.
        sound = _sound_in(decoded(frame.text) or {})
        text = max(len(frame.text) - sound, 0) // BYTES_PER_TOKEN
        return text + sound // _AUDIO_BYTES_PER_TOKEN + 1

    def _update(self, event: Mapping[str, Any]) -> None:
        """Take a change of the session that the host may or may not confirm."""
        session = object_of(event, "session") or {
            name: value for name, value in event.items() if name not in _ENVELOPE
        }
        changed = {name: session[name] for name in (*_KEPT, "model") if name in session}
        self._shape(changed, {})  # a session that no turn could start from is a problem
        if len(self._unconfirmed) >= _MOST_UNCONFIRMED:
            raise UnreadableError("too many changes of the session wait for the host; wait for it")
        changed |= {"transcribes": True} if _may_transcribe(session, event) else {}
        self._unconfirmed.append((text_of(event, "event_id"), changed))
        if changed.get("transcribes"):
            self._transcribes = True

    def _hand_over(self, item: Mapping[str, Any]) -> None:
        """Take the tools that an item of the conversation holds; it stays, and so do they."""
        self._handed += tools_in(members_in(item))
        if len(self._handed) > _MOST_HANDED:
            raise UnreadableError("the conversation holds too many tools; open another one")

    def _commits(self, event: Mapping[str, Any]) -> bool:
        """Whether committing sound asks for its transcription; in doubt it does."""
        if self._transcribes is None and event.get("final") is True:
            # The last piece of sound whose transcription runs already, as vLLM has it.
            return self._oldest(lambda one: one.turn.family == _TRANSCRIPTION) is None
        return self._transcribes is not False

    def _response(
        self, response: Mapping[str, Any], tokens: int, *, automatic: bool = False, **more: Any
    ) -> Turn:
        session: dict[str, Any] = dict(self._session)
        tools = list(_listed(session.get("tools")))
        unseen = self._stored or bool(session.get("prompt"))
        for _, changed in self._unconfirmed:
            session |= {name: value for name, value in changed.items() if name in _KEPT}
            tools += [tool for tool in _listed(changed.get("tools")) if tool not in tools]
            unseen |= bool(changed.get("prompt"))
        if response.get("tools") is not None:
            unseen = bool(session.get("prompt"))
        else:
            response = {**response, "tools": tools}
        if self._handed:
            response = {**response, "additional_tools": self._handed}
        unseen |= bool(response.get("prompt"))
        facts, cap = self._shape(session, response)
        if unseen:
            facts = doubtful(facts)
        estimate = {"requests": 1, "input_tokens": self._context + tokens}
        if cap is not None:
            estimate["output_tokens"] = cap
        return Turn(
            number=self._next(), facts=facts, estimate=estimate, automatic=automatic, **more
        )

    def _shape(
        self, session: Mapping[str, Any], response: Mapping[str, Any]
    ) -> tuple[dict[str, object], int | None]:
        """Return the facts of a response in a session, and its cap."""
        members = {**session, **response}
        endless = any(response.get(name) == "inf" for name in CAPS)
        for name in CAPS:
            if endless or members.get(name) == "inf":
                members[name] = None
        members.pop("transcribes", None)
        members.pop("model", None)
        shape = shape_of(members, strictest("audio", "chat"), REALTIME)
        facts = shape.facts(self._hash_key) | {"request.stream": True}
        model = self._named(response)
        if model is not None:
            facts["request.model"] = model
        return {"request.endpoint": self._endpoint, **facts}, shape.counts.output_tokens

    def _named(self, response: Mapping[str, Any]) -> str | None:
        """Return the session's model, None where its address, its host and its client differ."""
        told = text_of(self._session, "model")
        names = {told if told is not None else self._model, text_of(response, "model")}
        names |= {text_of(changed, "model") for _, changed in self._unconfirmed} | self._claimed
        names -= {None}
        model = names.pop() if len(names) == 1 else None
        return None if model is None else model[:LONGEST_MODEL]

    def _transcription(self, *, automatic: bool = False, name: str | None = None) -> Turn:
        model = text_of(self._session, "transcription") or self._named({})
        sound, self._sound = self._sound, 0
        return self._hearing(
            None if model is None else model[:LONGEST_MODEL],
            {"input_tokens": sound + 1},
            automatic=automatic,
            family=_TRANSCRIPTION,
            name=name,
        )

    # What the host sends.

    def _told(self, session: Mapping[str, Any], *, created: bool) -> None:
        if not session:
            return
        self._stored = False
        self._session |= {name: session[name] for name in (*_KEPT, "model") if name in session}
        if "model" in session:
            self._claimed.clear()
        elif not created:
            named = {text_of(changed, "model") for _, changed in self._unconfirmed[:1]}
            # More than two say no more than two: that the model is not known.
            self._claimed = {*sorted(self._claimed)[:1], *(name for name in named if name)}
        if not created:
            del self._unconfirmed[:1]
        wanted = _transcription_of(session)
        hears = text_of(wanted, "model") if isinstance(wanted, dict) else None
        if hears is not None:
            self._session["transcription"] = hears
        only = self._only_transcribes or session.get("type") == _TRANSCRIPTION
        pending = any(changed.get("transcribes") for _, changed in self._unconfirmed)
        self._transcribes = only or bool(wanted) or pending

    def _started(self, family: str, name: str | None) -> list[Event]:
        if self._begun(name, lambda one: one.turn.family == family):
            return []
        if family == _TRANSCRIPTION:
            turn = self._transcription(automatic=True, name=name)
        else:
            turn = self._response({}, 0, automatic=True, name=name)
        self._unasked(turn)
        return [turn]

    def _of(self, family: str, name: str | None) -> Running | None:
        return self._oldest(
            lambda one: one.turn.family == family and one.turn.name == name is not None
        )

    def _ending(self, family: str, name: str | None) -> tuple[Running, list[Event]]:
        """Return the turn that an event ends; one that was never told of starts with it."""
        running = self._of(family, name) or self._oldest(
            lambda one: one.turn.family == family and (name is None or one.turn.name is None)
        )
        if running is not None:
            return running, []
        started = self._started(family, name)
        turn = next(event for event in started if isinstance(event, Turn))
        return self._running[turn.number], started

    def _done(self, response: Mapping[str, Any]) -> list[Event]:
        running, started = self._ending("response", text_of(response, "id"))
        told = figures_of(object_of(response, "usage"), UsageFormat.OPENAI_RESPONSES)
        ended = self._end(running, told, response, failed=response.get("status") == "failed")
        return [*started, ended]

    def _transcribed(self, event: Mapping[str, Any], *, failed: bool) -> list[Event]:
        running, started = self._ending(_TRANSCRIPTION, text_of(event, "item_id"))
        text = text_of(event, "transcript", "text")
        if text and not running.output.pieces:
            running.passed(text)
        told = figures_of(object_of(event, "usage"), UsageFormat.OPENAI_RESPONSES)
        return [*started, self._end(running, told, event, failed=failed)]

    def _error(self, event: Mapping[str, Any]) -> list[Event]:
        """Take that the host refuses: the turn whose frame it names, or one that never started."""
        told = object_of(event, "error")
        name = text_of(told, "event_id")
        if name is not None:
            self._unconfirmed = [one for one in self._unconfirmed if one[0] != name]
        about = f"{text_of(told, 'code')} {text_of(told, 'param')}"
        if name is None and text_of(told, "param") in ("model", "session.model"):
            # The oldest change that names a model, and has no name of its own, is not to be.
            unnamed = (one for one in self._unconfirmed if one[0] is None and "model" in one[1])
            refused = next(unnamed, None)
            self._unconfirmed = [one for one in self._unconfirmed if one is not refused]

        def meant(one: Running) -> bool:
            if one.started:
                return False
            if name is not None:
                return one.turn.event_id == name
            if one.turn.family == _TRANSCRIPTION:
                return self._transcribes is None or "buffer" in about or "commit" in about
            return "response" in about

        running = self._oldest(meant)
        if running is None:
            return []
        failed = told.get("type") == "server_error"
        return [self._end(running, NOTHING, failed=failed)]

    def _delta(self, kind: str, event: Mapping[str, Any]) -> None:
        delta = event.get("delta")
        if not isinstance(delta, str):
            return
        transcribed = kind in (f"{_TRANSCRIBED}delta", "transcription.delta")
        family = _TRANSCRIPTION if transcribed else "response"
        name = text_of(event, "item_id" if transcribed else "response_id")
        running = self._of(family, name) or self._oldest(lambda one: one.turn.family == family)
        if running is not None:
            running.passed(delta, media=kind.endswith("audio.delta"))


def _asked(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a frame asks for.

    Raises:
        UnreadableError: what decides stands beside the place where it belongs.
    """
    beside = {name: event[name] for name in event if name not in _ENVELOPE}
    if any(name in beside for name in (*_KEPT, "model", "input")):
        raise UnreadableError("what the response is to be stands beside `response`; put it there")
    response = event.get("response")
    if response is not None and not isinstance(response, dict):
        raise UnreadableError("`response` is no object; send the response's members in one")
    return response or {}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _transcription_of(session: Mapping[str, Any]) -> object:
    """Return how a session transcribes what it hears, None if it does not."""
    beta = session.get("input_audio_transcription")
    if beta is not None:
        return beta
    return object_of(object_of(session, "audio"), "input").get("transcription")


def _may_transcribe(session: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    only = session.get("type") == _TRANSCRIPTION or str(event.get("type")).startswith("transcr")
    return only or _transcription_of(session) is not None


def _sound_in(event: Mapping[str, Any]) -> int:
    """Return how many characters of sound a frame carries."""
    pieces = [event]
    item = event.get("item")
    pieces += [item] if isinstance(item, dict) else []
    pieces += _listed(object_of(event, "response").get("input"))
    size = 0
    for piece in pieces:
        if isinstance(piece, dict):
            for part in (piece, *_listed(piece.get("content"))):
                sound = part.get("audio") if isinstance(part, dict) else None
                size += len(sound) if isinstance(sound, str) else 0
    return size
