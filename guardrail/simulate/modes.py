"""Ways to run a simulation that keep its figures honest, and the baselines to compare them with."""

from __future__ import annotations

import concurrent.futures
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from guardrail.loading import load_policies, load_text
from guardrail.model.amounts import HOUR
from guardrail.model.conditions import facts_of
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Distinct, Rate, Rule
from guardrail.simulate.draws import stream
from guardrail.simulate.operators import Thief
from guardrail.simulate.report import Fields, figures, harm, share
from guardrail.simulate.running import Options, Result, Tick, simulate
from guardrail.simulate.skills import Attack, Skill


class Mode(enum.StrEnum):
    """How the figures of a seed are made.

    `null` has no attack; `placebo` shuffles who is called an attacker; `twin` runs the same honest
    stream with and without the attack; `ablate` turns off one primitive at a time, and hands the
    attacker what it held off.
    """

    PLAIN = "plain"
    NULL = "null"
    PLACEBO = "placebo"
    TWIN = "twin"
    ABLATE = "ablate"


class Baseline(enum.StrEnum):
    """Policies to compare with: no limits, or a typical one on each account, address or card."""

    NONE = "none"
    ACCOUNT = "account"
    IP = "ip"
    PAYMENT = "payment"


def baseline_policies(baseline: Baseline) -> PolicySet:
    """Return the policy set of a baseline."""
    folder = resources.files("guardrail.simulate").joinpath("baselines")
    return load_text(folder.joinpath(f"{baseline}.yaml").read_text("utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One seed to run: under the policies of some paths, or under a baseline."""

    paths: tuple[str, ...]
    options: Options
    seed: int
    mode: Mode = Mode.PLAIN
    baseline: Baseline | None = None

    def policies(self) -> PolicySet:
        """Return the policy set that the job runs under.

        Raises:
            PolicyError: the files cannot be loaded.
        """
        if self.baseline is not None:
            return baseline_policies(self.baseline)
        return load_policies(list(self.paths))


def run(job: Job, tick: Tick | None = None) -> Fields:
    """Return the figures of one job."""
    return _RUNS[job.mode](job.policies(), job.options, job.seed, tick)


def run_all(
    jobs: Sequence[Job], workers: int, tick: Callable[[float], None] | None = None
) -> Iterator[Fields]:
    """Yield the figures of all jobs in order, run by several processes if there are several.

    `tick` is told how many jobs are done, as a number that also tells of parts of one.
    """
    if workers <= 1 or len(jobs) == 1:
        for number, job in enumerate(jobs):
            yield run(job, None if tick is None else _offset(tick, number))
        return
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs))) as pool:
        for number, found in enumerate(pool.map(run, jobs)):
            if tick is not None:
                tick(number + 1.0)
            yield found


def _offset(tick: Tick, number: int) -> Tick:
    return lambda part: tick(number + part)


def _scaled(tick: Tick | None, number: int, of: int) -> Tick | None:
    return None if tick is None else lambda part: tick((number + part) / of)


def plain(policies: PolicySet, options: Options, seed: int, tick: Tick | None = None) -> Fields:
    """Return the figures of an attack among honest customers."""
    return figures(simulate(policies, options, seed, tick=tick))


def null(policies: PolicySet, options: Options, seed: int, tick: Tick | None = None) -> Fields:
    """Return the figures of honest customers alone."""
    return plain(policies, replace(options, attack=Attack.NONE), seed, tick)


def placebo(policies: PolicySet, options: Options, seed: int, tick: Tick | None = None) -> Fields:
    """Return the figures of an attack, and those of as many accounts called attackers at random.

    Whatever is found of those is chance: a figure that is no worse for the real attack tells
    nothing.
    """
    result = simulate(policies, options, seed, tick=tick)
    return figures(result) | {"placebo": placebo_figures(result)}


def placebo_figures(result: Result) -> Fields:
    """Return how accounts drawn without regard to who runs them fare, honest and not."""
    random = stream(result.seed, "placebo")
    honest = [
        (account.asked, account.served, account.first_action is not None)
        for account in result.population.accounts
        if account.asked
    ]
    farmed = [
        (puppet.asked, puppet.served, puppet.refused)
        for operator in result.operators
        for puppet in operator.accounts
        if puppet.asked
    ]
    drawn = random.sample(honest + farmed, len(farmed))

    def told(rows: Sequence[tuple[int, int, bool]]) -> Fields:
        return {
            "accounts": len(rows),
            "served_share": share(sum(row[1] for row in rows), sum(row[0] for row in rows)),
            "refused_accounts_share": share(sum(row[2] for row in rows), len(rows)),
        }

    return {"called_attackers": told(drawn), "attackers": told(farmed), "honest": told(honest)}


def twin(policies: PolicySet, options: Options, seed: int, tick: Tick | None = None) -> Fields:
    """Return the figures of an attack, and which decisions of trusted accounts it changed."""
    watching = replace(options, watch=True)
    attacked = simulate(policies, watching, seed, tick=_scaled(tick, 0, 2))
    quiet = simulate(
        policies, replace(watching, attack=Attack.NONE), seed, tick=_scaled(tick, 1, 2)
    )
    return figures(attacked) | {"twin": twin_figures(attacked, quiet)}


def twin_figures(attacked: Result, quiet: Result) -> Fields:
    """Compare the decisions of trusted accounts one by one, account by account."""
    first, second = _by_account(attacked), _by_account(quiet)
    # Whose key is stolen shares his counters with the thief: that is no harm done by mistake.
    robbed = {
        puppet.number
        for operator in attacked.operators
        if isinstance(operator, Thief)
        for puppet in operator.accounts
    }
    for number in robbed:
        first.pop(number, None)
        second.pop(number, None)
    compared = different = 0
    accounts = set()
    examples: list[Fields] = []
    for number in sorted(first.keys() | second.keys()):
        ours, theirs = first.get(number, []), second.get(number, [])
        compared += max(len(ours), len(theirs))
        unequal = abs(len(ours) - len(theirs))
        for one, other in zip(ours, theirs, strict=False):
            if one != other:
                unequal += 1
                if len(examples) < 5:
                    examples.append({"with_attack": list(one), "without": list(other)})
        different += unequal
        if unequal:
            accounts.add(number)
    return {
        "compared": compared,
        "different": different,
        "accounts": len(first.keys() | second.keys()),
        "accounts_different": len(accounts),
        "accounts_left_out": len(robbed),
        "examples": examples,
        "honest_without_attack": {
            "established": harm([a for a in quiet.population.accounts if a.established]),
            "new": harm([a for a in quiet.population.accounts if not a.established]),
        },
    }


def _by_account(result: Result) -> dict[int, list[tuple[object, ...]]]:
    found: dict[int, list[tuple[object, ...]]] = {}
    for number, *decided in result.watched or ():
        found.setdefault(number, []).append(tuple(decided))
    return found


# Ablation


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """One way to hold an attacker off: which rules are it, and what it is worth to be without it.

    `dropped` tells which rules go; `eased` is what an operator does when they are gone.
    """

    name: str
    dropped: Callable[[Rule], bool]
    eased: Callable[[Skill], Skill]


def _keyed(rule: Rule, *facts: str) -> bool:
    return bool(set(rule.verb.facts) & set(facts))


def _tests(rule: Rule, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in facts_of(rule.when))


PRIMITIVES: tuple[Primitive, ...] = (
    Primitive(
        name="links",
        dropped=lambda rule: _keyed(rule, "actor.id") or _tests(rule, "actor."),
        eased=lambda skill: replace(
            skill, reuse=1.0, per_device=4, per_exit=4, per_card=max(3, skill.per_card)
        ),
    ),
    Primitive(
        name="sharing",
        dropped=lambda rule: isinstance(rule.verb, Distinct) and not _keyed(rule, "kyc.subject"),
        eased=lambda skill: replace(skill, per_card=100, per_device=50),
    ),
    Primitive(
        name="identities",
        dropped=lambda rule: _keyed(rule, "kyc.subject"),
        eased=lambda skill: replace(skill, per_identity=1000, passes=max(skill.passes, 0.5)),
    ),
    Primitive(
        name="lifetime",
        dropped=lambda rule: isinstance(rule.verb, Budget) and rule.verb.window.kind == "lifetime",
        eased=lambda skill: replace(skill, churn=skill.churn * 4),
    ),
    Primitive(
        name="ceilings",
        dropped=lambda rule: (
            isinstance(rule.verb, Budget)
            and (not rule.verb.facts or _keyed(rule, "account.signup"))
        ),
        eased=lambda skill: replace(skill, registration=1.0),
    ),
    Primitive(
        name="pace",
        dropped=lambda rule: (
            isinstance(rule.verb, Rate)
            or (
                isinstance(rule.verb, Budget)
                and 0 < rule.verb.lasts <= 24 * HOUR
                and _keyed(rule, "account.id", "credential.id")
            )
        ),
        eased=lambda skill: replace(skill, rate=skill.rate * 10, ceiling=skill.ceiling * 10),
    ),
    Primitive(
        name="networks",
        dropped=lambda rule: _tests(rule, "network.kind"),
        eased=lambda skill: replace(skill, kinds=("hosting",), per_exit=50, exits=0),
    ),
    Primitive(
        name="countries",
        dropped=lambda rule: _tests(rule, "geo.", "payment.country"),
        eased=lambda skill: replace(skill, aligned=False),
    ),
    Primitive(
        name="capabilities",
        dropped=lambda rule: _tests(rule, "request.capability", "request.tools"),
        eased=lambda skill: skill,
    ),
)
"""What can be turned off, one at a time."""


def without(policies: PolicySet, primitive: Primitive) -> tuple[PolicySet, tuple[str, ...]]:
    """Return a policy set without the rules of a primitive, and the ids of those."""
    dropped = tuple(rule.id for rule in policies.rules if primitive.dropped(rule))
    kept = [rule for rule in policies.rules if rule.id not in dropped]
    ordered = tuple(replace(rule, index=index) for index, rule in enumerate(kept))
    return replace(policies, rules=ordered), dropped


def ablate(policies: PolicySet, options: Options, seed: int, tick: Tick | None = None) -> Fields:
    """Return the figures of an attack, and those with each primitive off in turn."""
    of = len(PRIMITIVES) + 1
    found = plain(policies, options, seed, _scaled(tick, 0, of))
    rows = []
    for number, primitive in enumerate(PRIMITIVES):
        rest, dropped = without(policies, primitive)
        step = _scaled(tick, number + 1, of)
        if not dropped:
            rows.append({"primitive": primitive.name, "dropped": []})
            continue
        result = simulate(rest, options, seed, tick=step, skilled=primitive.eased)
        told = figures(result)
        rows.append(
            {
                "primitive": primitive.name,
                "dropped": list(dropped),
                "attacker": told["attacker"],
                "pooled": told["honest"]["pooled"],
            }
        )
    return found | {"ablation": rows}


_RUNS: Mapping[Mode, Callable[[PolicySet, Options, int, Tick | None], Fields]] = {
    Mode.PLAIN: plain,
    Mode.NULL: null,
    Mode.PLACEBO: placebo,
    Mode.TWIN: twin,
    Mode.ABLATE: ablate,
}
