"""Whatever becomes of a policy file, it loads or is refused with findings: nothing else happens."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import PolicyError
from guardrail.loading import ListNode, MapNode, Node, Scalar, load_text, read_yaml
from guardrail.model.policy import PolicySet

PATH = Path(__file__).parent / "whole_set/policy.yaml"

# A map is a list of pairs, so that keys may repeat; a scalar is its text as YAML.
Tree = str | list["Tree"] | list[tuple[str, "Tree"]]

ODD_SCALARS = (
    *".nan .inf -.inf -1 0 -0.0 1e400 1e-400 1.5 true false null ~ yes 010 0x10 22:30".split(),
    *"2026-02-30 2026-01-01T25:00:00Z 9999-12-31 0001-01-01 999999999999d 0d 101% 0% -5%".split(),
    *"60/0 60/minute 1/1000000minutes unlimited global always any $embargoed $ $nowhere".split(),
    *"UK EU account.tier geo.contry 1.0000000000000000000000000000000001 !!str <<".split(),
    *('""', '" "', '"a\\nb\\u0000\\u202e"', '"\\ud83d\\ude00é"', "100 per 15 minutes"),
    *("9" * 41, "9" * 4000, "9" * 5000, "1e99999999999999999999"),
    *(json.dumps("x" * 100_000), json.dumps("x" * 1_000_000), json.dumps("k." * 50_000)),
)
KEYS = (
    "by else fact file use any all not in not_in gt below cidr prefix exists same_as over steps "
    "tokens cost_usd x-note X-note mode unknown was from until links policy rules guardrail"
).split()


def tree_of(node: Node) -> Tree:
    """Return a node as what it can be changed as."""
    if isinstance(node, MapNode):
        return [(entry.key.text, tree_of(entry.value)) for entry in node.entries]
    if isinstance(node, ListNode):
        return [tree_of(part) for part in node.parts]
    return json.dumps(node.text) if node.quoted or ", " in node.text else node.text


def written(tree: Tree) -> str:
    """Return a tree as YAML in one line."""
    if isinstance(tree, str):
        return tree
    parts = [
        f"{json.dumps(part[0])}: {written(part[1])}" if isinstance(part, tuple) else written(part)
        for part in tree
    ]
    pairs = bool(tree) and isinstance(tree[0], tuple)
    return f"{{{', '.join(parts)}}}" if pairs else f"[{', '.join(parts)}]"


def places(tree: Tree) -> list[list]:
    """Return every list and map of a tree."""
    if isinstance(tree, str):
        return []
    found = [tree]
    for part in tree:
        found += places(part[1] if isinstance(part, tuple) else part)
    return [place for place in found if place]


def mutated(chance: random.Random, tree: Tree) -> None:
    """Change one place of a tree: drop, rename, repeat, replace, or put something else there."""
    every = places(tree)
    if not every:
        return
    place = chance.choice(every)
    index = chance.randrange(len(place))
    part = place[index]
    change = chance.choice(("drop", "rename", "repeat", "scalar", "scalar", "wrap", "graft"))
    new: Any = chance.choice(ODD_SCALARS)
    if change == "drop":
        del place[index]
    elif change == "repeat":
        place.insert(chance.randrange(len(place) + 1), part)
    elif change == "rename" and isinstance(part, tuple):
        name = chance.choice((*KEYS, part[0] + "x", part[0][1:], part[0].upper(), ""))
        place[index] = (name, part[1])
    else:
        old = part[1] if isinstance(part, tuple) else part
        if change == "wrap":
            new = chance.choice(([old], [[old]], [], [("by", old)], [(written(old)[:20], old)]))
        elif change == "graft":
            new = copy.deepcopy(chance.choice(every))
        place[index] = (part[0], new) if isinstance(part, tuple) else new


def loaded(text: str) -> PolicySet | PolicyError:
    """Return the set a text loads to, or the error that refuses it."""
    try:
        return load_text(text, str(PATH))
    except PolicyError as error:
        refused = error
    assert refused.diagnostics
    assert list(refused.diagnostics) == sorted(refused.diagnostics, key=lambda d: d.sort_key)
    return refused


def whole() -> Tree:
    node = read_yaml(PATH.read_text("utf-8"), "policy.yaml", [])
    assert isinstance(node, MapNode)
    return tree_of(node)


def test_the_tree_is_the_file():
    assert isinstance(loaded(written(whole())), PolicySet)


@settings(max_examples=400)
@given(chance=st.randoms(use_true_random=False), changes=st.integers(1, 4))
def test_a_changed_policy_loads_or_is_refused(chance, changes):
    tree = whole()
    for _ in range(changes):
        mutated(chance, tree)

    assert isinstance(loaded(written(tree)), PolicySet | PolicyError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(section=st.sampled_from("facts lists units models defaults rules tests".split()), part=JSON)
def test_a_section_of_anything_loads_or_is_refused(section, part):
    text = f'{{"guardrail": 1, "policy": "p", "{section}": {json.dumps(part)}}}'

    assert isinstance(loaded(text), PolicyError)


@settings(max_examples=200)
@given(verb=st.sampled_from("block degrade rate budget distinct when over".split()), part=JSON)
def test_a_verb_of_anything_loads_or_is_refused(verb, part):
    rule = json.dumps({"id": "r", "when": "always", verb: part})
    text = f'{{"guardrail": 1, "policy": "p", "rules": [{rule}]}}'

    assert isinstance(loaded(text), PolicySet | PolicyError)


def test_the_scalars_are_odd_enough():
    assert all(isinstance(read_yaml(text, "x", []), Scalar | None) for text in ODD_SCALARS)
