"""What is said to one server for one decision or one settlement, without any input or output.

A dialogue is a generator: it yields calls, is sent replies, and returns what came of them.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from guardrail.model.cells import Outcome
from guardrail.model.forms import Asked
from guardrail.stores.redis.wire import (
    Names,
    Packed,
    Terms,
    Undo,
    acquire_call,
    read_reply,
    settle_call,
)

SLOTS = 16384
ACQUIRE, SETTLE, LOOK, PLAIN = "acquire", "settle", "look", "plain"


class Call(NamedTuple):
    """One command to the server of a slot.

    `kind` is the script to run, `LOOK` for a plain reading of the keys, or `PLAIN` where `keys`
    are a command as it is. `asked` tells what a reply to `ACQUIRE` that comes too late has to be
    undone of.
    """

    kind: str
    slot: int
    keys: Sequence[bytes | str | int]
    arguments: tuple[bytes, ...] = ()
    asked: Asked | None = None


Dialogue = Generator[Call, object, Outcome]
Settlement = Generator[Call, object, None]


class Speech(NamedTuple):
    """How calls are made: under which names, on what terms, and whether to a cluster.

    `former` are the names of an epoch whose records are taken over when they are first needed.
    """

    names: Names
    former: Names | None
    terms: Terms
    spread: bool

    def slot(self, key: str) -> int:
        """Return the slot of a key's records: one for all limits of the same key facts."""
        return slot_of(self.names.tag(key)) if self.spread else 0


def slot_of(tag: bytes) -> int:
    """Return the cluster slot of a name with a hash tag.

    Source: the Redis Cluster specification, CRC16 (XMODEM) of what stands in braces.
    """
    return crc_hqx(tag[tag.index(b"{") + 1 : tag.index(b"}")], 0) % SLOTS


def parted(speech: Speech, corrections: Sequence[Undo]) -> list[list[Undo]]:
    """Return corrections in parts that one call each can take, in the order of their slots."""
    by_slot: dict[int, list[Undo]] = {}
    for correction in corrections:
        by_slot.setdefault(speech.slot(correction.key), []).append(correction)
    return [part for _, part in sorted(by_slot.items())]


def settling(speech: Speech, part: Sequence[Undo], now: int) -> Settlement:
    """Have corrections of one slot applied."""
    slot = speech.slot(part[0].key)
    packed = settle_call(part, now, speech.names, speech.terms)
    taken = yield from _taken_over(speech, [each.key for each in part], packed, slot)
    yield Call(SETTLE, slot, packed.keys, packed.encoded(taken))


def spoken(
    commands: Generator[tuple[bytes | str | int, ...], object, None], slot: int
) -> Settlement:
    """Have plain commands answered by the server of a slot."""
    try:
        command = next(commands)
        while True:
            reply = yield Call(PLAIN, slot, command)
            command = commands.send(reply)
    except StopIteration:
        return


def acquired(
    speech: Speech, asked: Asked, now: int, slot: int, *, refuse: bool
) -> Generator[Call, object, list[int]]:
    """Ask one slot for charges; return its reply, in numbers.

    With `refuse` the request is refused whatever the cells say: they are only answered.
    """
    terms = speech.terms._replace(refuse=True) if refuse else speech.terms
    form = asked.form
    packed = acquire_call(form, now, speech.names, terms)
    taken = yield from _taken_over(speech, form.keys, packed, slot)
    reply = yield Call(ACQUIRE, slot, packed.keys, packed.encoded(taken), asked)
    return read_reply(reply)


def asking(speech: Speech, asked: Asked, now: int) -> Call:
    """Return the one call that `acquired` makes of a single server without former names."""
    packed = acquire_call(asked.form, now, speech.names, speech.terms)
    return Call(ACQUIRE, 0, packed.keys, packed.encoded(), asked)


def _taken_over(
    speech: Speech, keys: Sequence[str], packed: Packed, slot: int
) -> Generator[Call, object, Mapping[int, bytes]]:
    """Look up the records of keys under their former names, by their places in the call.

    Nobody writes those any more, so that they may be read ahead of the call.
    """
    former = speech.former
    if former is None:
        return {}
    every = list(dict.fromkeys(keys))
    by_slot: dict[int, list[str]] = {}
    for key in every:
        by_slot.setdefault(slot_of(former.tag(key)) if speech.spread else 0, []).append(key)
    found: dict[int, bytes] = {}
    for at, group in sorted(by_slot.items()):
        reply = yield Call(LOOK, at, [former.record(key) for key in group])
        values = reply if isinstance(reply, list) else []
        for key, value in zip(group, values, strict=True):
            if value is not None:
                found[packed.keys.index(speech.names.record(key)) + 1] = value
    return found
