"""Which names a store's records have: by which hash key, in which layout, and since when.

An epoch is a layout with a hash key. Processes of two releases, or with two keys, share counters
while they are rolled: whoever brings a new epoch announces it with a time, all go on with the
names of the old one until then, and from then on all use the new, taking over each old record
when it is first needed. The announcement is kept in the store, so that nobody starts empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND

OVERLAP = HOUR
"""How long both epochs are accepted while processes are rolled, unless the URI says otherwise."""
SHORTEST_OVERLAP = MINUTE
"""Every process looks at the timetable more often than this, so that it knows of a change ahead."""
KEPT = 400 * DAY
"""How long records of a former epoch may still be needed: as long as a lifetime budget is kept."""


class Epoch(NamedTuple):
    """A layout, and the id of the hash key that names are made with."""

    layout: int
    key: str


@dataclass(frozen=True, slots=True)
class Timetable:
    """What a store records of its epochs; times are in microseconds.

    `upcoming` takes over at `at`; records of `former` may be needed until `until`.
    """

    current: Epoch
    upcoming: Epoch | None = None
    at: int = 0
    former: Epoch | None = None
    until: int = 0

    def text(self) -> str:
        """Return it as the JSON that a store keeps."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str | bytes) -> Timetable:
        """Return the timetable that a text states.

        Raises:
            StoreError: the text is none of ours.
        """
        try:
            stated = json.loads(text)
            epochs = {
                name: None if stated[name] is None else Epoch(*stated[name])
                for name in ("current", "upcoming", "former")
            }
            return cls(**{**stated, **epochs})
        except (ValueError, TypeError, KeyError) as problem:
            raise StoreError("the store's own record cannot be read: is this store ours?") from (
                problem
            )

    def at_time(self, now: int) -> Timetable:
        """Return it as it stands at a time: an epoch whose time has come is the current one."""
        if self.upcoming is None or now < self.at:
            return self
        return Timetable(self.upcoming, None, 0, self.current, self.at + KEPT)

    def needed(self, now: int) -> tuple[Epoch, ...]:
        """Return the epochs that whoever decides now must know: current, then former."""
        table = self.at_time(now)
        if table.former is None or now >= table.until:
            return (table.current,)
        return (table.current, table.former)


def timetable_for(
    recorded: Timetable | None, known: Sequence[Epoch], now: int, overlap: int = OVERLAP
) -> Timetable:
    """Return the timetable after a process that knows some epochs (newest first) has started.

    Raises:
        SettingError: the process lacks a hash key or a layout that the store's records need.
    """
    if recorded is None:
        return Timetable(known[0])
    table = recorded.at_time(now)
    for epoch in table.needed(now):
        if epoch not in known:
            raise SettingError(_mismatch(epoch, known, table))
    if known[0] == table.current or table.upcoming is not None or known[0] == table.former:
        return table
    former, until = table.former, table.until
    return Timetable(table.current, known[0], now + overlap, former, until)


def _mismatch(epoch: Epoch, known: Sequence[Epoch], table: Timetable) -> str:
    layouts = sorted({each.layout for each in known})
    if epoch.layout not in layouts:
        return (
            f"the store is written in layout {epoch.layout}, and this release knows "
            f"{', '.join(map(str, layouts))}: use the release that wrote it, or a newer one"
        )
    if epoch == table.former:
        until = datetime.fromtimestamp(table.until // SECOND, UTC)
        return (
            f"records of the hash key `{epoch.key}` are needed until {until:%Y-%m-%d}: "
            "give it as the previous hash key"
        )
    own = ", ".join(f"`{each.key}`" for each in known)
    return (
        f"the store's names are made with the hash key `{epoch.key}`, not with {own}: give that "
        "key, or, to change keys, give it as the previous one"
    )
