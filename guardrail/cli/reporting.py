"""The pages that `check --report` and `diff --report` write about replays."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from guardrail.analysis import Change, Changes
from guardrail.cli.claims_text import request_text
from guardrail.cli.diff_traffic import kind_counts
from guardrail.cli.figures import length
from guardrail.cli.files import write
from guardrail.cli.findings import Found
from guardrail.cli.harm_text import most_like_customers, where
from guardrail.cli.traffic import TrafficRun
from guardrail.cli.traffic_text import remarks
from guardrail.decisionlog import LoggedNames
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.comparing import Changed, Compared, Kind
from guardrail.replay.report import changes_page, report_page
from guardrail.stores.naming import hash_keys


def write_report(
    path: str,
    run: TrafficRun,
    policies: PolicySet,
    found: Found,
    traffic: list[str],
    show_identifiers: bool,
) -> None:
    """Write the page about a replay whose figures were added up.

    Raises:
        SettingError: the file cannot be written, or the hash key is not usable.
    """
    told = _figures(run, policies, names_of_accounts(show_identifiers))
    told["traffic"] = [os.path.basename(name) for name in traffic]
    told["ending"] = found.notes
    told["findings"] = found.told()
    told["notes"] = [*remarks(run, policies)]
    if run.warmup:
        told["notes"].append(f"The first {length(run.warmup)} are left out of the figures.")
    write(path, report_page(told))


def write_changes_report(
    path: str,
    compared: Compared,
    policies: tuple[PolicySet, PolicySet],
    found: Changes,
    met: Found,
    traffic: list[str],
    show_identifiers: bool,
) -> None:
    """Write the page about two versions of the policies over the same traffic.

    Raises:
        SettingError: the file cannot be written, or the hash key is not usable.
    """
    named = names_of_accounts(show_identifiers)
    # Accounts are numbered as they are named: first those that the page tells first.
    changes = _changes(compared, found, named)
    old, new = policies
    after, before = (
        _figures(run, version, named)
        for run, version in ((compared.after, new), (compared.before, old))
    )
    after["traffic"] = [os.path.basename(name) for name in traffic]
    after["notes"] = [
        "Each version had counters of its own.",
        *remarks(compared.after, new),
        *met.told(),
    ]
    write(path, changes_page(changes, before, after))


def _figures(run: TrafficRun, policies: PolicySet, named: Callable[[str], str]) -> dict[str, Any]:
    assert run.figures is not None
    return run.figures.fields(run.tally, policies, named)


def _changes(compared: Compared, found: Changes, named: Callable[[str], str]) -> dict[str, object]:
    figures, several = compared.figures, len(compared.after.sources) > 1
    return {
        "looser": [_kind(*pair, several) for pair in figures.changed(looser=True)],
        "stricter": [_kind(*pair, several) for pair in figures.changed(looser=False)],
        "matrix": {
            str(was): {str(now): figures.matrix[was, now] for now in Effect} for was in Effect
        },
        "otherwise": figures.otherwise,
        "renamed": figures.renamed,
        "first_refused": [
            {
                "account": named(account),
                "requests": hit.requests,
                "refused": hit.refused,
                "signs": list(hit.standing.signs),
                "first": hit.place.ts,
                "rule": hit.rule,
            }
            for account, hit in most_like_customers(dict(compared.first_refused))
        ],
        "no_longer": compared.no_longer_refused,
        "proved": {
            "looser": [_proved(one) for one in found.looser],
            "stricter": [_proved(one) for one in found.stricter],
            "unjudged": list(found.unjudged),
        },
    }


def _kind(kind: Kind, changed: Changed, several: bool) -> dict[str, object]:
    place = changed.place
    return {**kind_counts(kind, changed), "first": place.ts, "where": where(place, several)}


def _proved(one: Change) -> dict[str, str]:
    return {
        "rule": one.rule,
        "was": one.before,
        "is": one.after,
        "example": request_text(one.witness),
    }


def names_of_accounts(show_identifiers: bool) -> Callable[[str], str]:
    """Return how a report names accounts: as they are, by the decision log's hash, or by number.

    Numbers are given in the order in which accounts are named: the first is `account 1`.

    Raises:
        SettingError: the environment's hash key is not usable.
    """
    if show_identifiers:
        return lambda account: account
    keys = hash_keys(None, os.environ)
    if keys:
        names = LoggedNames(keys[0])
        return names.of
    numbers: dict[str, int] = {}
    return lambda account: f"account {numbers.setdefault(account, len(numbers) + 1):,}"
