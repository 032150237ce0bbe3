"""`guardrail init`: a first policy set, commented and tested, by three answers or from traffic."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from guardrail.cli import options
from guardrail.cli.failures import OK, NothingToCheckError, ended
from guardrail.cli.figures import length, period, plural, share
from guardrail.cli.inert import shortened
from guardrail.cli.loading import environment
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.starter import Limits, Seen, amount_text, counted, roomy, starter_files
from guardrail.cli.traffic import TrafficFiles, run_traffic
from guardrail.errors import SettingError
from guardrail.guard import Guard
from guardrail.guard.loading import MEMORY
from guardrail.loading import NotationError, load_policies, load_text, read_amount
from guardrail.model.effects import Effect
from guardrail.model.facts import STANDARD_FACTS
from guardrail.model.policy import PolicySet
from guardrail.replay.harm import MISSING, OTHERS
from guardrail.replay.proposing import Busiest, Proposal
from guardrail.scenarios import run_suite
from guardrail.traffic.mapfile import MapError, load_map
from guardrail.traffic.maps import TrafficMap

KEYS = ("account.id", "account.org", "credential.id", "client.network", "client.ip")
NAME, TIERS, TOKENS = "my-api", "free,paid", "200k"
MOST_TIERS = 8
Answer = TypeVar("Answer")


@dataclass(slots=True, kw_only=True)
class Wanted:
    """What was asked for on the command line; what is None is asked for, or has its default."""

    folder: str
    name: str | None
    tiers: str | None
    tokens: str | None
    key: str | None
    traffic: list[str]
    map: str | None


def init(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder to write; it is made.")
    ] = "policies",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What the policy set is called.")
    ] = None,
    tiers: Annotated[
        str | None,
        typer.Option(
            "--tiers", metavar="A,B", help="The kinds of accounts there are, the lowest first."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens", metavar="N", help="How many tokens a day the lowest kind may use: `200k`."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="|".join(KEYS),
            help="The fact that says whose counter it is; the first of these that is there.",
        ),
    ] = None,
    from_traffic: Annotated[
        list[str] | None,
        typer.Option(
            "--from-traffic",
            metavar="FILE",
            help="Propose limits from what recorded requests took; repeatable.",
        ),
    ] = None,
    map: options.Map = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Write a first policy set with its tests; asks what options do not say."""
    output = Output(color)
    wanted = Wanted(
        folder=folder,
        name=name,
        tiers=tiers,
        tokens=tokens,
        key=key,
        traffic=from_traffic or [],
        map=map,
    )
    run = lambda: run_init(wanted, output)  # noqa: E731
    raise typer.Exit(ended(run, output, Format.FULL, not_run="; nothing was written"))


def run_init(wanted: Wanted, output: Output) -> int:
    """Write the files, run their tests, say what to do next, and return the exit code.

    Raises:
        SettingError: an answer is not usable, or the folder holds policies already.
        NothingToCheckError: the traffic has no request to propose limits from.
    """
    folder = Path(wanted.folder)
    _check_free(folder)
    if wanted.key not in (None, *KEYS):
        raise SettingError(f"`--key {wanted.key}` is not known: write `{'` or `'.join(KEYS)}`")
    if wanted.map is not None and not wanted.traffic:
        raise SettingError("`--map` reads traffic: give it with `--from-traffic`")
    if wanted.tokens is not None and wanted.traffic:
        raise SettingError("give `--tokens` or `--from-traffic`: each says how much a day allows")
    is_asking = sys.stdin is not None and sys.stdin.isatty() and not wanted.traffic
    ask = Asking(output, is_asking)
    name = ask.answer("What is your API called?", wanted.name, _folder_name(), _name)
    key = wanted.key or KEYS[0]
    if wanted.traffic:
        key, limits, seen = _proposed(wanted, output)
    else:
        tiers = ask.answer(
            "Which kinds of accounts are there, the lowest first?", wanted.tiers, TIERS, _tiers
        )
        tokens = ask.answer(
            "How many tokens a day may the lowest use?", wanted.tokens, TOKENS, _tokens
        )
        limits, seen = Limits.starting(tokens, tiers), None
    files = starter_files(name, key, limits, seen)
    _write(folder, files)
    if seen is not None:
        _tell_span(limits, seen, output)
    policies = load_policies([str(folder)])
    suite = run_suite(policies, None)
    output.told("answers", _answers(name, key, limits))
    for path in files:
        output.told("wrote", str(folder / path))
    output.told(
        "tests",
        f"{len(suite.results) - suite.failed} of {plural(len(suite.results), 'test')} passed",
    )
    if wanted.traffic and "-" not in wanted.traffic:
        _print_refused(policies, wanted, key, output)
    if seen is not None and not limits.tiers and seen.kinds:
        kinds = ", ".join(f"`{shortened(kind, 32)}`" for kind in sorted(seen.kinds)[:MOST_TIERS])
        output.told(
            "note",
            f"accounts are of kinds ({kinds}): for a number for each, say their order with "
            "`--tiers`",
        )
    output.line()
    for line in _next_steps(folder, wanted):
        output.line(line)
    return OK


def _tell_span(limits: Limits, seen: Seen, output: Output) -> None:
    """Say how long the traffic is, and which limits it is too short for."""
    span = length(seen.span)
    output.told(
        "traffic",
        f"{plural(seen.requests, 'request')} in {span}: {period(seen.first, seen.last)}",
    )
    for rule, window in seen.too_short_for(limits):
        output.warn(
            f"the traffic spans {span}, and `{rule}` is for a {window}: its number is from what "
            f"was taken in {span}; propose from a longer log, or change it"
        )


def _answers(name: str, key: str, limits: Limits) -> str:
    amounts = [f"{amount_text(amount)} tokens a day" for amount in limits.tokens]
    pairs = zip(limits.tiers, amounts, strict=True) if limits.tiers and amounts else ()
    allowed = ", ".join(f"{tier} {amount}" for tier, amount in pairs) or "".join(amounts)
    allowed = allowed or "no limit of tokens, of which the traffic tells none"
    return f"`{name}`; {allowed}; counted by `{key}`"


def _print_refused(policies: PolicySet, wanted: Wanted, key: str, output: Output) -> None:
    """Replay the traffic under what was proposed from it, and tell whom that refuses."""
    with ExitStack() as closing:
        files = TrafficFiles(wanted.traffic, closing)
        mapping = load_map(wanted.map, policies) if wanted.map is not None else None
        guard = closing.enter_context(
            Guard.from_policies(policies, store=MEMORY, environ=environment())
        )
        tally = run_traffic(
            guard, policies, files, mapping, 0.0, None, output, None, [(key,)]
        ).tally
    refused = [effect for effect in Effect if effect.refuses]
    requests = sum(tally.effect_requests(effect) for effect in refused)
    told = (
        f"{requests:,} of {plural(tally.requests, 'request')} refused "
        f"({share(requests, tally.requests)})"
    )
    (values,) = tally.harm.segments
    if (OTHERS,) not in values:
        known = [segment for value, segment in values.items() if value != (MISSING,)]
        told += f"; {sum(segment.refused > 0 for segment in known):,} of "
        told += f"{counted(len(known), key)} met a refusal, by any rule"
    output.told("replay", told)


def _next_steps(folder: Path, wanted: Wanted) -> list[str]:
    written = shlex.quote(str(folder))
    files = [f"--traffic {shlex.quote(name)}" for name in wanted.traffic if name != "-"]
    read = [f"--map {shlex.quote(wanted.map)}"] if wanted.map else []
    replay = ["guardrail check", written, *(files or ["--traffic FILE"]), *read]
    return [
        "next: read the files, change the numbers, then",
        f"  guardrail check {written}",
        f"  {' '.join(replay)} --report report.html",
    ]


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"`{folder}` is a file: name a folder to write")
    held = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
    if held:
        raise SettingError(
            f"`{held[0]}` is there already, and nothing is overwritten: name another folder"
        )


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks whoever sits at the terminal, if anybody does."""

    output: Output
    is_asking: bool

    def answer(
        self, question: str, given: str | None, usual: str, read: Callable[[str], Answer]
    ) -> Answer:
        """Return what an option or an answer says, the usual where nobody is asked.

        An answer that is not usable is asked for again.

        Raises:
            SettingError: an option is not usable.
        """
        if given is not None or not self.is_asking:
            return read(usual if given is None else given)
        while True:
            answer: str = typer.prompt(question, default=usual, err=True)
            try:
                return read(answer)
            except SettingError as error:
                self.output.error(str(error))


def _folder_name() -> str:
    words = re.findall("[a-z0-9]+", Path.cwd().name.lower())
    return "-".join(words)[:60] or NAME


def _name(written: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", written, re.ASCII) is None:
        raise SettingError(
            f"`{shortened(written)}` is no name: write small letters, digits, `-`, `_`, `.`"
        )
    return written


def _tiers(written: str) -> tuple[str, ...]:
    tiers = tuple(tier.strip() for tier in written.split(","))
    usual = f"write `free,paid`, at most {MOST_TIERS}, the lowest first"
    for place, tier in enumerate(tiers):
        if tier and re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", tier, re.ASCII) is None:
            raise SettingError(
                f"`{shortened(tier)}` is no kind of account: write small letters, digits, `-`, `_`"
            )
        if tier and tier in tiers[:place]:
            raise SettingError(f"`{tier}` is there twice: {usual}")
    if not all(tiers) or len(tiers) > MOST_TIERS:
        raise SettingError(f"`{shortened(written)}` are no kinds of accounts: {usual}")
    return tiers


def _tokens(written: str) -> int:
    try:
        tokens = read_amount(written, money=False, used=True)
    except NotationError as error:
        raise SettingError(f"`{shortened(written)}` {error.message}: {error.help}") from None
    if tokens < 1_000:
        raise SettingError(f"`{written}` tokens a day are less than one request: at least 1k")
    return tokens


def _proposed(wanted: Wanted, output: Output) -> tuple[str, Limits, Seen]:
    """Return whose limits traffic proposes, the limits, and what was seen in it."""
    tiers = _tiers(wanted.tiers) if wanted.tiers is not None else ()
    mapping = _map(wanted.map, tiers) if wanted.map is not None else None
    key = wanted.key or KEYS[0]
    proposal, files = _read(wanted, key, mapping)
    nobody = proposal.nameless == proposal.requests
    found = next((name for name in KEYS if name in proposal.facts), None)
    if nobody and found is not None and wanted.key is None and "-" not in wanted.traffic:
        output.told("note", f"no request has `{key}`: the limits are for each `{found}`")
        key = found
        proposal, files = _read(wanted, key, mapping)
    for fault in files.faults:
        output.warn(f"traffic could not be read to its end: {fault}")
    if files.bad.count:
        output.warn(f"{plural(files.bad.count, 'line')} could not be read")
    if not proposal.requests:
        unread = "; `guardrail map guess` tells which `--map` reads it" if files.bad.count else ""
        raise NothingToCheckError(
            f"the traffic has no readable line to propose limits from{unread}"
        )
    if proposal.nameless == proposal.requests:
        raise NothingToCheckError(f"no request of the traffic has `{key}`: {_other_key(proposal)}")
    unnamed = sorted(proposal.tiers - set(tiers))
    if tiers and unnamed:
        raise SettingError(
            f"the traffic has accounts of `{'`, `'.join(unnamed)}`, which `--tiers` does not name"
        )
    if 2 * proposal.nameless > proposal.requests:
        output.warn(
            f"{share(proposal.nameless, proposal.requests)} of the requests have no "
            f"`{key}`, and are not in the numbers; {_other_key(proposal, key)}"
        )
    if proposal.keys == 1:
        told = "has one value in" if proposal.nameless else "is the same in all of"
        output.warn(
            f"`{key}` {told} the traffic: what all took together would be "
            f"each one's limit; map `{key}` to what tells your customers apart, or name "
            "another fact with `--key`"
        )
    strange = {
        name: kind for name, kind in sorted(proposal.facts.items()) if name not in STANDARD_FACTS
    }
    seen = Seen(
        requests=proposal.requests,
        first=proposal.first,
        last=proposal.last,
        nameless=proposal.nameless,
        models=proposal.models,
        strange=strange,
        kinds=frozenset((*proposal.tiers, *(tiers[:1] if proposal.is_untold else ()))),
        tokens=_tokens_seen(proposal, tiers, totals=mapping is not None and mapping.totals),
        tiers=tiers,
        pace=proposal.requests_a_minute,
        in_flight=proposal.in_flight if proposal.timed else None,
        totals=mapping is not None and mapping.totals,
    )
    return key, Limits.proposed(seen), seen


def _read(wanted: Wanted, key: str, mapping: TrafficMap | None) -> tuple[Proposal, TrafficFiles]:
    """Return what the traffic proposes for each value of a fact, and how its files were read."""
    proposal = Proposal(key)
    with ExitStack() as closing:
        files = TrafficFiles(wanted.traffic, closing)
        for _, ts, request in files.requests(mapping):
            proposal.add(ts, request)
    return proposal, files


def _tokens_seen(
    proposal: Proposal, tiers: tuple[str, ...], *, totals: bool
) -> tuple[Busiest, ...]:
    if not proposal.told_tokens:
        return ()
    # A request that does not say how long its answer may be reserves the longest of its model: a
    # day is to have room for two of them.
    longest = max(proposal.models.values(), default=0)
    least = 2 * roomy(longest) if longest and not totals else 1_000
    if not tiers:
        return (proposal.tokens_a_day(least),)
    seen: list[Busiest] = []
    for tier in tiers:
        # A higher kind never has less. Whose kind is not told counts as the lowest.
        before = seen[-1].proposed if seen else least
        seen.append(proposal.tokens_of(tier, before, with_untold=not seen))
    return tuple(seen)


def _map(path: str, tiers: tuple[str, ...]) -> TrafficMap:
    """Return a map, read for facts that need no declaring, and for the kinds of accounts."""
    kinds = f"facts: {{account.tier: {{type: level, values: [{', '.join(tiers)}]}}}}\n"
    text = "guardrail: 1\npolicy: bare\nrules: [{id: none, when: always, block: {}}]\n"
    try:
        return load_map(path, load_text(text + (kinds if tiers else "")))
    except MapError as error:
        if not tiers and any("`account.tier`" in found.message for found in error.diagnostics):
            raise SettingError(
                f"`{path}` says of which kind accounts are: name the kinds, the lowest first, "
                "with `--tiers`"
            ) from None
        own = [found.message for found in error.diagnostics if found.code == "GR105"]
        if own:
            raise SettingError(
                f"`{path}` names what a new set does not declare yet ({own[0]}): leave it out of "
                "the map until a policy declares it"
            ) from None
        raise


def _other_key(proposal: Proposal, but: str = "") -> str:
    there = [name for name in KEYS if name in proposal.facts and name != but]
    if not there:
        others = [f"`{name}`" for name in KEYS if name != but]
        return "it has none of " + ", ".join(others)
    return "it has " + " and ".join(f"`{name}`" for name in there) + ": name one with `--key`"


def _write(folder: Path, files: dict[str, str]) -> None:
    made: Sequence[Path] = ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            with path.open("x", encoding="utf-8") as file:
                made = (*made, path)
                file.write(text)
    except OSError as problem:
        for path in made:
            path.unlink(missing_ok=True)
        raise SettingError(f"`{folder}` cannot be written: {problem.strerror}") from None
