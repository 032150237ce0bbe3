"""The decision log: what a line of it holds, and a sink that writes lines to a file.

A record holds no text of a prompt and no credential. Who asked is told by keyed hashes, under one
hash key the same for the same account, so that lines can be counted and joined by whoever may not
know names. A line is traffic too: `guardrail check --traffic` replays it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from guardrail.errors import SettingError
from guardrail.model.effects import EFFECTS, StoreMode

LOG = logging.getLogger("guardrail")

MODES = tuple(map(str, StoreMode))
ENDINGS = ("refused", "settled", "released")
LONGEST_TEXT = 256

_HASH = {"type": "string", "pattern": "^[A-Za-z0-9_-]{16}$"}
_TEXT = {"type": "string", "maxLength": LONGEST_TEXT}
_OR_NONE = {"type": ["string", "null"], "maxLength": LONGEST_TEXT}
_AMOUNTS = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}
_SHADOW = {
    "type": "object",
    "properties": {"rule": _TEXT, "effect": {"enum": EFFECTS}, "reason": _OR_NONE},
    "required": ["rule", "effect", "reason"],
    "additionalProperties": False,
}

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "a line of guardrail's decision log, version 1",
    "type": "object",
    "properties": {
        "v": {"const": 1},
        "ts": {"type": "number", "description": "of the decision, in seconds since the epoch"},
        "id": {"type": "string", "description": "as in the answer's x-request-id or request-id"},
        "request_id": {"type": "string", "description": "the X-Request-ID it came with"},
        "trace_id": {"type": "string", "description": "of the traceparent it came with"},
        "status": {"type": "integer", "description": "of a refusal by the door, not by a rule"},
        "revision": {"type": "string", "description": "of the policies that decided, if any did"},
        "effect": {"enum": EFFECTS},
        "rule": _OR_NONE,
        "reason": _OR_NONE,
        "owner": {"type": "string", "description": "whom the policies name for the rule"},
        "ticket": {"type": "string", "description": "the rule's"},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "the rule's",
        },
        "retry_after": {"type": ["number", "null"], "minimum": 0},
        "mode": {"enum": MODES},
        "ending": {"enum": ENDINGS, "description": "how the request ended for its limits"},
        "endpoint": _OR_NONE,
        "capability": _OR_NONE,
        "model": _OR_NONE,
        "served": _OR_NONE,
        "country": _OR_NONE,
        "account": _HASH,
        "org": _HASH,
        "credential": _HASH,
        "network": _HASH,
        "facts": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "description": "those the policies use, names and other texts as keyed hashes",
        },
        "obligations": {"type": "object"},
        "shadow": {"type": "array", "items": _SHADOW},
        "estimate": _AMOUNTS,
        "usage": {"anyOf": [_AMOUNTS, {"type": "null"}]},
        "errors": {"type": "integer", "minimum": 0, "description": "what went wrong, counted"},
    },
    "required": ["v", "ts", "id", "revision", "effect", "rule", "reason", "mode", "ending"],
    "additionalProperties": False,
}
"""The JSON Schema of a record."""


class DecisionSink(Protocol):
    """Where records go; called in the request's own thread or loop, so it must not wait."""

    def write(self, record: Mapping[str, object]) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


class JsonLines:
    """Appends records to a file, a JSON line each, which the processes of a host may share.

    The file is opened with the first line. One that was moved away, as log rotation does, is made
    anew. A line that cannot be written, or that comes after `close`, is counted in `lost`, and
    never stops a request.
    """

    def __init__(self, path: str | Path, what: str = "the decision log") -> None:
        """Take the path of the file, and check that it can be written; `what` names it.

        Raises:
            SettingError: it cannot be opened.
        """
        self._path = Path(path)
        # A request that is collected as garbage may end within a call of the same thread.
        self._lock = threading.RLock()
        self._file = -1
        self._identity = (0, 0)
        self._closed = self._torn = False
        self.lost = 0
        try:
            self._open()
        except OSError as problem:
            why = (problem.strerror or str(problem)).lower()
            raise SettingError(f"{what} `{path}` cannot be opened: {why}") from problem
        self._let_go()

    def write(self, record: Mapping[str, object]) -> None:
        """Append one line, at once and whole."""
        line = json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
        with self._lock:
            try:
                if self._closed:
                    raise OSError(errno.EBADF, "it is closed")
                if self._moved():
                    self._let_go()
                    self._open()
                self._append(line)
            except OSError as problem:
                self.lost += 1
                if self.lost == 1:
                    LOG.error("lines of `%s` are lost: %s", self._path, problem.strerror)

    def close(self) -> None:
        """Let go of the file for good."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _append(self, line: bytes) -> None:
        # What was written of a line on a full disk stays: the next one must not be glued to it.
        piece = b"\n" + line if self._torn else line
        written = os.write(self._file, piece)
        self._torn = written < len(piece) if written else self._torn
        if written < len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o640)
        found = os.fstat(self._file)
        self._identity = (found.st_dev, found.st_ino)
        self._torn = False

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _moved(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return True
        return self._file < 0 or (found.st_dev, found.st_ino) != self._identity


_SHARE_BYTES = 8


class LoggedNames:
    """Names identifiers as a decision log does: by a hash under the hash key, 16 characters."""

    __slots__ = ("_key",)

    def __init__(self, hash_key: bytes) -> None:
        self._key = blake2b(hash_key, person=b"decision log").digest()[:32]

    def of(self, identifier: str) -> str:
        """Return how an identifier is named."""
        digest = blake2b(identifier.encode("utf-8", "replace"), key=self._key, digest_size=12)
        return urlsafe_b64encode(digest.digest()).decode("ascii")

    def part(self, identifier: str) -> Fraction:
        """Return a number from 0 to 1 that an identifier always has."""
        data = identifier.encode("utf-8", "replace")
        digest = blake2b(data, key=self._key, digest_size=_SHARE_BYTES, person=b"sample")
        return Fraction(int.from_bytes(digest.digest(), "big"), 2 ** (8 * _SHARE_BYTES))
