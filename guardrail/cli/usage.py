"""What is wrong with a command line, in our words: what was written, and what to write instead.

The reader of command lines words its complaints for programmers, and otherwise in each of its
releases; it has no names that both old and new ones give to what went wrong. So they are known by
their sentences. One that is not known is passed on as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer

from guardrail.cli.output import Color, Output
from guardrail.loading.suggest import nearest, suggestion

Misuse: type[Exception] = typer.BadParameter.__mro__[2]
"""What is raised for every command line that is wrong; the reader hands on no name for it."""

_NUMBERS = (
    (r"valid integer", "give a whole number"),
    (r"valid (?:number|float)", "give a number"),
    (r"(?:greater than or equal to |range x>=)([\d.]*\d)", "give at least {0}"),
    (r"greater than ([\d.]*\d)", "give more than {0}"),
    (r"(?:less than or equal to |range x<=)([\d.]*\d)", "give at most {0}"),
    (r"range ([\d.]*\d)<=x<=([\d.]*\d)", "give {0} to {1}"),
)


def complain(problem: Exception, arguments: Sequence[str]) -> None:
    """Print what is wrong with a command line to stderr, given what its reader raised.

    A group of commands that is asked for nothing tells what there is.
    """
    if type(problem).__name__.startswith("NoArgsIsHelp"):
        sys.stderr.write(f"{problem}\n")
    else:
        Output(Color.AUTO).error(worded(problem, arguments))


def worded(problem: Any, arguments: Sequence[str]) -> str:
    """Return what is wrong with a command line, and what to do about it."""
    message = " ".join(str(problem.format_message()).split())
    context = getattr(problem, "ctx", None)
    for pattern, words in _SENTENCES:
        found = re.fullmatch(pattern, message)
        if found is not None:
            return words(context, arguments, *found.groups())
    return message[:1].lower() + message[1:]


def _no_option(context: Any, arguments: Sequence[str], name: str) -> str:
    every = [option for param in context.command.params for option in param.opts]
    known = [option for option in every if option.startswith("-")]
    parts = _parts(name)
    alike = [option for option in known if name in _parts(option) or option in parts]
    if nearest(name, known) is None and len(alike) == 1:
        return f"there is no option `{name}`: did you mean `{alike[0]}`?"
    return _unknown(context, "option", name, known)


def _parts(name: str) -> set[str]:
    """Return the options that an option of several words begins or ends with: `--from-traffic`."""
    words = name.removeprefix("--").split("-")
    places = range(1, len(words))
    begun, ends = ("-".join(words[:at]) for at in places), ("-".join(words[at:]) for at in places)
    return {f"--{part}" for part in (*begun, *ends)}


def _no_command(context: Any, arguments: Sequence[str], name: str) -> str:
    return _unknown(context, "command", name, context.command.list_commands(context))


def _unknown(context: Any, kind: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {kind} `{name}`: {suggestion(name, known, _see(context))}"


def _missing(context: Any, arguments: Sequence[str], name: str) -> str:
    return f"`{name}` is missing: {_see(context)}"


def _too_many(context: Any, arguments: Sequence[str], extra: str) -> str:
    return f"`{extra}` is more than the command takes: {_see(context)}"


def _see(context: Any) -> str:
    return f"`{context.command_path} --help` tells what it takes"


def _no_choice(context: Any, arguments: Sequence[str], name: str, value: str, listed: str) -> str:
    choices = [choice.strip("'") for choice in listed.split(", ")]
    help = suggestion(value, choices, None) or "it can be " + ", ".join(f"`{c}`" for c in choices)
    return f"`{_long(name)}` is `{value}`: {help}"


def _invalid(context: Any, arguments: Sequence[str], name: str, why: str) -> str:
    option = _long(name)
    for pattern, words in _NUMBERS:
        found = re.search(pattern, why)
        if found is not None:
            return f"`{option}` is `{_value(option, arguments)}`: {words.format(*found.groups())}"
    return f"`{option}`: {why}"


def _long(names: str) -> str:
    """Return the longest of an option's names, which old readers list all."""
    return max((name.strip(" '") for name in names.split("/")), key=len)


def _value(option: str, arguments: Sequence[str]) -> str:
    """Return what a command line gives for an option, the last time it does."""
    value = ""
    for place, argument in enumerate(arguments):
        if argument == option and place + 1 < len(arguments):
            value = arguments[place + 1]
        elif argument.startswith(f"{option}="):
            value = argument[len(option) + 1 :]
    return value


_Words = Callable[..., str]
_SENTENCES: tuple[tuple[str, _Words], ...] = (
    (r"No such option:? '?(-[^ ']*)'?.*", _no_option),
    (r"No such command '(.*?)'.*", _no_command),
    (r"Missing (?:argument|option) '(.*)'\.", _missing),
    (
        r"Option '(.*)' requires (?:an argument|\d+ arguments)\.",
        lambda c, a, name: f"`{name}` needs a value",
    ),
    (
        r"Option '(.*)' does not take a value\.",
        lambda c, a, name: f"`{name}` takes no value: leave out what follows `=`",
    ),
    (
        r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)",
        _too_many,
    ),
    (r"Invalid value for '(.*?)': (?:Value error, )?'(.*?)' is not one of (.*?)\.?", _no_choice),
    (r"Invalid value for '(.*?)': (.*)", _invalid),
)
