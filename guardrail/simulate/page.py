"""One page about a run of simulations: plots, tables, and no reference to anything outside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guardrail.pages import Bar, Line, bars_plot, document, lines_plot, shown, table
from guardrail.simulate.report import percent, times, worst_of

Fields = Mapping[str, Any]


def page(told: Fields) -> str:
    """Return the page on what was told of a run: its policy set, its mode, and its seeds."""
    seeds: Sequence[Fields] = told["seeds"]
    body = "".join(_sections(told, seeds, worst_of(seeds)))
    return document(f"Simulation of {told['policy']}", f"<main>{body}</main>")


def _sections(told: Fields, seeds: Sequence[Fields], worst: Fields) -> Iterator[str]:
    yield f"<h1>Simulation of <code>{shown(told['policy'])}</code></h1>"
    many = f"{len(seeds)} seeds, the worst of them" if len(seeds) > 1 else "seed"
    under = f", baseline {told['baseline']}" if told["baseline"] else ""
    yield (
        f"<p>Revision <code>{shown(told['revision'])}</code>. Attack: "
        f"{shown(worst['attack'])}; mode: {shown(told['mode'])}{shown(under)}; "
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
            (percent(taken["sought_share"]), "of the agents and code that operators wanted"),
            (times(taken["cost_multiple"]), "the unopposed cost of an exchange"),
        ]
    boxes.append(
        (
            percent(pooled["established"]["refused_share"]),
            "of the requests of established customers denied; of new ones "
            + percent(pooled["new"]["refused_share"]),
        )
    )
    inner = "".join(f"<div><b>{value}</b>{shown(text)}</div>" for value, text in boxes)
    yield f'<div class="three">{inner}</div>'


def _attack(worst: Fields, seeds: Sequence[Fields]) -> Iterator[str]:
    taken, days = worst["attacker"], worst["by_day"]
    yield "<h2>What operators wanted and got</h2>"
    yield lines_plot(
        "Exchanges for agents and code, by day of the attack",
        "",
        _day_names(days),
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
                f"{percent(shares['share'])} of all, {percent(shares['sought_share'])} of agents "
                "and code",
            ]
        )
    yield table(["", ""], rows, texts=(1,), caption="What it took, and what it cost")
    yield table(
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
        texts=(0, 1, 2, 3, 6),
        caption="Through which accounts it was taken",
    )
    if len(seeds) > 1:
        yield bars_plot(
            "Share of the agents and code that operators wanted, by seed",
            [
                Bar(
                    f"seed {found['seed']}",
                    "b",
                    (found["attacker"]["sought_share"] or 0.0),
                    percent(found["attacker"]["sought_share"]),
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
        _day_names(days),
        [Line("denied", "a", [day["refused"] / max(1, day["asked"]) for day in days], filled=True)],
    )
    plots = [
        bars_plot(
            f"Requests denied, {age} customers",
            [
                Bar(
                    name,
                    style,
                    ages[age]["refused_share"] or 0.0,
                    percent(ages[age]["refused_share"]),
                )
                for name, ages in honest["segments"].items()
                if age in ages
            ],
            ("segment", "denied"),
        )
        for age, style in (("established", "a"), ("new", "d"))
    ]
    yield f'<div class="pair">{"".join(plots)}</div>'
    rows = []
    for age in ("established", "new"):
        rows.append(_harm_row(age, honest["pooled"][age]))
        for name, ages in honest["segments"].items():
            if age in ages:
                rows.append(_harm_row(f"{age}, {name}", ages[age]))
    head = ["", "accounts", "requests", "denied", "degraded", "asked for ID", "asked to pay"]
    yield table([*head, "blocked", "gone"], rows)


def _harm_row(name: str, harm: Fields) -> list[str]:
    shares = (
        "refused_share",
        "degraded_share",
        "stepped_up_share",
        "asked_to_pay_share",
        "blocked_share",
        "gone_share",
    )
    return [name, f"{harm['active']:,}", f"{harm['asked']:,}", *(percent(harm[s]) for s in shares)]


def _shocks(worst: Fields) -> Iterator[str]:
    yield "<h2>Harm in shocks</h2>"
    rows = [
        [
            name,
            f"{shock['accounts']:,}",
            f"{shock['asked']:,}",
            percent(shock["refused_share"]),
            f"{shock['accounts_refused']:,}",
            f"{shock['accounts_stepped_up']:,}",
            f"{shock['accounts_blocked']:,}",
        ]
        for name, shock in worst["shocks"].items()
    ]
    yield table(["", "accounts", "requests", "denied", "refused", "asked for ID", "blocked"], rows)


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
        yield table(
            ["", "accounts", "served", "accounts refused"],
            [
                [
                    name.replace("_", " "),
                    f"{row['accounts']:,}",
                    percent(row["served_share"]),
                    percent(row["refused_accounts_share"]),
                ]
                for name, row in worst["placebo"].items()
            ],
        )
    if "ablation" in worst:
        yield "<h2>Without each primitive</h2>"
        yield table(
            ["without", "rules left out", "agents and code served", "cost", "established denied"],
            [
                [
                    row["primitive"],
                    ", ".join(row["dropped"]) or "none",
                    percent((row.get("attacker") or {}).get("sought_share")),
                    times((row.get("attacker") or {}).get("cost_multiple")),
                    percent(row["pooled"]["established"]["refused_share"])
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
                percent(taken.get("share")),
                percent(taken.get("sought_share")),
                times(taken.get("cost_multiple")) if taken else "–",
                *(
                    percent(pooled[age][name])
                    for age in ("established", "new")
                    for name in ("refused_share", "stepped_up_share")
                ),
            ]
        )
    head = ["seed", "served", "agents and code", "cost", "established denied", "asked for ID"]
    yield table([*head, "new denied", "asked for ID"], rows)


def _day_names(days: Sequence[Fields]) -> list[str]:
    return [f"day {day['day']}" for day in days]


def _hours(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:.1f} h" if value < 48 else f"{value / 24:.1f} d"
