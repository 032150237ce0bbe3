"""Decisions written down: a JSON line a request, in the order of the traffic."""

from __future__ import annotations

import contextlib
import gzip
import heapq
import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Self, cast

import msgspec
import zstandard

from guardrail.engine import Decision, rule_facts
from guardrail.errors import DataError
from guardrail.model.effects import StoreMode
from guardrail.model.policy import PolicySet
from guardrail.traffic.requests import Request

_PLACE = 20
"""How many bytes of a numbered decision say where its request stands."""


class DecisionFile:
    """A file of decisions being written; `.gz` and `.zst` compress, `-` is the standard output.

    Facts stand as the traffic has them, and only those that the rules read.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: str, policies: PolicySet, *, numbered: bool = False) -> None:
        """Take the path; a `numbered` file says of each decision where its request stands."""
        self._path = path
        self._numbered = numbered
        used = [rule_facts(rule, policies.exemptions) for rule in policies.rules]
        self._used = tuple(sorted(set().union(*used)))
        self._encode = msgspec.json.Encoder().encode
        self._closing = contextlib.ExitStack()
        try:
            self._stream = self._open()
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._closing.close()
            if self._path == "-":
                self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as failed:
            raise self._failure(failed) from failed

    def write(
        self,
        line: int,
        ts: float,
        request: Request,
        decision: Decision,
        file: str | None = None,
        number: int = 0,
    ) -> None:
        """Write one decision; `file` names the traffic file where there are several.

        `number` is the place of the file among them.
        """
        facts = request.facts
        record: dict[str, Any] = {
            "line": line,
            "ts": ts,
            "effect": str(decision.effect),
            "rule": decision.rule,
            "reason": decision.reason,
            "retry_after": decision.retry_after,
            "obligations": dict(decision.obligations),
            "shadow": [
                {"rule": found.rule, "effect": str(found.effect), "reason": found.reason}
                for found in decision.shadow
            ],
            "facts": {name: facts[name] for name in self._used if name in facts},
        }
        if decision.mode is not StoreMode.NORMAL:
            record["mode"] = str(decision.mode)
        if file is not None:
            record["file"] = file
        data = self._encode(record)
        if self._numbered:
            data = b"%06d%014d%b" % (number, line, data)
        if self._path == "-" and not data.isascii():
            # What a terminal could obey must not reach it raw.
            data = _in_ascii(record)
        self._write(data + b"\n")

    def merge(self, paths: Sequence[str]) -> None:
        """Write what numbered files hold, in the order of the traffic, without the numbers."""
        with contextlib.ExitStack() as closing:
            files = [closing.enter_context(open(path, "rb")) for path in paths]
            for data in heapq.merge(*files, key=lambda data: data[:_PLACE]):
                record = data[_PLACE:]
                if self._path == "-" and not record.isascii():
                    record = _in_ascii(msgspec.json.decode(record)) + b"\n"
                self._write(record)

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error

    def _open(self) -> IO[bytes]:
        if self._path == "-":
            return sys.stdout.buffer
        stream: IO[bytes] = self._closing.enter_context(open(self._path, "wb"))  # noqa: SIM115
        if self._path.endswith(".gz"):
            packed = gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=4, mtime=0)
            return cast(IO[bytes], self._closing.enter_context(packed))
        if self._path.endswith(".zst"):
            return self._closing.enter_context(zstandard.ZstdCompressor().stream_writer(stream))
        return stream

    def _failure(self, error: OSError) -> DataError:
        reason = (error.strerror or str(error)).lower()
        return DataError(f"cannot write `{self._path}`: {reason}")


def _in_ascii(record: object) -> bytes:
    """Return JSON as `msgspec` spaces it, with nothing in it that a terminal could obey."""
    return json.dumps(record, separators=(",", ":")).encode()
