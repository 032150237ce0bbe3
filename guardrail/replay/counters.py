"""Counters of a replay saved to a file, for a later replay to start from.

The first line of a file is its heading; each further line is a counter: its key, for how long it is
kept, and what it holds. Keys hold who is counted, as the traffic has it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any, cast

import msgspec

from guardrail.errors import DataError
from guardrail.model.policy import PolicySet
from guardrail.stores.memory import MemoryStore

KIND = "guardrail counters 1"


def save_counters(store: MemoryStore, policies: PolicySet, path: str, now: float) -> int:
    """Write every counter of a store as it stands at `now` (seconds); return how many.

    Raises:
        DataError: the file cannot be written.
    """
    encode = msgspec.json.Encoder().encode
    heading = {"kind": KIND, "policy": policies.name, "revision": policies.revision, "ts": now}
    count = 0
    try:
        with ExitStack() as closing:
            stream = _opened(path, "wb", closing)
            stream.write(encode(heading) + b"\n")
            for lifetime, key, record in store.kept():
                stream.write(encode([key, lifetime, *_written(record)]) + b"\n")
                count += 1
    except OSError as error:
        raise DataError(f"cannot write `{path}`: {_why(error)}") from error
    return count


def seed_counters(store: MemoryStore, policies: PolicySet, path: str) -> int:
    """Put saved counters into a store; return how many.

    Raises:
        DataError: the file cannot be read, holds none, or they are another policy's.
    """
    count, now = 0, 0
    try:
        with ExitStack() as closing:
            lines = iter(_opened(path, "rb", closing))
            now = round(_heading(next(lines, b""), policies, path) * 1_000_000)
            for number, line in enumerate(lines, 2):
                try:
                    key, lifetime, kind, value = json.loads(line)
                    store.put_back(str(key), int(lifetime), _record(kind, value), now)
                except (ValueError, TypeError, AttributeError) as error:
                    raise DataError(f"`{path}` line {number:,} is no counter") from error
                count += 1
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read `{path}`: {_why(error)}") from error
    return count


def _heading(line: bytes, policies: PolicySet, path: str) -> float:
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("kind") != KIND:
        raise DataError(
            f"`{path}` holds no counters: write them with `guardrail check … --save-counters FILE`"
        )
    if told.get("policy") != policies.name:
        raise DataError(
            f"`{path}` holds the counters of policy `{told.get('policy')}`, not of "
            f"`{policies.name}`"
        )
    moment = told.get("ts")
    return float(moment) if isinstance(moment, int | float) else 0.0


def _written(record: Any) -> Iterator[object]:
    if isinstance(record, int):
        yield from ("number", record)
    elif isinstance(record, tuple):
        yield from ("pair", list(record))
    else:
        texts = all(isinstance(name, str) for name in record)
        yield from ("members" if texts else "slots", {str(k): v for k, v in record.items()})


def _record(kind: str, value: Any) -> Any:
    if kind == "number":
        return int(value)
    if kind == "pair":
        one, other = value
        return int(one), int(other)
    if kind == "members":
        return {str(member): int(expiry) for member, expiry in value.items()}
    if kind == "slots":
        return {int(slot): int(amount) for slot, amount in value.items()}
    raise ValueError(kind)


def _opened(path: str, mode: str, closing: ExitStack) -> IO[bytes]:
    stream: Any = closing.enter_context(open(path, mode))  # noqa: SIM115
    if not path.endswith(".gz"):
        return cast(IO[bytes], stream)
    packed = gzip.GzipFile(filename="", fileobj=stream, mode=mode, mtime=0)
    return cast(IO[bytes], closing.enter_context(packed))


def _why(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return (strerror or str(error)).lower()
