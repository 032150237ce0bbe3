"""A traffic run as JSON takes it."""

from __future__ import annotations

from guardrail.cli.harm_text import harm_fields
from guardrail.cli.traffic import TrafficRun
from guardrail.cli.traffic_text import remarks
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule


def traffic_fields(run: TrafficRun, policies: PolicySet) -> dict[str, object]:
    """Return the figures of a run; times are in seconds since the epoch."""
    tally, course = run.tally, run.course
    return {
        "requests": tally.requests,
        "warmup_requests": run.warmed,
        "accounts": len(tally.accounts),
        "first": course.first,
        "last": course.newest if course.first is not None else None,
        "late": course.late,
        "latest_step_back": course.furthest,
        **reading_fields(run),
        "decisions": {
            str(effect): {
                "requests": tally.effect_requests(effect),
                "accounts": tally.effect_accounts(effect),
            }
            for effect in Effect
        },
        "rules": [_rule_fields(run, rule) for rule in policies.rules],
        "shadow": {
            "stricter": {str(effect): count for effect, count in tally.shadow.stricter.items()},
            "accounts": len(tally.shadow.accounts),
        },
        "decided_on_missing_facts": [
            {"rule": rule, "missing": list(missing), "requests": count}
            for (rule, missing), count in sorted(tally.matching.hinged.items())
        ],
        **harm_fields(run),
        "ceilings": [found._asdict() for found in tally.ceilings.found()],
        "unlisted_models": dict(sorted(tally.unlisted.items())),
        **_without_store(run),
        "remarks": list(remarks(run, policies)),
    }


def reading_fields(run: TrafficRun) -> dict[str, object]:
    """Return what could not be read, and what a map met."""
    return {
        "bad_lines": {
            "count": run.bad.count,
            "first": [
                {"file": file, "line": line, "reason": reason}
                for file, line, reason in run.bad.first
            ],
        },
        "damaged": run.faults,
        **_of_map(run),
    }


def _of_map(run: TrafficRun) -> dict[str, object]:
    """Return what a map met, nothing where none read the traffic."""
    notes = run.notes
    if notes is None:
        return {}
    met = {
        "rows": notes.rows,
        "rows_passed_over": notes.passed_over,
        "missing": dict(sorted(notes.missing.items())),
        "unlisted": [
            {"fact": fact, "value": text, "requests": count, "took_default": where == "replaced"}
            for where, counts in (("unknown", notes.unknown), ("replaced", notes.replaced))
            for (fact, text), count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        ],
        "respelt": [
            {"model": name, "value": text, "requests": count}
            for (name, text), count in sorted(notes.respelt.items())
        ],
        "columns_without_value": sorted(notes.unseen),
        "doubled_times": notes.doubled,
        "skipped_times": notes.skipped,
        "times_before_1980": notes.early,
        "undecoded": notes.undecoded,
    }
    return {"map": met}


def _without_store(run: TrafficRun) -> dict[str, object]:
    modes, refused = run.tally.modes, run.tally.unavailable
    if not modes:
        return {}
    fields = {
        "local_share": str(run.local_share),
        "modes": {str(mode): count for mode, count in modes.items()},
        "refused": {str(rule): count for rule, count in refused.items()},
    }
    return {"without_store": fields}


def _rule_fields(run: TrafficRun, rule: Rule) -> dict[str, object]:
    tally = run.tally
    counts = tally.shadow.by_rule if rule.mode is Mode.SHADOW else tally.decided
    return {
        "rule": rule.id,
        "mode": rule.mode.value,
        "matched": tally.matching.matched.get(rule.id, 0),
        "no_effect": tally.idle.get(rule.id, 0),
        **{
            str(effect): counts.get((rule.id, effect), 0)
            for effect in (Effect.DEGRADE, Effect.THROTTLE, Effect.BLOCK)
        },
        **rule.about.as_dict(),
    }
