"""What a request costs, in units: from an estimate or a usage, with prices where money counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from guardrail.model.amounts import MICRO
from guardrail.model.cells import TOP
from guardrail.model.facts import value_shown
from guardrail.model.policy import PRICE_SCALE, PolicySet, Price

Amounts = dict[str, int]
"""Units to whole amounts; `cost_usd` in micro-USD."""

DEPENDS = {
    "tokens": ("input_tokens", "output_tokens"),
    "cost_usd": ("input_tokens", "output_tokens", "cached_input_tokens"),
}
"""The units that follow from others."""


def as_count(value: object) -> int | None:
    """Return a count that may be charged, None for anything else.

    A count is a whole number from 0 to 2⁵³ − 1; a float is one if it is whole. Booleans, NaN,
    infinities and negatives are not.
    """
    if value.__class__ is float and value.is_integer():
        value = int(value)
    return value if value.__class__ is int and 0 <= value <= TOP else None


def as_money(value: object) -> int | None:
    """Return USD as whole micro-USD, rounded up, None if it is not an amount of money."""
    if value.__class__ is bool or not isinstance(value, (int, float)):
        return None
    if not 0 <= value <= TOP / MICRO:
        return None
    return math.ceil(round(value * MICRO, 3))


def unusable(estimate: Mapping[str, object] | None) -> tuple[str, ...]:
    """Return a note for each amount of an estimate that is none; a request with one is refused.

    None stands for an amount that is not stated.
    """
    return tuple(
        _no_amount("estimate", unit, value)
        for unit, value in (estimate or {}).items()
        if value is not None and _amount_of(unit, value) is None
    )


def no_estimate(unit: str) -> str:
    """Return the note on a request that does not say how much of a unit it takes."""
    return f"the estimate has no `{unit}`: 1 is reserved"


def unlisted(policies: PolicySet, model: object) -> tuple[str, ...]:
    """Return a note if a request asks for a model that the policies do not list, else nothing."""
    if not policies.models or not isinstance(model, str) or policies.model_named(model):
        return ()
    if policies.unlisted_model is not None:
        return (f"model `{model}` is not in `models`: it counts as `{policies.unlisted_model}`",)
    return (f"model `{model}` is not in `models`: it costs the dearest, and no degrade moves it",)


class _Stated:
    """The amounts a host stated, read as they are needed, with notes on unusable ones."""

    def __init__(self, amounts: Mapping[str, object] | None, what: str) -> None:
        self._amounts = amounts or {}
        self._what = what
        self.notes: list[str] = []

    def get(self, unit: str) -> int | None:
        """Return a usable amount, None (and a note) for anything else."""
        value = self._amounts.get(unit)
        if value is None:
            return None
        count = _amount_of(unit, value)
        if count is None:
            self.notes.append(_no_amount(self._what, unit, value))
        return count

    def states(self, unit: str) -> bool:
        """Tell whether there is a value for a unit, be it an amount or not."""
        return self._amounts.get(unit) is not None


class Sizer:
    """Turns estimates into reservations and usages into final amounts, for the units in use."""

    def __init__(self, policies: PolicySet, units: Iterable[str]) -> None:
        self.units = tuple(sorted(set(units)))
        self._policies = policies
        prices = [model.price for model in policies.models.values() if model.price]
        self._dearest = _dearest(prices)
        caps = [model.max_output for model in policies.models.values()]
        self._largest_output = max((cap for cap in caps if cap is not None), default=None)

    def reserve(
        self, estimate: Mapping[str, object] | None, model: object
    ) -> tuple[Amounts, tuple[str, ...]]:
        """Return what to reserve for each unit in use, and notes on what had to be assumed.

        A unit the estimate lacks reserves 1; output tokens, the model's cap for each completion.
        """
        stated = _Stated(estimate, "estimate")
        reserved = {unit: self._reserved(unit, stated, model) for unit in self.units}
        return reserved, tuple(dict.fromkeys(stated.notes))

    def settle(
        self,
        usage: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        requested: object,
        served: object,
    ) -> tuple[Amounts, tuple[str, ...]]:
        """Return the final amount of each unit in use, and notes on unusable figures.

        What the usage lacks stays as reserved; money is priced at the model served.
        """
        stated = _Stated(usage, "usage")
        assumed = _Stated(estimate, "estimate")
        final: Amounts = {}
        for unit in self.units:
            amount = self._settled(unit, stated, assumed, requested, served)
            if amount is not None:
                final[unit] = amount
        return final, tuple(dict.fromkeys(stated.notes))

    def output(self, estimate: Mapping[str, object], model: object) -> int | None:
        """Return the output tokens a request is reserved, None where no cap is known."""
        stated = _Stated(estimate, "estimate")
        amount = stated.get("output_tokens")
        return self._most_output(stated, model) if amount is None else amount

    def _most_output(self, stated: _Stated, model: object) -> int | None:
        cap = self._output_cap(model)
        if cap is None:
            return None
        return min(cap * self._reserved("requests", stated, model), TOP)

    def _reserved(self, unit: str, stated: _Stated, model: object) -> int:
        if unit == "tokens":
            return self._tokens(stated, model)
        amount = stated.get(unit)
        if amount is not None:
            return amount
        if unit == "requests":
            return 1
        if unit == "cost_usd":
            return self._cost(self._token_parts(stated, model), model)
        if unit == "output_tokens" and (most := self._most_output(stated, model)) is not None:
            return most
        if not stated.states(unit):
            stated.notes.append(no_estimate(unit))
        return 1

    def _tokens(self, stated: _Stated, model: object) -> int:
        incoming, outgoing = stated.get("input_tokens"), stated.get("output_tokens")
        if incoming is None or outgoing is None:
            total = stated.get("tokens")
            if total is not None:
                return total
            incoming = self._reserved("input_tokens", stated, model)
            outgoing = self._reserved("output_tokens", stated, model)
        return min(incoming + outgoing, TOP)

    def _token_parts(self, stated: _Stated, model: object) -> Amounts:
        incoming = stated.get("input_tokens")
        total = stated.get("tokens") if incoming is None else None
        if total is not None:
            # Nothing says how the sum divides: count all of it as the dearer kind.
            price = self._price(model)
            dearer = "output" if price and price.output >= price.input else "input"
            return {f"{dearer}_tokens": total}
        return {
            "input_tokens": self._reserved("input_tokens", stated, model),
            "output_tokens": self._reserved("output_tokens", stated, model),
            "cached_input_tokens": stated.get("cached_input_tokens") or 0,
        }

    def _settled(
        self, unit: str, stated: _Stated, assumed: _Stated, requested: object, served: object
    ) -> int | None:
        if unit not in DEPENDS:
            return stated.get(unit)
        money = stated.get("cost_usd") if unit == "cost_usd" else None
        if money is not None:
            return money
        incoming, outgoing = stated.get("input_tokens"), stated.get("output_tokens")
        total = stated.get("tokens")
        if incoming is None and outgoing is None and total is None:
            return None
        if unit == "tokens" and total is not None and (incoming is None or outgoing is None):
            return total
        if total is not None and incoming is None and outgoing is None:
            return self._cost(self._token_parts(stated, served), served)
        if incoming is None:
            incoming = self._reserved("input_tokens", assumed, requested)
        if outgoing is None:
            outgoing = self._reserved("output_tokens", assumed, requested)
        if unit == "tokens":
            return min(incoming + outgoing, TOP)
        cached = stated.get("cached_input_tokens") or 0
        parts = {"input_tokens": incoming, "output_tokens": outgoing}
        return self._cost({**parts, "cached_input_tokens": cached}, served)

    def priced(self, incoming: int, outgoing: int, cached: int, model: object) -> int:
        """Return what some tokens cost at a model, in micro-USD, rounded up.

        `cached` ones are among the incoming.
        """
        price = self._price(model)
        if price is None:
            return 0
        cached = min(cached, incoming)
        exact = (incoming - cached) * price.input + cached * price.cached_input
        return min(-(-(exact + outgoing * price.output) // PRICE_SCALE), TOP)

    def _cost(self, tokens: Mapping[str, int], model: object) -> int:
        incoming, outgoing = tokens.get("input_tokens", 0), tokens.get("output_tokens", 0)
        return self.priced(incoming, outgoing, tokens.get("cached_input_tokens", 0), model)

    def _price(self, model: object) -> Price | None:
        known = self._policies.model_for(model)
        return known.price if known is not None and known.price is not None else self._dearest

    def _output_cap(self, model: object) -> int | None:
        known = self._policies.model_for(model)
        return self._largest_output if known is None else known.max_output


def _dearest(prices: list[Price]) -> Price | None:
    if not prices:
        return None
    return Price(
        input=max(price.input for price in prices),
        output=max(price.output for price in prices),
        cached_input=max(price.cached_input for price in prices),
    )


def _amount_of(unit: str, value: object) -> int | None:
    return as_money(value) if unit == "cost_usd" else as_count(value)


def _no_amount(what: str, unit: str, value: object) -> str:
    return f"{what} of `{unit}` is `{value_shown(value)}`, not an amount"
