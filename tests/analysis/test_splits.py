"""Of every value a fact may have, one that stands for it is among those it is split into."""

from __future__ import annotations

import ipaddress
from random import Random

import pytest

from guardrail.analysis.splits import addresses, numbers, texts
from guardrail.model.facts import Fact, FactType, Source


def chosen(rng: Random, values: list[str]) -> tuple[str, ...]:
    """Return some of the values."""
    return tuple(rng.sample(values, rng.randint(0, len(values))))


NETWORKS = (
    "0.0.0.0/0 10.0.0.0/8 10.0.0.0/9 10.128.0.0/9 10.1.0.0/16 10.1.2.0/24 10.1.2.3/32 10.1.2.2/31 "
    "192.0.2.0/24 203.0.113.0/25 203.0.113.128/25 203.0.113.0/24 ::/0 2001:db8::/32 2001:db8:1::/48"
).split()


@pytest.mark.parametrize("seed", range(40))
def test_every_address_has_one_like_it(seed):
    rng = Random(seed)
    nets = [ipaddress.ip_network(text) for text in chosen(rng, NETWORKS)]
    named = chosen(rng, ["10.1.2.3", "192.0.2.1", "8.8.8.8"])

    def kind(text: str) -> tuple[object, ...]:
        address = ipaddress.ip_address(text)
        inside = tuple(address in net for net in nets if net.version == address.version)
        return address.version, inside, text if text in named else None

    split = {kind(text) for text in addresses(nets, named, rng.randint(1, 2))}
    for _ in range(300):
        net = ipaddress.ip_network(rng.choice(NETWORKS))
        size = min(net.num_addresses, 2**32)
        text = str(net[rng.choice((0, size - 1, rng.randrange(size)))])
        assert kind(text) in split, f"seed {seed}: {text}"


@pytest.mark.parametrize("seed", range(40))
def test_every_text_has_one_like_it(seed):
    rng = Random(seed)
    named = chosen(rng, ["o", "o1", "other", "x-other", "", "o-some"])
    prefixes = chosen(rng, ["o", "ot", "other", "x-", "some", "new", "x"])

    def kind(text: str) -> tuple[object, ...]:
        return tuple(text.startswith(p) for p in prefixes), text if text in named else None

    split = {kind(text) for text in texts(named, prefixes, 2)}
    for _ in range(300):
        stem = rng.choice([*prefixes, *named, ""])
        text = stem + "".join(rng.choice("oxtherswnm-1") for _ in range(rng.randrange(4)))
        assert kind(text) in split, f"seed {seed}: {text}"


@pytest.mark.parametrize("kind", [FactType.INTEGER, FactType.NUMBER])
@pytest.mark.parametrize("seed", range(20))
def test_every_number_has_one_like_it(seed, kind):
    rng = Random(seed)
    bounds = [rng.choice((-3, 0, 0.5, 1, 1.5, 2, 7, 8)) for _ in range(rng.randint(0, 4))]
    fact = Fact(name="x", type=kind, source=Source.SERVER)

    def place(number: float) -> tuple[object, ...]:
        return tuple((number > bound) - (number < bound) for bound in bounds)

    split = {place(number) for number in numbers(fact, bounds)}
    for _ in range(200):
        number: float = rng.randint(-10, 12)
        if kind is FactType.NUMBER:
            number = rng.choice((number, number + 0.5, rng.uniform(-10, 12)))
        assert place(number) in split, f"seed {seed}: {number}"
