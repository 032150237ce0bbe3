"""What is said to a server: calls and replies as they are written, and in what order, in steps.

Nothing here waits: so everything that is asked of a server is written once.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Container, Generator, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple, cast

import msgspec
from hiredis import pack_command

from guardrail.model.cells import (
    CELL,
    IDENT_LENGTH,
    LEFT_OUT,
    TOP,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Form,
    Leave,
    MemberReply,
    Outcome,
    Reply,
    milliseconds,
)
from guardrail.stores.cells import GarbledError, are_numbers, check_whole
from guardrail.stores.naming import Naming
from guardrail.stores.steps import Steps

REMEMBERED = 8192
"""How many names of keys are remembered before all are forgotten: hashing costs most of a call."""
SLOTS = 16384
COUNTED = b"c"
"""What stands before a counter among the links; the scripts know it."""

Command = tuple[bytes | str | int, ...]
Commands = Generator[Command, object, None]
"""Plain commands, each of which is sent its reply."""

_ADJUST, _DRAIN, _LEAVE, _RENEW, _UNDRAIN = 1, 2, 3, 4, 5
encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name that the server knows it by once it has run."""

    text: bytes
    sha: bytes

    @classmethod
    def of(cls, text: bytes) -> Script:
        """Return the script of a text."""
        return cls(text, sha1(text, usedforsecurity=False).hexdigest().encode())


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of one layout; `settle_full` runs also where memory is full, from Redis 7 on."""

    acquire: Script
    settle: Script
    settle_full: Script


def load_scripts() -> Scripts:
    """Return the scripts that come with the package."""
    here = files(__package__)
    records, acquire, settle = (
        (here / f"{name}.lua").read_bytes() for name in ("records", "acquire", "settle")
    )
    acquire, settle = records + acquire, records + settle
    flagged = b"#!lua flags=allow-oom\n" + settle
    return Scripts(Script.of(acquire), Script.of(settle), Script.of(flagged))


@dataclass(frozen=True, slots=True)
class LinkScripts:
    """The scripts about links: one reads, one writes if nothing has changed since."""

    read: Script
    write: Script


def load_link_scripts() -> LinkScripts:
    """Return the scripts about links."""
    here = files(__package__)
    names = ("links_read.lua", "links_write.lua")
    return LinkScripts(*(Script.of((here / name).read_bytes()) for name in names))


class EndStay(NamedTuple):
    """Ends a stay that ends at `expires`, the one that nobody has renewed since."""

    key: str
    member: str
    expires: int


class Undrain(NamedTuple):
    """Takes back what a draining counter was charged at `since`, but for what has drained.

    `reach` is the counter's value after the charge and all that was refunded to it before: what
    others take back meanwhile tells nothing of this charge, which is why it is not a `Drain`.
    """

    key: str
    amount: int
    reach: int
    since: int
    ttl: int


Compensation = Correction | EndStay | Undrain
"""What takes a charge back."""


class Preconditions(NamedTuple):
    """What must hold for a call to be carried out, as the call itself states it.

    `ahead` is how many microseconds the call's time may be ahead of the server's, −1 for any;
    `before` when, by the server's clock, the names in the call are no longer good, −1 for never;
    `bound` how many keys the server may hold before unknown ones spill, −1 for any. `refuse`
    has the call refused whatever its cells say: they are answered, and nothing is charged.
    """

    ahead: int
    before: int
    bound: int
    refuse: bool = False


class Names:
    """The names of keys under one hash key; the latest are remembered."""

    __slots__ = ("_known", "_prefix", "_shared", "_tags", "links", "naming")

    def __init__(self, naming: Naming, prefix: str, shared: Container[str] = frozenset()) -> None:
        """Take the prefix of all names, and the idents of counters that accounts share."""
        self.naming = naming
        self.links = prefix.encode() + b":{links}"
        self._shared = shared
        self._prefix = prefix.encode() + b":{"
        self._tags: dict[str, bytes] = {}
        self._known: dict[str, bytes] = {}

    def tag(self, key: str) -> bytes:
        """Return what the names of all counters with the same key facts start with.

        Those that accounts share stand with the links: they move from one actor to another.
        """
        if key[:IDENT_LENGTH] in self._shared:
            return self.links
        whose = key[IDENT_LENGTH:]
        tag = self._tags.get(whose)
        if tag is None:
            if len(self._tags) >= REMEMBERED:
                self._tags = {}
            tag = self._tags[whose] = self._prefix + self.naming.whose(key) + b"}"
        return tag

    def record(self, key: str) -> bytes:
        """Return the name of a record: the keyed hash of whose it is, then which counter."""
        name = self._known.get(key)
        if name is None:
            if len(self._known) >= REMEMBERED:
                self._known = {}
            ident = key[:IDENT_LENGTH]
            if ident in self._shared:
                name = self.shared(self.naming.whose(key), ident)
            else:
                name = self.tag(key) + ident.encode()
            self._known[key] = name
        return name

    def shared(self, party: bytes, ident: str) -> bytes:
        """Return the name of a counter that accounts share, by the hash of whose it is."""
        return self.links + COUNTED + party + ident.encode()

    def member(self, member: str) -> str:
        """Return the name of a set's member, as text: a script's list knows no bytes."""
        return self.naming.member(member).decode()


class CallContext(NamedTuple):
    """How calls are made: under which names, on what conditions, by which scripts.

    `former` are the names of an epoch whose records are taken over when they are first needed.
    """

    names: Names
    former: Names | None
    preconditions: Preconditions
    acquire: Script
    settle: Script
    is_cluster: bool = False

    def slot(self, key: str) -> int:
        """Return the slot of a key's records: one for all limits of the same key facts."""
        return slot_of(self.names.tag(key)) if self.is_cluster else 0


packed: Callable[[Command], bytes] = pack_command  # type: ignore[assignment]
"""Returns a command as it is sent."""


class Call(NamedTuple):
    """One command to the server of a slot: a script with its keys and arguments, or a plain one.

    `asked` tells what a reply that comes too late has to be undone of; None if of nothing.
    """

    slot: int
    parts: Command
    script: Script | None = None
    asked: Form | None = None

    def command(self) -> bytes:
        """Return the command as it is sent, a script by its name."""
        if self.script is None:
            return packed(self.parts)
        return packed((b"EVALSHA", self.script.sha, *self.parts))

    def whole(self) -> bytes:
        """Return the command with the script's whole text, for a server that does not know it."""
        if self.script is None:
            return packed(self.parts)
        return packed((b"EVAL", self.script.text, *self.parts))


Ask = Callable[[Call], Steps[Any]]
"""Has one call answered, wherever its slot is; raises StoreError for an error it is answered."""


def slot_of(tag: bytes) -> int:
    """Return the cluster slot of a name with a hash tag.

    Source: the Redis Cluster specification, CRC16 (XMODEM) of what stands in braces.
    """
    return crc_hqx(tag[tag.index(b"{") + 1 : tag.index(b"}")], 0) % SLOTS


def answered(commands: Commands, ask: Callable[[Command], Steps[object]]) -> Steps[None]:
    """Have plain commands answered one after another."""
    try:
        command = next(commands)
        while True:
            command = commands.send((yield from ask(command)))
    except StopIteration:
        return


def acquired(context: CallContext, form: Form, now: int, slot: int, ask: Ask) -> Steps[list[int]]:
    """Ask the server of a slot for charges; return its reply, in numbers.

    Raises:
        GarbledError: the reply is not one of the script's.
    """
    names = context.names
    keys = [names.record(key) for key in form.keys]
    argument = _acquiring(form, now, names, context.preconditions)
    taken: tuple[bytes, ...] = ()
    if context.former is not None:
        taken = yield from taken_over(context, form.keys, keys, argument, ask)
    parts: Command = (len(keys), *keys, encode(argument), *taken)
    return read_reply((yield from ask(Call(slot, parts, context.acquire, form))))


def read_reply(reply: object) -> list[int]:
    """Return what the script that acquires answered, in numbers; see `outcome_of`.

    Raises:
        GarbledError: the reply is not one of the script's.
    """
    if are_numbers(reply):
        return reply  # type: ignore[return-value]
    raise GarbledError(f"the server answered `{reply!r}`, which is none of ours")


def settled(
    context: CallContext, corrections: Sequence[Compensation], now: int, slot: int, ask: Ask
) -> Steps[None]:
    """Have the server of a slot apply corrections.

    Raises:
        StoreError: a number is not whole or past 2⁵³ − 1; nothing was sent.
    """
    names = context.names
    places: dict[str, int] = {}
    argument: list[Any] = [now, context.preconditions.before, len(corrections)]
    ttls = [milliseconds(getattr(each, "ttl", 0)) for each in corrections]
    for each, ttl in zip(corrections, ttls, strict=True):
        place = places.setdefault(each.key, len(places) + 1)
        argument += _correcting(each, place, ttl, names)
    check_whole(*[abs(number) for number in argument if not isinstance(number, str)])
    keys = [names.record(key) for key in places]
    taken: tuple[bytes, ...] = ()
    if context.former is not None:
        taken = yield from taken_over(context, list(places), keys, argument, ask)
    parts: Command = (len(keys), *keys, encode(argument), *taken)
    yield from ask(Call(slot, parts, context.settle))


def taken_over(
    context: CallContext,
    keys: Sequence[str],
    records: Sequence[bytes],
    argument: list[object],
    ask: Ask,
) -> Steps[tuple[bytes, ...]]:
    """Look up keys under their former names; return the records found, and note which they are.

    Nobody writes those any more, so that they may be read ahead of the call.
    """
    former = cast(Names, context.former)
    by_slot: dict[int, list[str]] = {}
    for key in keys:
        slot = slot_of(former.tag(key)) if context.is_cluster else 0
        by_slot.setdefault(slot, []).append(key)
    found: dict[int, bytes] = {}
    for slot, group in sorted(by_slot.items()):
        reply = yield from ask(Call(slot, ("MGET", *map(former.record, group))))
        values = reply if isinstance(reply, list) else []
        for key, value in zip(group, values, strict=True):
            if value is not None:
                found[records.index(context.names.record(key)) + 1] = value
    argument += found
    return tuple(found.values())


def _acquiring(form: Form, now: int, names: Names, preconditions: Preconditions) -> list[object]:
    """Return the argument of the call that acquires what a form asks for."""
    _, charges, cells, members = form
    ahead, before, bound, refuse = preconditions
    head = (now, ahead, before, bound, int(refuse), len(charges) // 2)
    argument: list[object] = [*head, *charges, len(cells) // CELL, *cells]
    for place in members:
        # The number of cells stands between.
        at = len(head) + len(charges) + 1 + place
        argument[at] = names.member(cast(str, argument[at]))
    return argument


def _correcting(each: Compensation, place: int, ttl: int, names: Names) -> tuple[object, ...]:
    """Return the six values that a call states a correction with; `ttl` is in milliseconds."""
    if isinstance(each, (Leave, EndStay)):
        expires = each.expires if isinstance(each, EndStay) else 0
        return (_LEAVE, place, 0, names.member(each.member), expires, 0)
    if isinstance(each, Adjust):
        return (_ADJUST, place, ttl, each.slot, each.delta, 0)
    if isinstance(each, Drain):
        return (_DRAIN, place, ttl, each.delta, each.charged, each.refunded)
    if isinstance(each, Undrain):
        return (_UNDRAIN, place, ttl, -each.amount, each.reach, each.since)
    return (_RENEW, place, ttl, names.member(each.member), each.expires, 0)


def compensating(
    charges: Sequence[Charge], cells: Sequence[Cell], outcome: Outcome, *, strikes: bool = True
) -> list[tuple[int, Compensation]]:
    """Return what takes back what an outcome says was charged, each with its charge's index.

    With `strikes` also what followed a refusal.
    """
    found: list[tuple[int, Compensation]] = []
    left_out = {
        cell.charge
        for cell, reply in zip(cells, outcome.replies, strict=True)
        if reply.spilled and cell.spill == LEFT_OUT
    }
    for cell, reply in zip(cells, outcome.replies, strict=True):
        charge = charges[cell.charge]
        tried = outcome.admitted if charge.after is None else outcome.refused[charge.after]
        if not tried or outcome.refused[cell.charge] or cell.charge in left_out:
            continue
        if charge.after is None or strikes:
            compensation = _compensation(cell, reply)
            if compensation is not None:
                found.append((cell.charge, compensation))
    return found


def _compensation(cell: Cell, reply: Reply) -> Compensation | None:
    key = cast(str, cell.spill) if reply.spilled else cell.key
    if not isinstance(cell, Counter):
        new = not cast(MemberReply, reply).present
        return EndStay(key, cell.member, cell.expires) if new else None
    counted = cast(CounterReply, reply)
    if cell.amount and cell.floor:
        reach = min(counted.used + cell.amount + counted.refunded, TOP)
        return Undrain(key, cell.amount, reach, cell.floor, cell.ttl)
    return Adjust(key, counted.slot, -cell.amount, cell.ttl) if cell.amount else None
