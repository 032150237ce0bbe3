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
from guardrail.loading.conditions import APPLICABLE, operators_of
from guardrail.model.facts import AGES, STANDARD_FACTS

DOCS = Path(__file__).parents[1] / "docs"
MEANINGS = {
    "request.capability": "what it asks for, by its path and what its body holds",
    "request.model": "the model that it names, as `models` lists it",
    "request.endpoint": (
        "the path as its API documents it, wherever that is mounted: `/v1/chat/completions` for "
        "`/api/v1/chat/completions/`, `/v1/models:generateContent` for any model, `*` for what "
        "differs otherwise (`/v1/files/*`, `/model/*/converse`); `other` for a path of no known API"
    ),
    "request.tools": "how many tools it brings",
    "request.stream": "whether its answer is streamed",
    "request.reasoning": "whether it asks for reasoning",
    "request.template": "a hash of its system prompt, numbers, dates and ids left out",
    "request.toolset": "a hash of its tools, whatever their order",
    "client.agent": "the `User-Agent`",
    "account.id": "whose account it is",
    "account.org": "the organisation that the account belongs to",
    "account.tier": "how well the account is known; a set that uses it lists its values",
    "account.created": "when the account was made",
    "account.signup": "a label of its registration, such as the hour and the kind of mail address",
    "account.paid_usd": "payments that cleared, in all",
    "account.paid_since": "when the first of them did",
    "account.verified_at": "when the identity was established",
    "credential.id": "a keyed hash of the API key or token",
    "enforcement.status": "what was decided about the account",
    "kyc.subject": "the person or business that an identity check found, as a hash of yours",
    "kyc.country": "the country of the document",
    "payment.fingerprint": "the card, as its processor names it",
    "payment.country": "the country that issued the card",
    "device.fingerprint": "the device, as your own code tells it",
    "client.ip": "the address, behind the proxies that you declare",
    "client.network": "an IPv4 address itself, or an IPv6 /64",
    "geo.country": "the country of the address",
    "geo.region": (
        "its region, in ISO 3166-2 (`US-CA`), if your own country database knows it: the embedded "
        "one does not"
    ),
    "geo.asn": "the autonomous system of the address, from a database of yours",
    "network.kind": "the kind of its network, from lists of yours",
    "time.hour": "the hour of the day, 0 to 23, in the policy's time zone",
    "time.weekday": "the day of the week",
    "actor.id": "whom the account acts as, by `links`; without them the account itself",
    "actor.accounts": "how many accounts act as one with it, itself among them",
    "actor.trusted_accounts": "how many trusted accounts share a strong value with it",
    "actor.score": "what tells against the actor, by `score`",
    "actor.evidence": "what did",
}
"""What each built-in fact is; the ages follow from the times beside them."""
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
    yield "Those of the request and the client a [door](metering.md) reads, the place of an"
    yield "address is [looked up](http.md#countries-and-networks), hours and days are the clock's,"
    yield "`actor.…` follows from [links](language.md#links). All others are told by"
    yield "[who knows the account](identity.md).\n"
    yield "| Fact | Type | From the | What it is |"
    yield "|---|---|---|---|"
    for name, fact in STANDARD_FACTS.items():
        meaning = f"how long ago `{AGES[name]}` is" if name in AGES else MEANINGS[name]
        values = ", ".join(f"`{value}`" for value in fact.values)
        told = f"{meaning}: {values}" if values else meaning
        yield f"| `{name}` | {fact.type.value} | {fact.source.value} | {told} |"
    yield "\n## Operators\n"
    yield "| Type | Operators |"
    yield "|---|---|"
    for kind, operators in APPLICABLE.items():
        named = ", ".join(f"`{operator}`" for operator in sorted(operators))
        more = "".join(
            f"; of `{name}` also `{operator}`"
            for name, fact in STANDARD_FACTS.items()
            if fact.type is kind
            for operator in sorted({*operators_of(fact)} - {*operators})
        )
        yield f"| {kind.value} | {named}{more} |"
    yield "\nA bare value is equality, of all types but a timestamp."


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
