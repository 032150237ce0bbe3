"""A flood of unknown credentials takes no more than its part, and harms nobody else."""

from __future__ import annotations

import pytest

from benchmarks.floods import GUESTS, Bystanders, bystanders, flooded, settled_in
from tests.stores.servers import Server

ROOM = 8_000_000 // 2 // 256


@pytest.mark.parametrize("directly", [False, True], ids=["guarded", "directly"])
def test_a_flood_of_a_small_server_harms_nobody(directly):
    with Server(maxmemory=8_000_000, maxmemory_policy="noeviction") as server:
        uri = f"{server.uri}?deadline=20s"
        settled_in(uri)
        levels = list(flooded(uri, 20_000, 2, stages=4, directly=directly))
        assert bystanders(uri).unharmed

    assert [level.sent for level in levels] == [5000, 10_000, 15_000, 20_000]
    assert [level.errors for level in levels] == [0] * 4
    # Those who are known, and the store's own record, are beside the bound.
    assert ROOM <= levels[-1].keys <= ROOM + 4
    assert ROOM - 4 <= levels[-1].admitted <= ROOM + GUESTS
    assert levels[-1].memory < levels[-2].memory * 1.05


def test_a_flood_of_a_file_harms_nobody_and_makes_it_no_larger(tmp_path):
    uri = f"lmdb://{tmp_path}?deadline=20s&max_unknown=500"
    settled_in(uri)
    levels = list(flooded(uri, 3000, 2, stages=3, directly=True))

    assert bystanders(uri).unharmed
    assert [level.errors for level in levels] == [0] * 3
    # Two of the partition are those who came before; the rest share a counter.
    assert levels[-1].admitted == 498 + GUESTS
    assert len({(level.keys, level.memory) for level in levels}) == 1


def test_a_flood_that_nothing_bounds_takes_a_key_each():
    with Server() as server:
        uri = f"{server.uri}?deadline=20s"
        levels = list(flooded(uri, 4000, 2, stages=2, directly=True))
        assert bystanders(uri) == Bystanders(False, 3, 20, 20)

    assert levels[-1].keys > 4000
