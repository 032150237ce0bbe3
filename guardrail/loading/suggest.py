"""Which known name an unknown one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable

_SEPARATORS = str.maketrans("-._ ", "    ")
_LETTERS_PER_SLIP = 3
_MOST_SLIPS = 4
_LONGEST = 100


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to an unknown one, None if none is close.

    Close is one slip (a letter missing, added, changed, or swapped with the next) per three
    letters, at most four. Case does not count, nor which of `-`, `_`, `.` and space parts the
    words. Of equally near names the one with the same part before its last dot is meant, then
    the first in order. A name without dots may also be the last part of a single known name:
    `country` is near `geo.country`.
    """
    if not name or len(name) > _LONGEST:
        return None
    folded = _folded(name)
    letters = frozenset(folded)
    group = _group(name)
    best: tuple[int, bool, str] | None = None
    names = sorted(set(known))
    for candidate in names:
        other = _folded(candidate)
        most = min(max(len(folded), len(other)) // _LETTERS_PER_SLIP, _MOST_SLIPS)
        if best is not None:
            most = min(most, best[0])
        if abs(len(folded) - len(other)) > most or len(letters.difference(other)) > most:
            continue
        slips = _slips(folded, other, most)
        rank = (slips, _group(candidate) != group, candidate)
        if slips <= most and candidate != name and (best is None or rank < best):
            best = rank
    return best[2] if best is not None else _by_last_part(folded, names)


def _folded(name: str) -> str:
    return name.casefold().translate(_SEPARATORS)


def _group(name: str) -> str:
    return name.rpartition(".")[0].casefold()


def _by_last_part(folded: str, names: Iterable[str]) -> str | None:
    ends = [name for name in names if "." in name and _folded(name.rpartition(".")[2]) == folded]
    return ends[0] if len(ends) == 1 else None


def _slips(one: str, other: str, most: int) -> int:
    """Return the optimal string alignment distance, or any number above `most` if it is larger.

    Damerau-Levenshtein without edits inside a swapped pair (Boytsov 2011, §2.1).
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            slips = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 < j and letter == other[j - 2] and one[i - 2] == wanted:
                slips = min(slips, above[j - 2] + 1)
            row.append(slips)
        if min(row) > most:
            return most + 1
    return row[-1]
