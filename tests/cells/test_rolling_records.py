"""Records of rolling windows against plain dicts of slots, over random histories."""

from __future__ import annotations

from random import Random

import pytest

from guardrail.model.cells import WINDOW
from guardrail.stores.cells import (
    Record,
    charged_window,
    copied,
    read_window,
    readjusted,
    united,
    windowed_slots,
)

SPAN = 5


def window(slots: dict[int, int], now: int) -> tuple[int, int]:
    """Return what counts of plain slots at a slot, and the slot that is charged."""
    newest = max([now, *slots])
    return sum(value for slot, value in slots.items() if slot > newest - SPAN), newest


@pytest.mark.parametrize("seed", range(200))
def test_a_record_of_slots_counts_what_plain_slots_do(seed: int) -> None:
    dice = Random(seed)
    records: list[Record | None] = [None, None]
    plain: list[dict[int, int]] = [{}, {}]
    now = 100
    for _ in range(60):
        now += dice.choice((0, 0, 1, 1, 2, 7, -1, -2))  # a clock may go back
        side = dice.randrange(2)
        record, slots, what = records[side], plain[side], dice.random()
        newest = window(slots, now)[1]
        if what < 0.6:
            if record is not None:
                assert read_window(record, now, SPAN) == window(slots, now)
            records[side] = charged_window(record, newest, SPAN, 3)
            slots[newest] = slots.get(newest, 0) + 3
        elif what < 0.9 and slots:
            slot, delta = dice.choice(list(slots)), dice.choice((-2, 4))
            changed = readjusted(record, slot, delta)
            if slot > newest - SPAN:  # what has left the window may be kept or not
                records[side] = record if changed is None else changed
                slot = max(slots) if delta > 0 else slot
                slots[slot] = max(0, slots[slot] + delta)
        else:
            records[side] = united(WINDOW, record, copied(records[1 - side]))
            for slot, value in plain[1 - side].items():
                slots[slot] = slots.get(slot, 0) + value
        assert list(windowed_slots(records[side])) == sorted(windowed_slots(records[side]))
        for slot in [slot for slot in slots if slot <= max(slots) - SPAN]:
            if slot not in windowed_slots(records[side]):
                del slots[slot]
