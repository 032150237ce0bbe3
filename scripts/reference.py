"""Pages of reference made from the code's own tables: `python -m scripts.reference --write`.

A test holds the pages in docs/ equal to what this makes.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer

from guardrail.cli import app
from guardrail.loading.conditions import APPLICABLE
from guardrail.model.facts import AGES, STANDARD_FACTS, FactType

DOCS = Path(__file__).parents[1] / "docs"
MADE = "Made by `python -m scripts.reference --write` from the code's own tables."


def pages() -> dict[str, str]:
    """Return the text of each page by its name in docs/."""
    makers = {"facts.md": _facts(), "commands.md": _commands()}
    return {name: "\n".join(lines) + "\n" for name, lines in makers.items()}


def _facts() -> Iterator[str]:
    yield "# Facts and operators\n"
    yield f"{MADE} [The language](language.md#facts) says what facts are.\n"
    yield "## Built-in facts\n"
    yield "What the caller chooses is a *client's* fact: it can tighten, and never loosen.\n"
    yield "| Fact | Type | From the | Values |"
    yield "|---|---|---|---|"
    for name, fact in STANDARD_FACTS.items():
        values = ", ".join(f"`{value}`" for value in fact.values)
        if fact.type is FactType.LEVEL:
            values = "a set that uses it lists them, the lowest first"
        elif name in AGES:
            values = f"how long ago `{AGES[name]}` is"
        yield f"| `{name}` | {fact.type.value} | {fact.source.value} | {values} |"
    yield "\n## Operators\n"
    yield "| Type | Operators |"
    yield "|---|---|"
    for kind, operators in APPLICABLE.items():
        named = ", ".join(f"`{operator}`" for operator in sorted(operators))
        yield f"| {kind.value} | {named} |"


def _commands() -> Iterator[str]:
    yield "# Commands and options\n"
    yield f"{MADE} [Exit codes](check.md#exit-codes) are the same for all."
    yield from _command(typer.main.get_command(app), "guardrail")


def _command(command: object, name: str) -> Iterator[str]:
    subcommands: Mapping[str, object] = getattr(command, "commands", {})
    for word, inner in subcommands.items():
        yield from _command(inner, f"{name} {word}")
    if subcommands:
        return
    yield f"\n## {name}\n"
    help: str = getattr(command, "help", None) or ""
    yield help.strip().splitlines()[0] + "\n"
    parameters = [found for found in getattr(command, "params", ()) if found.name != "help"]
    arguments = [found for found in parameters if found.param_type_name == "argument"]
    usage = " ".join([name, *(_metavar(found) for found in arguments)])
    yield f"```text\n{usage}\n```\n"
    yield "| | |"
    yield "|---|---|"
    for found in parameters:
        text = _cell(found.help or "")
        if found in arguments:
            yield f"| `{_cell(_metavar(found))}` | {text} |"
            continue
        names = ", ".join(f"`{option}`" for option in (*found.opts, *found.secondary_opts))
        metavar = "" if found.is_flag else f" `{_cell(found.metavar or _choices(found))}`"
        yield f"| {names}{metavar} | {text}{_default(found)} |"


def _metavar(argument: object) -> str:
    return str(getattr(argument, "metavar", None) or str(getattr(argument, "name", "")).upper())


def _choices(option: object) -> str:
    """Return what an option takes that names no kind of value: the members of an enumeration."""
    kinds = [type(getattr(option, "default", None)), getattr(option, "bare_type", None)]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return "|".join(str(member.value) for member in kind)
    return "VALUE"


def _default(option: object) -> str:
    default = getattr(option, "default", None)
    if getattr(option, "is_flag", False) or default in (None, (), [], ""):
        return ""
    return f" (`{_cell(str(getattr(default, 'value', default)))}`)"


def _cell(text: str) -> str:
    """Return a text as a cell of a table takes it."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    # What stands between backticks is shown as it is.
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def main() -> int:
    """Write the pages, or tell which differ."""
    stale = [
        name
        for name, text in pages().items()
        if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != text
    ]
    if "--write" in sys.argv[1:]:
        for name in stale:
            (DOCS / name).write_text(pages()[name], "utf-8")
            print(f"wrote docs/{name}")
        return 0
    for name in stale:
        print(f"docs/{name} is not what the code says: python -m scripts.reference --write")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
