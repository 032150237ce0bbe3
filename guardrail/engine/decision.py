"""What a host gets back: the ruling, and on demand the evidence it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from guardrail.engine.conclude import Ruling, ShadowReport
from guardrail.engine.plan import Finding, Plan
from guardrail.engine.verbs import LimitStatus, Receipt, receipt_of
from guardrail.model.amounts import SECOND
from guardrail.model.cells import CounterReply, Outcome
from guardrail.model.effects import Effect, StoreMode

if TYPE_CHECKING:
    from guardrail.engine.core import Engine
    from guardrail.engine.explain import Explanation


class Case(NamedTuple):
    """The evidence of one decision: what was asked, when, and what was found and charged.

    `facts` are as the host stated them, signals included; `now` is in microseconds; `serial`
    numbers the decision. `debits` are the receipts of what was charged, None for counters that
    were not reached. `looked` has every counter that was looked at, and whether it was charged;
    it is None where those are the debits. `found` is what rules asked for. `plan` is kept where
    the request was planned by the interpreter; what it says of facts is else read anew.
    """

    engine: Engine
    facts: Mapping[str, object]
    estimate: Mapping[str, object] | None
    now: int
    debits: tuple[Receipt | None, ...]
    serial: int
    looked: tuple[tuple[Receipt, bool], ...] | None = None
    found: tuple[Finding, ...] = ()
    plan: Plan | None = None

    @property
    def simple(self) -> bool:
        """Whether nothing was found: every counter looked at was charged, none had a say."""
        return self.looked is None and not self.found and self.plan is None

    @property
    def charged(self) -> Iterator[Receipt]:
        """The receipts of what was charged."""
        return (Receipt._make(debit) for debit in self.debits if debit is not None)

    @property
    def consulted(self) -> list[tuple[Receipt, bool]]:
        """Every counter looked at, and whether it was charged, in the order of the rules."""
        if self.looked is None:
            return sorted((debit, True) for debit in self.charged)
        return sorted(self.looked)


def looked_at(
    plan: Plan, outcome: Outcome | None
) -> tuple[list[Finding], list[tuple[Receipt, bool]]]:
    """Return what the cells of a plan ask for, and the receipts of its limits.

    Each receipt says whether it was charged; there are none where no store was asked.
    """
    found: list[Finding | None] = []
    looked: list[tuple[Receipt, bool]] = []
    if outcome is None:
        return [], looked
    applied, now = plan.applied(outcome), plan.now
    for part, cell, reply in zip(plan.parts, plan.cells, outcome.replies, strict=True):
        limit, charged = part.limit, applied[cell.charge]
        if part.role == "limit":
            receipt = receipt_of(limit.first + part.number, part, cell, reply)
            looked.append((receipt, charged))
            found.append(limit.judge(receipt, reply.frees, now))
        elif part.role == "sentence" and charged:
            found.append(limit.sentenced())
        elif part.role == "ban" and isinstance(reply, CounterReply) and reply.used > now:
            found.append(limit.banned(reply.used - now))
    return [finding for finding in found if finding is not None], looked


class Decision:
    """The answer to one request.

    Comparing, printing and reading it costs little; `limits`, `errors` and `explain()` are
    computed when asked for. The facts and the estimate it was made from must not be changed
    before it is settled.
    """

    __slots__ = ("_case", "_ruling", "_settled")
    # Generated source sets `_ruling` and `_case`, a plain tuple, without a call: `_settled` is
    # set only once it is, and the case gets its names when it is read.
    _ruling: Ruling
    _case: tuple[object, ...]
    _settled: bool

    @classmethod
    def of(cls, ruling: Ruling, case: Case) -> Decision:
        """Return the decision that a ruling on a case makes."""
        decision = cls()
        decision._ruling = ruling
        decision._case = case
        return decision

    @property
    def case(self) -> Case:
        """The evidence it rests on."""
        return Case._make(self._case)

    @property
    def ruling(self) -> Ruling:
        """The combined answer, apart from its evidence."""
        return self._ruling

    @property
    def effect(self) -> Effect:
        """What to do: allow, degrade, throttle or block."""
        return self._ruling.effect

    @property
    def allowed(self) -> bool:
        """Whether to serve the request, perhaps with obligations."""
        return self._ruling.effect < Effect.THROTTLE

    @property
    def rule(self) -> str | None:
        """The id of the rule that decided, None where none did."""
        return self._ruling.rule

    @property
    def reason(self) -> str | None:
        """A stable code for the refusal or the degrade, None for allow."""
        return self._ruling.reason

    @property
    def message(self) -> str | None:
        """A sentence for people, None for allow."""
        ruling = self._ruling
        if ruling.message is not None or ruling.effect is Effect.ALLOW:
            return ruling.message
        return _standard_message(ruling)

    @property
    def status(self) -> int | None:
        """The HTTP status the rule asks for, None where the effect's own will do."""
        return self._ruling.status

    @property
    def remedy(self) -> str | None:
        """What the client can do: verify, pay or contact; None where nothing is stated."""
        return self._ruling.remedy

    @property
    def retry_after(self) -> float | None:
        """Seconds until an idle client is served, None: waiting will not help (or is no need)."""
        return self._ruling.retry_after

    @property
    def obligations(self) -> Mapping[str, object]:
        """What the host must also do: model, max_output_tokens, disable, and `x-…` entries."""
        return self._ruling.obligations

    @property
    def shadow(self) -> tuple[ShadowReport, ...]:
        """What shadow rules would have done."""
        return self._ruling.shadow

    @property
    def mode(self) -> StoreMode:
        """How the counters were kept: normal unless the store failed."""
        return self._ruling.mode

    @property
    def limits(self) -> tuple[LimitStatus, ...]:
        """How each counter that was consulted stands now, in the order of the rules."""
        return self.case.engine.statuses(self)

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong while deciding, and which rules hinged on a missing fact."""
        return self.case.engine.errors(self)

    @property
    def hinges(self) -> tuple[tuple[str, str], ...]:
        """The rules whose condition was unknown, each with the first fact it missed."""
        return self.case.engine.hinges(self)

    @property
    def id(self) -> str:
        """The decision's id: unique to the process and its start."""
        case = self.case
        return case.engine.ids.name(case.serial)

    @property
    def revision(self) -> str:
        """The digest of the policy files that decided."""
        return self.case.engine.policies.revision

    @property
    def time(self) -> float:
        """The time of the decision, in seconds since the epoch."""
        return self.case.now / SECOND

    @property
    def facts(self) -> Mapping[str, object]:
        """The facts that the decision was made from, as stated."""
        return self.case.facts

    @property
    def settled(self) -> bool:
        """Whether it was settled or released."""
        return getattr(self, "_settled", False)

    def mark_settled(self, notes: tuple[str, ...] = ()) -> None:
        """Note that it was settled or released, and what was wrong with the usage."""
        self._settled = True
        self.note(*notes)

    def note(self, *notes: str) -> None:
        """Add to `errors` what went wrong since it was made."""
        if notes:
            self._ruling = self._ruling._replace(notes=self._ruling.notes + notes)

    def explain(self) -> Explanation:
        """Return the whole story: every rule, whether it matched and why, every counter."""
        return self.case.engine.explain(self)

    def __repr__(self) -> str:
        parts = [f"{self.effect}"]
        if self.rule is not None:
            parts.append(f"by {self.rule}")
        if self.retry_after is not None:
            parts.append(f"retry after {self.retry_after:g} s")
        return f"<Decision {' '.join(parts)}>"


def _standard_message(ruling: Ruling) -> str:
    by = f"rule `{ruling.rule}`" if ruling.rule else "guardrail"
    if ruling.effect is Effect.DEGRADE:
        return f"served with less, as {by} asks"
    again = "" if ruling.retry_after is None else f"; retry in {ruling.retry_after:.3g} s"
    return f"refused by {by}: {ruling.reason}{again}"
