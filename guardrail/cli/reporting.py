"""The page that `check --report` writes about a replay."""

from __future__ import annotations

import os
from collections.abc import Callable

from guardrail.cli.figures import length
from guardrail.cli.files import write
from guardrail.cli.findings import Found
from guardrail.cli.traffic import TrafficRun
from guardrail.cli.traffic_text import remarks
from guardrail.decisionlog import LoggedNames
from guardrail.model.policy import PolicySet
from guardrail.replay.report import report_page
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
    assert run.figures is not None
    told = run.figures.fields(run.tally, policies, names_of_accounts(show_identifiers))
    told["traffic"] = [os.path.basename(name) for name in traffic]
    told["ending"] = found.notes
    told["findings"] = found.told()
    told["notes"] = [*remarks(run, policies)]
    if run.warmup:
        told["notes"].append(f"The first {length(run.warmup)} are left out of the figures.")
    write(path, report_page(told))


def names_of_accounts(show_identifiers: bool) -> Callable[[str, int], str]:
    """Return how a report names accounts: by place, by the decision log's hash, or as they are.

    Raises:
        SettingError: the environment's hash key is not usable.
    """
    if show_identifiers:
        return lambda account, place: account
    keys = hash_keys(None, os.environ)
    if keys:
        names = LoggedNames(keys[0])
        return lambda account, place: names.of(account)
    return lambda account, place: f"account {place}"
