"""Prices that stand the wrong way round."""

from __future__ import annotations

from guardrail.loading.lint.written import Written
from guardrail.loading.nodes import MapNode, Node
from guardrail.loading.text import quoted
from guardrail.model.policy import Model


def lint_prices(written: Written) -> None:
    """Report cached input that costs more than other input, and weaker models that cost more."""
    models = written.policies.models
    for _, section in written.sections("models"):
        for name, model in models.items():
            node = section.get(name) if isinstance(section, MapNode) else None
            price = node.get("price") if isinstance(node, MapNode) else None
            if isinstance(price, MapNode) and name == model.name:
                _of_cache(written, model, price)
                _of_weaker(written, model, models.get(model.weaker or ""), price)


def _of_cache(written: Written, model: Model, node: MapNode) -> None:
    price, cached = model.price, node.get("cached_input")
    if price is not None and cached is not None and price.cached_input > price.input:
        message = f"input of {quoted(model.name)} costs more from the cache than without it"
        help = "a cache saves: swap the two, or correct the decimal point"
        written.scope.findings.report("GR238", cached, message, help=help)


def _of_weaker(written: Written, model: Model, weaker: Model | None, node: Node) -> None:
    if weaker is None or model.price is None or weaker.price is None:
        return
    ours, theirs = model.price, weaker.price
    if theirs.input > ours.input and theirs.output > ours.output:
        message = f"{quoted(weaker.name)}, the weaker of {quoted(model.name)}, costs more than it"
        help = "swap the prices, or the models: a degrade is to serve less"
        written.scope.findings.report("GR238", node, message, help=help)
