"""Which known name an unknown one was probably meant to be."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from guardrail.loading.text import listed, quoted

T = TypeVar("T", bound=str | None)

_SEPARATORS = str.maketrans("-._ ", "    ")
_LETTERS_PER_SLIP = 3
_MOST_SLIPS = 4
_LONGEST = 100
_NEGATIONS = ("un", "in", "im", "il", "ir", "non", "not", "no", "dis", "anti", "de")
_OPPOSITES = frozenset(
    frozenset(pair.split("/"))
    for pair in (
        "internal/external import/export include/exclude included/excluded inbound/outbound "
        "increase/decrease min/max minimum/maximum gt/lt gte/lte above/below before/after "
        "allow/deny enable/disable enabled/disabled upper/lower first/last start/end from/until "
        "free/paid public/private minor/major more/less least/most ingress/egress local/global "
        "restricted/unrestricted match/skip positive/negative"
    ).split()
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to an unknown one, None if none is close.

    Close is one slip (a letter missing, added, changed, or swapped with the next) per three
    letters, at most four. Case does not count, nor which of `-`, `_`, `.` and space parts the
    words. Of equally near names the one with the same part before its last dot is meant, then
    the first in order. The opposite of a name is never meant: `unverified` for `verified`. A name
    without dots may also be the last part of a single known name: `country` is near `geo.country`.
    A word for one is near that for several: `policy` and `policies`.
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
        if slips > most or candidate == name or _is_opposite(folded, other, slips):
            continue
        if best is None or rank < best:
            best = rank
    return best[2] if best is not None else _by_ending(folded, names)


def _folded(name: str) -> str:
    return name.casefold().translate(_SEPARATORS)


def _is_opposite(folded: str, other: str, slips: int) -> bool:
    """Tell whether two names, `slips` apart, differ by a word and its opposite."""
    if not slips:
        return False
    ours, theirs = folded.split(), other.split()
    if len(ours) != len(theirs):
        longer, shorter = sorted((ours, theirs), key=len, reverse=True)
        # `not verified` and `verified`: the same words but for a negation of its own.
        return any(word in _NEGATIONS for word in longer if word not in shorter)
    different = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    return any(_are_opposites(one, two) for one, two in different)


def _are_opposites(one: str, two: str) -> bool:
    if frozenset((one, two)) in _OPPOSITES:
        return True
    for plain, negated in ((one, two), (two, one)):
        for prefix in _NEGATIONS:
            rest = negated.removeprefix(prefix)
            if rest != negated and not plain.startswith(prefix) and len(rest) > 1:
                apart = _slips(plain, rest, len(plain))
                if apart <= len(rest) // _LETTERS_PER_SLIP and apart < _slips(
                    plain, negated, len(negated)
                ):
                    return True
        stem = negated.removesuffix("less")
        if stem != negated and plain.removesuffix("ful") == stem:
            return True
    return False


def _group(name: str) -> str:
    return name.rpartition(".")[0].casefold()


def _by_ending(folded: str, names: Iterable[str]) -> str | None:
    """Return the one name that has this last part, or that is the same word in another number."""
    other = _in_other_number(folded)
    ends = [name for name in names if "." in name and _folded(name.rpartition(".")[2]) == folded]
    same = [name for name in names if _folded(name) == other]
    return (same or ends)[0] if len(same or ends) == 1 else None


def _in_other_number(word: str) -> str | None:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] + "ies" if word.endswith("y") else None


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


def suggestion(name: str, known: Iterable[str], otherwise: T) -> str | T:
    """Return the help for an unknown name: the nearest known one, or else what is given."""
    near = nearest(name, known)
    return otherwise if near is None else f"did you mean {quoted(near)}?"


def did_you_mean(name: str, known: Collection[str], kind: str) -> str:
    """Return the help for an unknown name of a kind: the nearest known one, or what there is."""
    there = f"known {kind}: {listed(known)}"
    if not known:
        there = f"there are no {kind}; declare {quoted(name)} first"
    return suggestion(name, known, there)
