"""`guardrail actor`: whom an account acts as and why, and how an operator parts it from others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from guardrail.cli import options
from guardrail.cli.failures import FINDINGS, OK, ended
from guardrail.cli.figures import columns, plural
from guardrail.cli.inert import inert
from guardrail.cli.loading import environment, load
from guardrail.cli.output import Color, Format, Output
from guardrail.engine import Engine
from guardrail.errors import SettingError, StoreError
from guardrail.guard.context import ProcessIds, keeps_links, microseconds
from guardrail.guard.loading import skewed
from guardrail.links import Linking, StoredLinks, actor_id
from guardrail.links.forest import EXEMPT, STRANGER, TRUSTED, Edge
from guardrail.model.amounts import DAY
from guardrail.model.cells import Pool
from guardrail.stores.naming import hash_keys
from guardrail.stores.opening import open_store
from guardrail.stores.steps import Steps, performed

T = TypeVar("T")

_DIGITS = 12
"""How many hex digits of an account's keyed hash are shown."""

Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's own id.")]
LinksUri = Annotated[
    str, typer.Option("--store", metavar="URI", help="The store that keeps the links.")
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", metavar="NAME", help="The namespace of the guard, if it has one of its own."
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="OTHER", help="Also show the link whose end parts it from this account."
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="OTHER", help="Cut only the link whose end parts it from this account."
    ),
]


def show(
    account: Account,
    paths: options.Paths,
    store: LinksUri,
    to: To = None,
    namespace: Namespace = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Show whom an account acts as: the members, each link with its reason and its dates."""
    output = Output(color)

    def run() -> int:
        with opened(paths, store, namespace) as links:
            shown = Shown.of(links, account, to)
        if form is Format.JSON:
            output.json(shown.fields())
        else:
            _print(output, shown, brief=form is Format.CONCISE)
        return OK

    raise typer.Exit(ended(run, output, form))


def unlink(
    account: Account,
    paths: options.Paths,
    store: LinksUri,
    other: From = None,
    namespace: Namespace = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Take an account out of its actor at once, and keep it apart (an appeal)."""
    output = Output(color)

    def run() -> int:
        with opened(paths, store, namespace) as links:
            if other is not None:
                return _parted(output, form, links, account, other)
            was_linked = links.do(links.kept.unlink, account)
            until = _day(links.today + links.kept.links.strong_days)
        fields = {"account": account, "was_linked": was_linked, "apart_until": str(until)}
        did = "acts alone from now on" if was_linked else "acted alone already"
        _tell(output, form, fields, f"{inert(account)} {did}; it is not linked until {until}")
        return OK

    raise typer.Exit(ended(run, output, form))


def erase(
    account: Account,
    paths: options.Paths,
    store: LinksUri,
    namespace: Namespace = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Forget all that is kept of an account's links; spent amounts stay until windows end."""
    output = Output(color)

    def run() -> int:
        with opened(paths, store, namespace) as links:
            was_linked = links.do(links.kept.erase, account)
        fields = {"account": account, "was_linked": was_linked}
        kept = "what it has used is kept, under keyed names, until each window ends"
        _tell(output, form, fields, f"no link of {inert(account)} is kept; {kept}")
        return OK

    raise typer.Exit(ended(run, output, form))


class Opened(NamedTuple):
    """Links in a store, the counters that follow them, and the time, in microseconds."""

    kept: StoredLinks
    pools: tuple[Pool, ...]
    now: int

    @property
    def today(self) -> int:
        """The day, counted from the epoch."""
        return self.now // DAY

    def do(self, change: Callable[..., Steps[T | None]], *accounts: str) -> T:
        """Change what is kept of accounts.

        Raises:
            StoreError: others changed the same links each time.
        """
        done = performed(change(*accounts, self.pools, self.now))
        if done is None:
            raise StoreError("others changed the same links each time: try again")
        return done


@contextmanager
def opened(paths: list[str], uri: str, namespace: str | None) -> Iterator[Opened]:
    """Open the store that keeps the links of some policies.

    Raises:
        SettingError: the policies have no links, or the store keeps none.
    """
    policies = load(paths)
    if policies.links is None:
        raise SettingError("the policies have no `links`: no account acts as another")
    store: Any = open_store(uri, hash_keys(None, environment()))
    try:
        has_links: bool = keeps_links(store)
        if not has_links:
            raise SettingError(
                "the links of this store are in the memory of the process that serves: give "
                "`--store` the `lmdb://` or `redis://` store of the guard"
            )
        engine = Engine(policies, ProcessIds(), namespace=namespace)
        store.share(engine.pools)
        links = StoredLinks(policies.links, store, engine.namespace)
        yield Opened(links, engine.pools, microseconds(skewed(time.time, store)()))
    finally:
        store.close()


class Link(NamedTuple):
    """One link of an account: the facts whose values it rests on, its days, and who shares it."""

    facts: tuple[str, ...]
    since: date
    until: date
    shared: tuple[str, ...]

    def fields(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "facts": list(self.facts),
            "since": str(self.since),
            "until": str(self.until),
            "shared_with": list(self.shared),
        }

    @property
    def cells(self) -> tuple[str, str, str]:
        """It as cells of a table."""
        others = f"shared with {', '.join(self.shared)}" if self.shared else ""
        return " + ".join(self.facts), f"since {self.since}, until {self.until}", others


class Shown(NamedTuple):
    """All that is shown of an account."""

    account: str
    name: str
    actor: str
    kind: int
    members: tuple[tuple[str, int], ...]
    links: tuple[Link, ...]
    apart: date | None
    other: str | None
    weakest: Link | None

    @classmethod
    def of(cls, links: Opened, account: str, other: str | None) -> Shown:
        """Return what is shown of an account, and of what ties it to another.

        Raises:
            StoreError: others changed the same links each time.
        """
        whole = performed(links.kept.whole(links.now))
        if whole is None:
            raise StoreError("others changed the same links each time: try again")
        number = whole.evidence.account(account)
        forest, kind = whole.forest, _kind(whole, number)
        apart = whole.book.apart.get(number, 0)
        alone = kind != STRANGER or apart >= links.today
        standing = whole.stands(number, alone, links.today)
        members = tuple(
            (_name(member), _kind(whole, member)) for member in whole.members(number, links.today)
        )
        edges = [edge for edge in forest.edges() if edge.expiry >= links.today]
        own = tuple(_link(whole, edge, edges) for edge in edges if edge.account == number)
        weakest = None
        if other is not None:
            weakest = whole.weakest(number, whole.evidence.account(other))
        return cls(
            account,
            _name(number),
            actor_id(standing.actor) if standing.actor else account,
            kind,
            members,
            own,
            _day(apart) if apart >= links.today else None,
            other,
            None if weakest is None else _link(whole, weakest, edges),
        )

    def fields(self) -> dict[str, object]:
        """Return it as JSON has it."""
        told: dict[str, object] = {
            "account": self.account,
            "name": self.name,
            "actor": self.actor,
            **_flags(self.kind),
            "members": [{"name": name, **_flags(kind)} for name, kind in self.members],
            "links": [link.fields() for link in self.links],
            "apart_until": None if self.apart is None else str(self.apart),
        }
        if self.other is not None:
            weakest = None if self.weakest is None else self.weakest.fields()
            told["weakest"] = {"to": self.other, "link": weakest}
        return told


def _print(output: Output, shown: Shown, *, brief: bool) -> None:
    trusted = sum(kind == TRUSTED for _, kind in shown.members)
    count = f"{plural(len(shown.members), 'account')}, of them {trusted} trusted"
    if shown.actor == shown.account and len(shown.members) > 1:
        why = f", as it is {_ALONE[shown.kind]}" if shown.kind in _ALONE else ""
        count = f"alone{why}; linked: {count}"
    output.line(f"account  {inert(shown.account)}  {shown.name}")
    output.line(f"acts as  {inert(shown.actor)}: {count}")
    if not brief:
        for at, (name, kind) in enumerate(shown.members):
            notes = [" (this one)"] if name == shown.name else []
            notes += [f" ({_ALONE[kind]}: it acts alone)"] if kind in _ALONE else []
            output.line(f"{'' if at else 'members':7}  {name}{''.join(notes)}")
        rows = columns([link.cells for link in shown.links], [False] * 3)
        for at, row in enumerate(rows or ["none"]):
            output.line(f"{'' if at else 'links':7}  {row}")
    if shown.apart is not None:
        output.line(f"apart    not linked until {shown.apart}, as somebody decided")
    if shown.other is not None:
        link = "none ties them"
        if shown.weakest is not None:
            link = "  ".join(shown.weakest.cells).rstrip()
        output.line(f"weakest  to {inert(shown.other)}: {link}")


def _parted(output: Output, form: Format, links: Opened, account: str, other: str) -> int:
    edge: Edge | None = performed(links.kept.part(account, other, links.pools, links.now))
    fields: dict[str, object] = {"account": account, "from": other, "was_linked": edge is not None}
    if edge is None:
        _tell(output, form, fields, f"no link ties {inert(account)} to {inert(other)}")
        return FINDINGS
    evidence = performed(links.kept.evidence(links.now))
    assert evidence is not None
    facts = evidence.facts_of(edge.kind)
    fields["facts"] = list(facts)
    _tell(
        output,
        form,
        fields,
        f"{inert(account)} and {inert(other)} are parted: the link by {' + '.join(facts)} is cut; "
        "it comes back if it is shown again",
    )
    return OK


def _tell(output: Output, form: Format, fields: dict[str, object], text: str) -> None:
    if form is Format.JSON:
        output.json(fields)
    else:
        output.line(text)


def _link(whole: Linking, edge: Edge, edges: list[Edge]) -> Link:
    shared = sorted(
        _name(other.account)
        for other in edges
        if other.value == edge.value and other.account != edge.account
    )
    facts = whole.evidence.facts_of(edge.kind)
    return Link(facts, _day(edge.since), _day(edge.expiry), tuple(shared))


_ALONE = {TRUSTED: "trusted", EXEMPT: "exempt"}
"""The kinds of accounts that act alone, whatever ties them."""


def _kind(whole: Linking, account: int) -> int:
    row = whole.forest.index.get(account)
    return STRANGER if row is None else whole.forest.kind[row]


def _flags(kind: int) -> dict[str, object]:
    return {"trusted": kind == TRUSTED, "exempt": kind == EXEMPT}


def _name(account: int) -> str:
    return f"{account:016x}"[:_DIGITS]


def _day(day: int) -> date:
    return datetime.fromtimestamp(0, UTC).date() + timedelta(days=day)
