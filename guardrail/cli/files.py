"""Files that commands write for people, and what they must not take the place of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import typer

from guardrail.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What a command reads, by what that is, and writes, after what the option begins with."""

    reads: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    writes: Sequence[tuple[str, str | None]] = ()

    def keep_apart(self) -> None:
        """Check that nothing is written over what is read, or over what is written besides.

        Raises:
            SettingError: it would be.
        """
        known: list[tuple[str, str]] = []
        for option, out in self.writes:
            if out is None:
                continue
            for name, paths in self.reads.items():
                if any(_is_part(out, path) for path in paths if path is not None):
                    raise SettingError(f"`{option}{out}` would overwrite {name}")
            for other, before in known:
                if _is_one_place(out, before):
                    both = f"`{other}{before}` and `{option}{out}`"
                    raise SettingError(f"{both} go to one place: give each a file of its own")
            known.append((option, out))


def _is_part(out: str, path: str) -> bool:
    """Tell whether an output stands where an input does: a file, or a policy in a folder."""
    if "-" in (out, path) or not os.path.isfile(out) or not os.path.exists(path):
        return False
    if os.path.isdir(path):
        return any(os.path.samefile(out, one) for one in _policies_under(path))
    return os.path.samefile(out, path)


def _policies_under(folder: str) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        for name in names:
            one = os.path.join(where, name)
            if name.endswith((".yaml", ".yml")) and os.path.exists(one):
                yield one


def _is_one_place(out: str, other: str) -> bool:
    """Tell whether two outputs are one file, or both standard output; a device takes several."""
    if "-" in (out, other):
        return out == other
    if os.path.exists(out) and not os.path.isfile(out):
        return False
    return os.path.realpath(out) == os.path.realpath(other)


def write(path: str, text: str) -> None:
    """Write a file, or to standard output for `-`.

    Raises:
        SettingError: the file cannot be written.
    """
    if path == "-":
        typer.echo(text, nl=False)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise SettingError(f"`{path}` cannot be written: {problem.strerror}") from None
