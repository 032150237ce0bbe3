"""`guardrail explain`: one request, and all that its decision rests on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import typer

from guardrail.cli import options
from guardrail.cli.failures import OK, ended
from guardrail.cli.figures import moment
from guardrail.cli.inert import shortened, wrapped
from guardrail.cli.loading import environment, load, revision
from guardrail.cli.output import EFFECT_STYLES, Color, Format, Output
from guardrail.cli.story_text import after_lines, heading, rule_lines
from guardrail.cli.traffic import TrafficFiles
from guardrail.engine import Decision
from guardrail.errors import SettingError
from guardrail.guard import Guard
from guardrail.loading import NotationError, nearest, read_amount
from guardrail.model.policy import PolicySet
from guardrail.replay.precharge import precharge
from guardrail.replay.running import Replay
from guardrail.stores.memory import MemoryStore
from guardrail.traffic.mapfile import load_map
from guardrail.traffic.requests import stated_facts


@dataclass(slots=True, kw_only=True)
class Question:
    """Which request is to be explained: a hand-written one, or a line of traffic."""

    request: str | None = None
    tokens: str | None = None
    at: float | None = None
    used: list[str] = field(default_factory=list)
    traffic: str | None = None
    line: int | None = None
    map: str | None = None
    geo: str | None = None


def explain(
    paths: options.Paths,
    request: options.Request = None,
    tokens: options.Tokens = None,
    at: options.At = None,
    used: options.Used = None,
    traffic: options.OneTraffic = None,
    line: options.Line = None,
    map: options.Map = None,
    geo: options.Geo = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Explain the decision on one request: every rule, why it matched or not, every counter."""
    output = Output(color)
    question = Question(
        request=request,
        tokens=tokens,
        at=at,
        used=used or [],
        traffic=traffic,
        line=line,
        map=map,
        geo=geo,
    )
    run = lambda: run_explain(paths, question, output, form)  # noqa: E731
    raise typer.Exit(ended(run, output, form))


def run_explain(paths: list[str], question: Question, output: Output, form: Format) -> int:
    """Decide on the request, print the story of the decision, and return the exit code."""
    if (question.request is None) == (question.traffic is None):
        raise SettingError("give either `--request`, or `--traffic` and `--line`")
    if (question.traffic is None) != (question.line is None):
        raise SettingError("`--traffic` and `--line` go together")
    policies = load(paths)
    if question.traffic is not None:
        decision = _recorded(policies, question)
    else:
        decision = _handwritten(policies, question)
    _print(output, decision, policies, form)
    return OK


def _handwritten(policies: PolicySet, question: Question) -> Decision:
    facts = _facts(question.request or "")
    now = time.time() if question.at is None else question.at
    # As at a door: an answer without a cap reserves the longest that its model gives.
    estimate = None if question.tokens is None else {"input_tokens": _tokens(question.tokens)}
    used: dict[str, str] = {}
    for name, amount in map(_used, question.used):
        if name in used:
            raise SettingError(f"`--used {name}` is there twice: give one amount")
        used[name] = amount
    decision = _fresh_guard(policies, question, MemoryStore()).decide(facts, estimate, now=now)
    if not used:
        return decision
    store = MemoryStore()
    precharge(store, policies, decision, used)
    return _fresh_guard(policies, question, store).decide(facts, estimate, now=now)


def _fresh_guard(policies: PolicySet, question: Question, store: MemoryStore) -> Guard:
    return Guard.from_policies(policies, store=store, geo=question.geo, environ=environment())


def _recorded(policies: PolicySet, question: Question) -> Decision:
    if question.used or question.tokens is not None or question.at is not None:
        raise SettingError(
            "a recorded request has its own tokens, time and counters: leave out `--tokens`, "
            "`--at` and `--used`"
        )
    with ExitStack() as closing:
        files = TrafficFiles([question.traffic or ""], closing)
        mapping = load_map(question.map, policies) if question.map is not None else None
        guard = closing.enter_context(_fresh_guard(policies, question, MemoryStore()))
        for line, _, _, decision in Replay(guard).run(files.requests(mapping)):
            if line == question.line:
                return decision
    reasons = [reason for _, line, reason in files.bad.first if line == question.line]
    why = reasons[0] if reasons else "; ".join(files.faults) or "no request stands there"
    raise SettingError(f"line {question.line} of `{question.traffic}` cannot be explained: {why}")


def _facts(written: str) -> Mapping[str, object]:
    try:
        return stated_facts(written.encode(errors="surrogateescape"))
    except ValueError as error:
        help = """; write `--request '{"account.id": "a1", "request.model": "large"}'`"""
        raise SettingError(f"`--request`: {error}{help}") from None


def _tokens(written: str) -> int:
    try:
        return read_amount(written, money=False, used=True)
    except NotationError as error:
        raise SettingError(f"`--tokens {written}` {error.message}: {error.help}") from None


def _used(written: str) -> tuple[str, str]:
    name, equals, amount = written.partition("=")
    if not equals or not name:
        raise SettingError(f"`--used {written}` is not `RULE=AMOUNT`")
    return name, amount


def _unknown_facts(decision: Decision, policies: PolicySet) -> Iterator[str]:
    """Yield a note on each fact of the request that no policy knows."""
    for name in sorted(set(decision.facts).difference(policies.facts)):
        near = nearest(name, policies.facts)
        advice = f"did you mean `{near}`?" if near else "declare it under `facts:`, or leave it out"
        yield f"fact `{shortened(name)}` is in no policy: {advice}"


def _print(output: Output, decision: Decision, policies: PolicySet, form: Format) -> None:
    told = decision.explain()
    told = replace(told, errors=(*told.errors, *_unknown_facts(decision, policies)))
    if form is Format.JSON:
        fields = told.as_dict()
        about = {rule.id: rule.about.as_dict() for rule in policies.rules}
        for story in fields["rules"]:
            story.update(about[story["rule"]])
        output.json(fields)
        return
    for line in wrapped(heading(told), output.width):
        output.line((line, EFFECT_STYLES[str(told.effect)]))
    if form is Format.CONCISE:
        return
    output.line()
    output.lines(rule_lines(told, policies, cells=output.width - 2))
    if told.rules:
        output.line()
    for label, line in after_lines(told):
        output.paragraph(line, label)
    output.paragraph(f"at {moment(told.time)}, policy {revision(policies)}")
