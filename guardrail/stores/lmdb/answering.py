"""Answers a form on the records themselves, where all it asks for is admitted."""

from __future__ import annotations

from typing import Any

from guardrail.model.cells import TOP
from guardrail.model.forms import CELL, MILLISECOND, SET, Form
from guardrail.stores.lmdb import codec
from guardrail.stores.lmdb.ledger import Change, Ledger
from guardrail.stores.records import (
    charged_window,
    entered,
    furthest_slot,
    read_members,
    read_window,
)

Found = tuple[tuple[int, int, int, int, int], bytes]
"""A cell's reply, and what its record says once it is charged."""


def answer(ledger: Ledger, form: Form) -> list[int] | None:
    """Charge what a form asks for and return the reply, if all of it is admitted.

    Else, and where a record may stand elsewhere (a credential is unknown, names are changing) or
    is charged twice, return None: nothing is changed, and its cells decide.
    """
    keys, charges, cells, _ = form
    if ledger.renaming:
        return None
    get, name_of, now = ledger.transaction.get, ledger.namer.name, ledger.now
    _, home, guests = ledger.homes
    reply = [1, *(0 for _ in range(len(charges) // 2))]
    changes: list[Change] = []
    for start in range(0, len(cells), CELL):
        cell: Any = cells[start : start + CELL]
        kind, charge, place, ttl, spill, _, _, floor, amount, _ = cell
        name = name_of(keys[place - 1])
        data: Any = get(name, None, home)
        if spill or (data is None and get(name, None, guests) is not None):
            return None
        expires = codec.expiry(now, ttl * MILLISECOND)
        if kind == SET:
            found = _member(ledger, cell, data, expires)
        else:
            found = (_line if floor else _window)(cell, data, expires)
        if found is None:
            return None
        told, record = found
        reply += told
        # What comes after a charge is for when that one is refused.
        if not charges[2 * charge - 1] and (amount or kind == SET):
            changes.append((name, record, home, data is None, None))
    if len({change[0] for change in changes}) < len(changes):
        return None
    ledger.plain += changes
    return reply


def _line(cell: Any, data: bytes | None, expires: int) -> Found | None:
    _, _, _, _, _, _, _, floor, amount, ceiling = cell
    value = refunded = 0
    if data is not None:
        record = codec.read_line(data)
        value, refunded = (record, 0) if record.__class__ is int else record
    used = value if value > floor else floor
    if used + amount > ceiling >= 0:
        return None
    until = min(used + amount, TOP)
    record = (until, refunded) if refunded else until
    return (used, 0, -1, refunded, 0), codec.line(record, expires)


def _window(cell: Any, data: bytes | None, expires: int) -> Found | None:
    _, _, _, ttl, _, present, span, _, amount, ceiling = cell
    used, slot, record = 0, present, None
    if data is not None:
        record = codec.read_windowed(data)
        used, slot = read_window(record, slot, span)
        if slot > present and slot > furthest_slot(present, span, ttl * MILLISECOND):
            return None
    if used + amount > ceiling >= 0:
        return None
    record = charged_window(record, slot, span, amount)
    return (used, slot, -1, 0, 0), codec.windowed(record, expires)


def _member(ledger: Ledger, cell: Any, data: bytes | None, expires: int) -> Found | None:
    _, _, _, _, _, member, until, _, _, ceiling = cell
    record = None if data is None else codec.read_members(data)
    name = ledger.member(member)
    live, present = read_members(record, name, ledger.now)
    if live >= ceiling >= 0 and not present:
        return None
    changed = codec.members(entered(record, name, until, ledger.now), expires)
    return (live, int(present), -1, 0, 0), changed
