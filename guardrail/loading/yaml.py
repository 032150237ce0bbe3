"""Reads the text of one policy file as a strict and bounded part of YAML 1.2."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import yaml

from guardrail.errors import Diagnostic
from guardrail.loading.complaints import UnreadableError
from guardrail.loading.composing import Composer
from guardrail.loading.nodes import Node
from guardrail.loading.source import UNPRINTABLE, Source
from guardrail.loading.syntax import syntax_error

MAX_BYTES: Final = 1 << 20
"""The size of the largest policy file, in bytes of UTF-8."""

_MAX_DIRECTIVES: Final = 20
_DIRECTIVE: Final = re.compile(r"^%", re.MULTILINE)
_PARSER: Final[type[yaml.SafeLoader | yaml.CSafeLoader]] = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)


def read_yaml(text: str, file: str, findings: list[Diagnostic]) -> Node | None:
    """Return the node of a policy file's one document, appending what is wrong to `findings`.

    None if nothing but comments is written in the file, or if it cannot be read to its end:
    GR100, text that is not YAML, is too large or nested too deep. Duplicate keys (GR103), merge
    keys and tags (GR109), and aliases and keys that cannot be (GR100) are left out, and reading
    goes on, so that all of them are found at once. Nothing is raised for any text.

    Scalars have the values of the core schema; `!!str` and `!` count as quotes. Nodes repeated
    by an alias are one object.
    """
    source = Source(file, text.removeprefix("\ufeff"))
    unfit = _unfit(source)
    if unfit is not None:
        findings.append(unfit)
        return None
    composer = Composer(source, findings)
    try:
        with _collector_at_rest():
            return composer.compose(yaml.parse(source.text, Loader=_PARSER))
    except UnreadableError as error:
        findings.append(error.finding)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Escapes in tags and quotes can name what is no character, which either parser lets
        # Python's own conversions refuse.
        findings.append(syntax_error(error, source, composer.reached))
    return None


def too_large(source: Source) -> Diagnostic:
    """Return the finding about a file of more than `MAX_BYTES`."""
    return source.error(
        "GR100",
        f"the file is larger than 1 MiB ({MAX_BYTES:,} bytes)",
        source.span(1, 1),
        help="split it; the files of a folder are one policy set",
    )


def _unfit(source: Source) -> Diagnostic | None:
    """Return what keeps a text from the parser, None if nothing does."""
    text = source.text
    if len(text) > MAX_BYTES:
        return too_large(source)
    unprintable = UNPRINTABLE.search(text)
    if unprintable is not None:
        return _unprintable(source, unprintable.start())
    if len(text.encode()) > MAX_BYTES:
        return too_large(source)
    # The parser compares each `%TAG` with all before it.
    directives = [found.start() for found in _DIRECTIVE.finditer(text)]
    if len(directives) > _MAX_DIRECTIVES:
        return source.error(
            "GR100",
            f"more than {_MAX_DIRECTIVES} lines of this file start with `%`",
            source.span(*source.place(directives[_MAX_DIRECTIVES])),
            help="remove them; a policy file needs no directives",
        )
    return None


def _unprintable(source: Source, index: int) -> Diagnostic:
    character = source.text[index]
    if character == "\0":
        advice = "save the file as plain text in UTF-8"
    else:
        advice = "remove it, or write it as an escape in double quotes"
    return source.error(
        "GR100",
        f"the character U+{ord(character):04X}, which cannot be seen, is not allowed here",
        source.span(*source.place(index)),
        help=advice,
    )


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Hold off the garbage collector: nodes make no cycles, and it would walk all of them often."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
