"""Takes the usage chunk out of a stream whose client did not ask for it."""

from __future__ import annotations

import re

import msgspec

LONGEST = 1 << 20
"""An event longer than this many bytes is none of usage; it is passed on as it comes."""

_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r(?!\n)|\n)")


class UsageStripper:
    """Passes a server-sent stream on, event by event, without the chunk that tells the usage.

    That chunk has no choices, or none that says anything. Only the end of an event that is not
    complete yet is held back.
    """

    def __init__(self) -> None:
        self._held = b""
        self._passing = False
        # Whether the last event ended in a CR whose LF may be still to come, and was passed on.
        self._open: bool | None = None

    def feed(self, chunk: bytes, *, last: bool) -> bytes:
        """Return what of the stream so far may be passed on."""
        if self._passing:
            return chunk
        before = b""
        if self._open is not None and chunk:
            if chunk.startswith(b"\n"):
                before, chunk = b"\n" if self._open else b"", chunk[1:]
            self._open = None
        whole, self._held = _whole_events(self._held + chunk)
        kept = [event for event in whole if not _is_usage(event)]
        passed = before + b"".join(kept)
        if whole and not self._held and whole[-1].endswith(b"\r"):
            self._open = bool(kept) and kept[-1] is whole[-1]
        if last or len(self._held) > LONGEST:
            self._passing = True
            passed, self._held = passed + self._held, b""
        return passed


def _whole_events(text: bytes) -> tuple[list[bytes], bytes]:
    """Split a stream after each blank line; the rest is an event still being written."""
    events: list[bytes] = []
    start = 0
    for end in _END.finditer(text):
        events.append(text[start : end.end()])
        start = end.end()
    return events, text[start:]


def _is_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    if not isinstance(chunk, dict) or not chunk.get("usage"):
        return False
    choices = chunk.get("choices")
    return isinstance(choices, list) and not any(map(_says_something, choices))


def _says_something(choice: object) -> bool:
    """Tell whether a client would miss a choice: LiteLLM sends its usage with an empty one."""
    if not isinstance(choice, dict) or choice.get("finish_reason") or choice.get("text"):
        return True
    delta = choice.get("delta") or {}
    return not isinstance(delta, dict) or any(delta.values()) or bool(choice.get("logprobs"))
