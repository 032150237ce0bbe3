"""What a store must do, written to be obviously right: plain dicts, every sum made anew."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.model.cells import (
    TOP,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Leave,
    Member,
    MemberReply,
    Outcome,
    Renew,
    Reply,
)


class Definition:
    """The cells of a store: per key slots and values, a refunded total, or members."""

    def __init__(self) -> None:
        self.slots: dict[str, dict[int, int]] = {}
        self.refunded: dict[str, int] = {}
        self.members: dict[str, dict[str, int]] = {}

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate every cell, then apply every charge that may be."""
        replies: list[Reply] = []
        refused = [False] * len(charges)
        for cell in cells:
            reply, full = self._counter(cell) if isinstance(cell, Counter) else self._set(cell, now)
            replies.append(reply)
            refused[cell.charge] |= full
        admitted = not any(
            no and charge.binding and charge.after is None
            for no, charge in zip(refused, charges, strict=True)
        )
        for i, charge in enumerate(charges):
            if charge.after is not None and not refused[charge.after]:
                refused[i] = False  # never tried, so nothing comes after it either
        applied = [
            (admitted if charge.after is None else refused[charge.after]) and not no
            for charge, no in zip(charges, refused, strict=True)
        ]
        for cell, reply in zip(cells, replies, strict=True):
            if applied[cell.charge]:
                self._apply(cell, reply, now)
        return Outcome(admitted, refused, replies)

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Correct what was charged."""
        for correction in corrections:
            if isinstance(correction, Leave):
                self.members.get(correction.key, {}).pop(correction.member, None)
            elif isinstance(correction, Renew):
                members = self.members.get(correction.key, {})
                if members.get(correction.member, 0) > now:
                    members[correction.member] = max(members[correction.member], correction.expires)
            elif isinstance(correction, Adjust):
                self._adjust(correction)
            else:
                self._drain(correction, now)

    def _counter(self, cell: Counter) -> tuple[CounterReply, bool]:
        record = self.slots.get(cell.key, {})
        slot = max([cell.slot, *record])
        counted = {k: v for k, v in record.items() if slot - cell.span < k < slot}
        used = sum(counted.values()) + max(record.get(slot, 0), cell.floor)
        full = cell.ceiling is not None and used + cell.amount > cell.ceiling
        frees = None
        if full and cell.span > 1:
            gone = [
                k
                for k in sorted(counted)
                if used - sum(v for j, v in counted.items() if j <= k) + cell.amount
                <= (cell.ceiling or 0)
            ]
            frees = gone[0] if gone else slot
        return CounterReply(used, slot, frees, self.refunded.get(cell.key, 0)), full

    def _set(self, cell: Member, now: int) -> tuple[MemberReply, bool]:
        live = {m: e for m, e in self.members.get(cell.key, {}).items() if e > now}
        present = cell.member in live
        full = cell.ceiling is not None and not present and len(live) >= cell.ceiling
        frees = None
        if full and cell.ceiling:
            frees = sorted(live.values())[len(live) - cell.ceiling]
        return MemberReply(len(live), present, frees), full

    def _apply(self, cell: Cell, reply: Reply, now: int) -> None:
        if not isinstance(cell, Counter):
            members = {m: e for m, e in self.members.get(cell.key, {}).items() if e > now}
            members[cell.member] = max(members.get(cell.member, 0), cell.expires)
            self.members[cell.key] = members
        elif cell.amount:
            record = self.slots.get(cell.key, {})
            slot = max([cell.slot, *record])
            kept = {k: v for k, v in record.items() if slot - cell.span < k}
            value = max(record.get(slot, 0), cell.floor) + cell.amount
            self.slots[cell.key] = {**kept, slot: min(value, TOP)}

    def _adjust(self, correction: Adjust) -> None:
        record = self.slots.get(correction.key, {})
        slot = max([correction.slot, *record]) if correction.delta > 0 else correction.slot
        if correction.delta > 0 or slot in record:
            value = record.get(slot, 0) + correction.delta
            self.slots[correction.key] = {**record, slot: min(max(0, value), TOP)}

    def _drain(self, correction: Drain, now: int) -> None:
        value = self.slots.get(correction.key, {}).get(0, 0)
        total = self.refunded.get(correction.key, 0)
        if correction.delta >= 0:
            self.slots[correction.key] = {
                0: min((value or correction.charged) + correction.delta, TOP)
            }
            return
        undrained = correction.charged - now - (total - correction.refunded)
        refund = max(0, min(-correction.delta, undrained))
        self.slots[correction.key] = {0: value - refund}
        self.refunded[correction.key] = total + refund
