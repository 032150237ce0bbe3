"""The examples run, and the sample traffic is what its script says it is."""

from __future__ import annotations

import csv
import gzip
import ipaddress
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAFFIC = ROOT / "examples" / "traffic"
SAMPLE = TRAFFIC / "sample-week.jsonl.gz"
ACCOUNTS = TRAFFIC / "sample-week.accounts.csv"
DRAW = ("-m", "scripts.sample_week", "--out")
MONDAY = 1773619200
DAY = 86400


def run(*command: str | Path) -> str:
    arguments = [sys.executable, *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


@pytest.fixture(scope="module")
def sample() -> list[dict[str, Any]]:
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def made_as() -> dict[str, str]:
    with ACCOUNTS.open(encoding="ascii") as table:
        return {row["account.id"]: row["made_as"] for row in csv.DictReader(table)}


def asked(row: dict[str, Any]) -> int:
    """Return how many requests a line stands for."""
    return int(row["estimate"].get("requests", 1))


def days_of(rows: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Return how many requests each account makes on each of its days."""
    days: Counter[tuple[str, int]] = Counter()
    for row in rows:
        days[row["facts"]["account.id"], (row["ts"] - MONDAY) // DAY] += asked(row)
    return days


def test_the_script_draws_the_shipped_sample_again(tmp_path: Path) -> None:
    run(*DRAW, tmp_path)

    # Compressors differ between builds of zlib; what they compress must not.
    assert gzip.decompress((tmp_path / SAMPLE.name).read_bytes()) == gzip.decompress(
        SAMPLE.read_bytes()
    )
    assert (tmp_path / ACCOUNTS.name).read_bytes() == ACCOUNTS.read_bytes()


def test_another_seed_makes_another_week(tmp_path: Path) -> None:
    run(*DRAW, tmp_path, "--seed", "7")

    assert gzip.decompress((tmp_path / SAMPLE.name).read_bytes()) != gzip.decompress(
        SAMPLE.read_bytes()
    )


def test_the_sample_is_small_and_carries_no_time_of_its_making() -> None:
    packed = SAMPLE.read_bytes()

    assert len(packed) < 600_000
    assert packed[4:8] == bytes(4)


def test_the_sample_is_one_week_in_the_order_of_time(sample: list[dict[str, Any]]) -> None:
    times = [row["ts"] for row in sample]

    assert times == sorted(times)
    assert times[0] >= MONDAY
    assert times[-1] < MONDAY + 7 * DAY


def test_no_policy_can_read_what_an_account_was_made_as(
    sample: list[dict[str, Any]], made_as: dict[str, str]
) -> None:
    assert {row["facts"]["account.id"] for row in sample} == made_as.keys()
    assert all(row.keys() == {"ts", "facts", "estimate", "usage", "duration"} for row in sample)
    assert not any({"made_as", "shock", "operator"} & row["facts"].keys() for row in sample)


def test_a_server_knows_nothing_before_it_happens(sample: list[dict[str, Any]]) -> None:
    for row in sample:
        for name in ("account.created", "account.verified_at", "account.paid_since"):
            assert row["facts"].get(name, 0) <= row["ts"]


def test_addresses_are_nobody_s(sample: list[dict[str, Any]]) -> None:
    nobody = ipaddress.ip_network("2001:db8::/32")
    networks = {ipaddress.ip_network(row["facts"]["client.network"]) for row in sample}

    assert all(network.subnet_of(nobody) for network in networks)  # type: ignore[arg-type]
    assert len(networks) > 100


def test_a_line_stands_for_ten_requests_at_most(sample: list[dict[str, Any]]) -> None:
    assert {asked(row) for row in sample} == set(range(1, 11))


def test_an_account_of_the_campaign_keeps_to_its_26_a_day(
    sample: list[dict[str, Any]], made_as: dict[str, str]
) -> None:
    farmed = [row for row in sample if made_as[row["facts"]["account.id"]].endswith("operator")]
    accounts = {row["facts"]["account.id"] for row in farmed}

    assert len(accounts) == 150
    assert sum(map(asked, farmed)) / len(accounts) / 7 == pytest.approx(25.6, rel=0.02)


def test_honest_accounts_pass_the_campaign_in_volume(
    sample: list[dict[str, Any]], made_as: dict[str, str]
) -> None:
    honest = [row for row in sample if not made_as[row["facts"]["account.id"]].endswith("operator")]
    busy = {account for (account, _), count in days_of(honest).items() if count > 26}

    assert len(busy) >= 30


def test_the_embedding_example_is_served_until_it_is_too_fast() -> None:
    said = run(ROOT / "examples" / "embed.py").splitlines()

    assert [line.split()[0] for line in said[:20]] == ["allow"] * 20
    assert said[20].split()[:2] == ["throttle", "requests-per-minute"]
    assert re.fullmatch(r"refused: .+ \(retry after [123](\.\d+)? seconds\)", said[21])
