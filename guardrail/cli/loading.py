"""Loading policies for a command, and saying in one line what was loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from guardrail.cli.failures import NothingToCheckError
from guardrail.cli.figures import plural
from guardrail.cli.inert import shortened
from guardrail.errors import SettingError
from guardrail.guard.context import MODE, UNTIL
from guardrail.loading import load_policies
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet

_DIGEST = 15
_TRAFFIC = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".csv", ".csv.gz", ".csv.zst")


def load(paths: Sequence[str], *, linted: bool = False, expected: Sequence[str] = ()) -> PolicySet:
    """Return the policy set under some paths; `linted` adds what is most likely not meant.

    `expected` are more expectations of traffic, in files or written out.

    Raises:
        SettingError: a path is not there, or is traffic, or an expectation is none.
        NothingToCheckError: there is no policy file under them.
        PolicyError: the files cannot be loaded.
    """
    for path in paths:
        if path.endswith(_TRAFFIC):
            raise SettingError(
                f"`{path}` is traffic, not a policy: put `--traffic` before each file"
            )
        if not Path(path).exists():
            raise SettingError(f"there is no `{path}`")
    if not any(_holds_policies(Path(path)) for path in paths):
        raise NothingToCheckError(
            f"nothing to check: no policy file under `{'`, `'.join(paths)}` (`*.yaml` or `*.yml`)"
        )
    for one in expected:
        if one.endswith((".yaml", ".yml")) and not Path(one).exists():
            raise SettingError(f"`--expect`: there is no `{one}`")
    return load_policies(list(paths), linted=linted, expected=expected)


def _holds_policies(path: Path) -> bool:
    return not path.is_dir() or any(path.rglob("*.yaml")) or any(path.rglob("*.yml"))


def environment() -> Mapping[str, str]:
    """Return the environment without the emergency switch: commands judge the policy itself."""
    return {name: value for name, value in os.environ.items() if name not in (MODE, UNTIL)}


def revision(policies: PolicySet) -> str:
    """Return a policy set's digest, cut to what tells two versions apart."""
    return f"{policies.revision[:_DIGEST]}…"


def policy_line(policies: PolicySet) -> str:
    """Return a policy set in one line: name, revision, files, rules by mode."""
    modes = [rule.mode for rule in policies.rules]
    by_mode = ", ".join(f"{modes.count(mode)} {mode.value}" for mode in Mode if modes.count(mode))
    rules = plural(len(modes), "rule") + (f" ({by_mode})" if by_mode else "")
    return (
        f"{shortened(policies.name)}  {revision(policies)}  "
        f"{plural(len(policies.files), 'file')}, {rules}"
    )
