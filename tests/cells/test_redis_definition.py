"""The stores on Redis and Valkey do what the definition says; mutants of their scripts do not."""

from __future__ import annotations

import pytest

from guardrail.stores.redis.protocol import Script, Scripts, load_scripts
from tests.cells.redis_stores import SERVERS, Shown
from tests.cells.steps import difference
from tests.stores.servers import binaries

SEEDS = range(6)
STEPS = 500


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", binaries())
@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_holds_what_the_definition_says_after_every_step(kind, is_async, seed):
    store = Shown(SERVERS.empty(kind), is_async=is_async)
    assert difference(store, seed, STEPS) is None
    store.close()


MUTANTS = {
    "one too many": ("used + amount > ceiling\n", "used + amount > ceiling + 1\n"),
    "a slot too few": ("local oldest = second - span", "local oldest = second - span + 1"),
    "clock back reopens": ("if n > 0 and r[n - 1] > second then second = r[n - 1] end", ""),
    "charged though refused": ("tried and not refused[c] and not", "tried and not"),
    "floor forgotten": ("if r[1] > used then used = r[1] end", "used = r[1]"),
    "dead members live": ("if r[j + 1] > now then\n      live", "if true then\n      live"),
    "renewal shortens": ("if expires > e then e = expires end", "e = expires"),
    "strike without refusal": ("tried = refused[after]", "tried = true"),
    "shadow binds": ("a[5 + 2 * c] == 1 and a[6 + 2 * c] == 0", "a[6 + 2 * c] == 0"),
    "never tried but refused": ("(after > 0 and not refused[after])", "false"),
    "refund into a later slot": ("if r[j] == slot then", "if j == n - 1 then"),
    "refund creates": (
        "  return false\nend\n\nlocal function drain",
        "  r[n + 1], r[n + 2] = slot, 0\n  return true\nend\n\nlocal function drain",
    ),
    "extra to an older slot": ("r[n - 1] >= slot then", "r[n - 1] == slot then"),
    "rate refund unbounded": ("math.min(-delta, charged - now - (total - refunded))", "-delta"),
    "the dead renewed": ("r[j] == member and r[j + 1] > now", "r[j] == member"),
    "nobody leaves": ("table.remove(r, j)\n      table.remove(r, j)", ""),
}


def mutated(scripts: Scripts, old: str, new: str) -> Scripts:
    def change(script: Script) -> Script:
        return Script.of(script.text.replace(old.encode(), new.encode()))

    return Scripts(*(change(s) for s in (scripts.acquire, scripts.settle, scripts.settle_full)))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_scripts_is_found_out(name):
    original = load_scripts()
    scripts = mutated(original, *MUTANTS[name])
    assert scripts != original

    def differs(seed: int) -> bool:
        store = Shown(SERVERS.empty("valkey 9"))
        store.state.scripts = scripts
        try:
            return difference(store, seed, 400) is not None
        finally:
            store.close()

    assert any(differs(seed) for seed in range(6))
