"""Compiles what a rule asks for when it strikes: refusals, obligations, notices, steps."""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.loading.findings import Path, Place, Scope
from guardrail.loading.foreign_values import share
from guardrail.loading.nodes import Node, Scalar, all_or_none, kind_of, plain
from guardrail.loading.notation import PERCENT
from guardrail.loading.shapes import Degrading, Over, Refusal, RuleShape, StepShape
from guardrail.loading.text import listed, quoted
from guardrail.model.effects import Effect
from guardrail.model.rules import Obligations, Step, Verdict

CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""How ids and reasons are written."""


_HOST_KEY = re.compile(r"x-[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_STATUSES = frozenset(int(status) for status in http.HTTPStatus if 400 <= status <= 599)
_LONGEST_TEXT = 1_000


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Compiles the verdicts of one rule; what is wrong is reported, and None returned."""

    rule: str
    place: Place
    scope: Scope

    def refusal(self, effect: Effect, shape: Refusal, path: Path) -> Verdict | None:
        """Compile a `throttle` or a `block`."""
        fine = True
        if shape.reason is not None and CODE.fullmatch(shape.reason) is None:
            fine = False
            help = "letters, digits, `-`, `_` and `.`, such as `geo_embargo`; at most 64"
            message = f"{quoted(shape.reason)} cannot be a reason"
            self.place.report("GR102", (*path, "reason"), message, help=help)
        if shape.message is not None and not self._is_text(shape.message, (*path, "message")):
            fine = False
        if shape.status is not None and shape.status not in _STATUSES:
            fine = False
            written = self.place.at(*path, "status")
            shown = quoted(written.text) if isinstance(written, Scalar) else "this"
            message = f"{shown} is not an HTTP error status"
            help = "such as `403`, `429` or `451`"
            self.place.report("GR106", (*path, "status"), message, help=help)
        if not fine:
            return None
        return Verdict(
            effect=effect,
            reason=self.rule if shape.reason is None else shape.reason,
            message=shape.message,
            status=shape.status,
            remedy=shape.remedy,
        )

    def degrade(self, shape: Degrading, path: Path) -> Verdict | None:
        """Compile a `degrade`."""
        extra = self._extra({name: plain(node) for name, node in shape.entries.items()}, path)
        model = shape.model
        fine = extra is not None
        if model is not None:
            model = self._weaker_model(model, (*path, "model"))
            fine = fine and model is not None
        if shape.disable is not None and not shape.disable:
            fine = False
            self.place.report(
                "GR108", (*path, "disable"), "`disable` is empty", help="leave it out"
            )
        if not (
            shape.model or shape.max_output_tokens or shape.disable is not None or shape.entries
        ):
            fine = False
            help = "add `model`, `max_output_tokens`, `disable` or an `x-…` entry"
            self.place.report_key("GR102", path, "`degrade` does not say to what", help=help)
        if not fine or extra is None:
            return None
        obligations = Obligations(
            model=model,
            max_output_tokens=shape.max_output_tokens,
            disable=tuple(dict.fromkeys(shape.disable or ())),
            extra=extra,
        )
        return Verdict(effect=Effect.DEGRADE, reason=self.rule, obligations=obligations)

    def notify(self, entries: Mapping[str, str], path: Path) -> Verdict | None:
        """Compile a `notify`: the request is served, and the host passes the entries on."""
        extra = self._extra(entries, path)
        if not entries:
            self.place.report_key("GR108", path, "`notify` is empty", help="add an `x-…` entry")
            return None
        if extra is None:
            return None
        return Verdict(effect=Effect.ALLOW, reason=self.rule, obligations=Obligations(extra=extra))

    def over(self, shape: Over, path: Path) -> Verdict | None:
        """Compile an `over`."""
        chosen = [
            name for name in ("throttle", "block", "degrade") if getattr(shape, name) is not None
        ]
        if len(chosen) != 1:
            message = f"`over` says {listed(chosen)}" if chosen else "`over` is empty"
            help = "write exactly one of `throttle`, `block` and `degrade`"
            self.place.report_key("GR112", path, message, help=help)
            return None
        return self._verdict(shape, path)

    def _verdict(self, shape: Over | StepShape, path: Path) -> Verdict | None:
        """Compile the one effect that an `over` or a step has."""
        if isinstance(shape, StepShape) and shape.notify is not None:
            return self.notify(shape.notify, (*path, "notify"))
        if shape.degrade is not None:
            return self.degrade(shape.degrade, (*path, "degrade"))
        if shape.block is not None:
            return self.refusal(Effect.BLOCK, shape.block, (*path, "block"))
        return self.refusal(Effect.THROTTLE, shape.throttle or Refusal(), (*path, "throttle"))

    def steps(self, shape: RuleShape, default: Effect) -> tuple[Step, ...] | None:
        """Compile the steps of a budget; the one at 100 % comes last, and is the `over`."""
        steps: list[Step | None] = []
        highest = 0
        for index, written in enumerate(shape.steps or ()):
            step = self._step(written, index, highest)
            highest = step.percent if step is not None else highest
            steps.append(step)
        if shape.steps is not None and not shape.steps:
            self.place.report("GR108", ("steps",), "`steps` is empty", help="leave it out")
        last = next((step for step in reversed(steps) if step is not None), None)
        full = last is not None and last.percent == 100
        if full and shape.over is not None:
            message = "`over` and a step at 100% both say what happens at the limit"
            self.place.report_key("GR115", ("over",), message, help="keep one of them")
            return None
        if not full:
            verdict = self.at_limit(shape, default)
            if verdict is None:
                return None
            steps.append(Step(percent=100, verdict=verdict))
        return all_or_none(steps)

    def at_limit(self, shape: RuleShape, default: Effect) -> Verdict | None:
        """Compile the written `over`, or the default one."""
        if shape.over is not None:
            return self.over(shape.over, ("over",))
        return Verdict(effect=default, reason=self.rule)

    def _step(self, shape: StepShape, index: int, highest: int) -> Step | None:
        path: Path = ("steps", index)
        percent = self._percent(shape.at, highest)
        names = ("notify", "degrade", "throttle", "block")
        chosen = [name for name in names if getattr(shape, name) is not None]
        if len(chosen) != 1:
            message = f"this step says {listed(chosen)}" if chosen else "this step does nothing"
            help = f"write exactly one of {listed(names)}"
            self.place.report("GR115", path, message, help=help)
            return None
        if percent == 100 and shape.notify is not None:
            message = "a step at 100% cannot only notify"
            help = "write `throttle`, `block` or `degrade`, or notify at 99%"
            self.place.report_key("GR115", (*path, "notify"), message, help=help)
            return None
        verdict = self._verdict(shape, path)
        if verdict is None or percent is None:
            return None
        return Step(percent=percent, verdict=verdict)

    def _percent(self, node: Node, highest: int) -> int | None:
        written = plain(node)
        found = PERCENT.fullmatch(written) if isinstance(written, str) else None
        shown = quoted(node.text) if isinstance(node, Scalar) else kind_of(node)
        if found is None:
            near = share(node.text) if isinstance(node, Scalar) else None
            help = f"write `{near}`" if near else "write a whole percentage, such as `80%`"
            self.scope.report("GR115", node, f"{shown} is not a percentage", help=help)
            return None
        percent = int(found[1])
        if not 1 <= percent <= 100:
            help = "steps run from 1% to 100%; `escalate` is for those who keep coming"
            self.scope.report("GR115", node, f"a step at {shown} is never reached", help=help)
            return None
        if percent <= highest:
            message = f"a step at {shown} does not rise"
            label = f"the step before it is at {highest}%"
            self.scope.report("GR115", node, message, label=label, help="put steps in rising order")
            return None
        return percent

    def _weaker_model(self, name: str, path: Path) -> str | None:
        # The models may stand in a file that could not be read.
        found = None if self.scope.partial else self.scope.model(name, self.place.at(*path))
        if found is None:
            return None
        if all(model.weaker != found for model in self.scope.models.values()):
            message = f"no model leads to {quoted(name)}"
            label = "no model has it as `weaker`"
            help = f"add `weaker: {found}` to a model, or name a weaker one"
            self.place.report("GR116", path, message, label=label, help=help)
            return None
        return found

    def _extra(self, entries: Mapping[str, object], path: Path) -> Mapping[str, str] | None:
        fine = True
        for name, text in entries.items():
            if _HOST_KEY.fullmatch(name) is None:
                help = "`x-`, then small letters, digits and `-`, such as `x-budget-warning`"
                message = f"{quoted(name)} cannot be a key for the host"
                self.place.report_key("GR101", (*path, name), message, help=help)
                fine = False
            elif not isinstance(text, str):
                found = kind_of(self.place.at(*path, name))
                message = f"{quoted(name)} must be text, not {found}"
                self.place.report("GR102", (*path, name), message, help="quote it")
                fine = False
            elif not self._is_text(text, (*path, name)) or not self._is_ascii(text, (*path, name)):
                fine = False
        return {name: str(text) for name, text in entries.items()} if fine else None

    def _is_text(self, text: str, path: Path) -> bool:
        if text and text.isprintable() and len(text) <= _LONGEST_TEXT:
            return True
        message = f"{quoted(str(path[-1]))} must be one line of text"
        help = f"1 to {_LONGEST_TEXT:,} characters, without line breaks or control characters"
        self.place.report("GR102", path, message, help=help)
        return False

    def _is_ascii(self, text: str, path: Path) -> bool:
        if text.isascii():
            return True
        message = f"{quoted(str(path[-1]))} must be plain ASCII text"
        self.place.report("GR102", path, message, help="it is sent as a header")
        return False
