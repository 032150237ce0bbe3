"""One page about a run of simulations: plots, tables, and no reference to anything outside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from guardrail.simulate.plots import Bar, Line, bars_plot, lines_plot

Fields = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --page: #fcfcfd;
  --panel: #f3f4f6; --rule: #d9dbe0; --a: #0b68cb; --b: #c2410c; --c: #7c7f86; --d: #16794c; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a6abb3; --page: #111316;
  --panel: #1b1e22; --rule: #363b42; --a: #6cb2ff; --b: #ff9a62; --c: #8d939c; --d: #5bd19b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
p, figcaption { color: var(--soft); } code { overflow-wrap: anywhere; }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; }
.three div { background: var(--panel); border-radius: .5rem; padding: .9rem 1.1rem; }
.three b { display: block; font-size: 1.7rem; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg text.name { fill: var(--ink); }
.a { stroke: var(--a); fill: var(--a); } .b { stroke: var(--b); fill: var(--b); }
.c { stroke: var(--c); fill: var(--c); } .d { stroke: var(--d); fill: var(--d); }
.grid { stroke: var(--rule); } .line { fill: none; stroke-width: 2; } rect { stroke: none; }
.fill { fill-opacity: .14; stroke: none; } .dot { fill-opacity: 0; stroke: none; }
.dot:hover { fill-opacity: 1; }
.key { margin-left: 1rem; white-space: nowrap; } .key::before { content: ""; display: inline-block;
  width: .8rem; height: .2rem; margin-right: .35rem; vertical-align: middle; background: var(--k); }
.key.a { --k: var(--a); } .key.b { --k: var(--b); } .key.c { --k: var(--c); }
.key.d { --k: var(--d); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
"""


def page(told: Fields) -> str:
    """Return the page on what was told of a run: its policy set, its mode, and its seeds."""
    seeds: Sequence[Fields] = told["seeds"]
    worst = max(
        seeds,
        key=lambda found: (
            (found["attacker"] or {}).get("sought_share") or 0.0,
            found["honest"]["pooled"]["established"]["refused_share"] or 0.0,
        ),
    )
    body = "".join(_sections(told, seeds, worst))
    title = escape(f"Simulation of {told['policy']}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _sections(told: Fields, seeds: Sequence[Fields], worst: Fields) -> Iterator[str]:
    yield f"<h1>Simulation of <code>{escape(str(told['policy']))}</code></h1>"
    many = f"{len(seeds)} seeds, the worst of them" if len(seeds) > 1 else "seed"
    under = f", baseline {told['baseline']}" if told["baseline"] else ""
    yield (
        f"<p>Revision <code>{escape(str(told['revision']))}</code>. Attack: "
        f"{escape(worst['attack'])}; mode: {escape(str(told['mode']))}{escape(under)}; "
        f"{many} {worst['seed']}; {worst['accounts']:,} honest accounts, {worst['days']} days.</p>"
    )
    yield from _three(worst)
    if worst["attacker"] is not None:
        yield from _attack(worst, seeds)
    yield from _honest(worst)
    if worst["shocks"]:
        yield from _shocks(worst)
    yield from _modes(worst)
    if len(seeds) > 1:
        yield from _every_seed(seeds)
    yield (
        f"<p>{sum(found['decisions'] for found in seeds):,} decisions in "
        f"{sum(found['seconds'] for found in seeds):,.1f} s. All of this is simulated: customers "
        "and operators are models, and what they do here is not what yours will do.</p>"
    )


def _three(worst: Fields) -> Iterator[str]:
    """Yield the three figures that belong together."""
    taken, pooled = worst["attacker"], worst["honest"]["pooled"]
    boxes = []
    if taken is not None:
        boxes = [
            (_percent(taken["sought_share"]), "of the agents and code that operators wanted"),
            (_times(taken["cost_multiple"]), "the unopposed cost of an exchange"),
        ]
    boxes.append(
        (
            _percent(pooled["established"]["refused_share"]),
            "of the requests of established customers denied; of new ones "
            + _percent(pooled["new"]["refused_share"]),
        )
    )
    inner = "".join(f"<div><b>{value}</b>{escape(text)}</div>" for value, text in boxes)
    yield f'<div class="three">{inner}</div>'


def _attack(worst: Fields, seeds: Sequence[Fields]) -> Iterator[str]:
    taken, days = worst["attacker"], worst["by_day"]
    first = days[0]["day"]
    yield "<h2>What operators wanted and got</h2>"
    yield lines_plot(
        "Exchanges for agents and code, by day of the attack",
        "",
        first,
        [
            Line("wanted", "c", [day["sought"] for day in days], filled=True),
            Line("served", "b", [day["taken"] for day in days], filled=True),
        ],
    )
    rows = [
        ["first refusal after the 50th account", _hours(taken["hours_to_first_action"])],
        ["contained after", _hours(taken["hours_to_containment"])],
        [
            "the most that accounts such as theirs could get",
            "unbounded" if taken["bound"] is None else f"{taken['bound']:,.0f}",
        ],
        ["served to accounts that showed an identity", f"{taken['served_with_identity']:,}"],
        ["accounts bought", f"{taken['accounts_bought']:,}"],
        ["cards bought", f"{taken['cards_bought']:,}"],
        ["identities bought", f"{taken['identities_bought']:,}"],
        ["addresses rented", f"{taken['exits_rented']:,}"],
        ["cost", f"${taken['cost_usd']:,.0f}, unopposed ${taken['unopposed_cost_usd']:,.0f}"],
    ]
    for mark, shares in taken["at_day"].items():
        rows.append(
            [
                f"served by day {mark}",
                f"{_percent(shares['share'])} of all, {_percent(shares['sought_share'])} of agents "
                "and code",
            ]
        )
    yield _table(["", ""], rows)
    yield _table(
        ["taken through", "identity", "paid", "as one", "accounts", "served", "refused most by"],
        [
            [
                f"{band['age']} accounts",
                band["known"],
                band["paid"],
                band["acting"] or "–",
                f"{band['accounts']:,}",
                f"{band['served']:,}",
                next(iter(band["refusals"]), "–"),
            ]
            for band in taken["taken_through"]
        ],
    )
    if len(seeds) > 1:
        yield bars_plot(
            "Share of the agents and code that operators wanted, by seed",
            [
                Bar(
                    f"seed {found['seed']}",
                    "b",
                    (found["attacker"]["sought_share"] or 0.0),
                    _percent(found["attacker"]["sought_share"]),
                )
                for found in seeds
            ],
        )


def _honest(worst: Fields) -> Iterator[str]:
    honest, days = worst["honest"], worst["by_day"]
    yield "<h2>Harm to honest customers</h2>"
    yield lines_plot(
        "Share of honest requests denied, by day of the attack",
        "%",
        days[0]["day"],
        [Line("denied", "a", [day["refused"] / max(1, day["asked"]) for day in days], filled=True)],
    )
    for age, style in (("established", "a"), ("new", "d")):
        yield bars_plot(
            f"Requests denied, {age} customers",
            [
                Bar(
                    name,
                    style,
                    ages[age]["refused_share"] or 0.0,
                    _percent(ages[age]["refused_share"]),
                )
                for name, ages in honest["segments"].items()
                if age in ages
            ],
        )
    rows = []
    for age in ("established", "new"):
        rows.append(_harm_row(age, honest["pooled"][age]))
        for name, ages in honest["segments"].items():
            if age in ages:
                rows.append(_harm_row(f"{age}, {name}", ages[age]))
    yield _table(
        ["", "accounts", "requests", "denied", "degraded", "asked for ID", "blocked", "gone"], rows
    )


def _harm_row(name: str, harm: Fields) -> list[str]:
    shares = (
        "refused_share",
        "degraded_share",
        "stepped_up_share",
        "blocked_share",
        "gone_share",
    )
    return [name, f"{harm['active']:,}", f"{harm['asked']:,}", *(_percent(harm[s]) for s in shares)]


def _shocks(worst: Fields) -> Iterator[str]:
    yield "<h2>Harm in shocks</h2>"
    rows = [
        [
            name,
            f"{shock['accounts']:,}",
            f"{shock['asked']:,}",
            _percent(shock["refused_share"]),
            f"{shock['accounts_refused']:,}",
            f"{shock['accounts_stepped_up']:,}",
            f"{shock['accounts_blocked']:,}",
        ]
        for name, shock in worst["shocks"].items()
    ]
    yield _table(["", "accounts", "requests", "denied", "refused", "asked for ID", "blocked"], rows)


def _modes(worst: Fields) -> Iterator[str]:
    if "twin" in worst:
        twin = worst["twin"]
        yield "<h2>Twin</h2>"
        yield (
            f"<p>{twin['compared']:,} decisions on {twin['accounts']:,} trusted accounts were made "
            f"with and without the attack; {twin['different']:,} differ, on "
            f"{twin['accounts_different']:,} accounts.</p>"
        )
    if "placebo" in worst:
        yield "<h2>Placebo</h2>"
        yield _table(
            ["", "accounts", "served", "accounts refused"],
            [
                [
                    name.replace("_", " "),
                    f"{row['accounts']:,}",
                    _percent(row["served_share"]),
                    _percent(row["refused_accounts_share"]),
                ]
                for name, row in worst["placebo"].items()
            ],
        )
    if "ablation" in worst:
        yield "<h2>Without each primitive</h2>"
        yield _table(
            ["without", "rules left out", "agents and code served", "cost", "established denied"],
            [
                [
                    row["primitive"],
                    ", ".join(row["dropped"]) or "none",
                    _percent((row.get("attacker") or {}).get("sought_share")),
                    _times((row.get("attacker") or {}).get("cost_multiple")),
                    _percent(row["pooled"]["established"]["refused_share"])
                    if row["dropped"]
                    else "–",
                ]
                for row in worst["ablation"]
            ],
        )


def _every_seed(seeds: Sequence[Fields]) -> Iterator[str]:
    yield "<h2>Every seed</h2>"
    rows = []
    for found in seeds:
        taken, pooled = found["attacker"] or {}, found["honest"]["pooled"]
        rows.append(
            [
                str(found["seed"]),
                _percent(taken.get("share")),
                _percent(taken.get("sought_share")),
                _times(taken.get("cost_multiple")) if taken else "–",
                *(
                    _percent(pooled[age][name])
                    for age in ("established", "new")
                    for name in ("refused_share", "stepped_up_share")
                ),
            ]
        )
    head = ["seed", "served", "agents and code", "cost", "established denied", "asked for ID"]
    yield _table([*head, "new denied", "asked for ID"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    opening = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return f'<div class="wide"><table>{opening}<tbody>{lines}</tbody></table></div>'


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.3f}%" if 0 < value < 0.001 else f"{100 * value:.2f}%"


def _times(value: float | None) -> str:
    return "∞" if value is None else f"{value:,.1f}×"


def _hours(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:.1f} h" if value < 48 else f"{value / 24:.1f} d"
