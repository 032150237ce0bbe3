"""The examples run, and the sample traffic is what its generator says it is."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAFFIC = ROOT / "examples" / "traffic"
SAMPLE = TRAFFIC / "sample-week.jsonl.gz"
MONDAY = 1772409600
DAY = 86400


def run(*command: str | Path) -> str:
    arguments = [sys.executable, *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


@pytest.fixture(scope="module")
def sample() -> list[dict[str, Any]]:
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def days_of(rows: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Return how many requests each account makes on each of its days."""
    return Counter(
        (row["facts"]["account.id"], (row["ts"] - MONDAY) // DAY)
        for row in rows
        if "account.id" in row["facts"]
    )


def labelled(rows: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["label"] == label]


def test_the_generator_makes_the_shipped_sample_again(tmp_path: Path) -> None:
    run(TRAFFIC / "generate.py", tmp_path / "again.gz")

    # Compressors differ between builds of zlib; what they compress must not.
    assert gzip.decompress((tmp_path / "again.gz").read_bytes()) == gzip.decompress(
        SAMPLE.read_bytes()
    )


def test_two_runs_of_the_generator_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.gz", "two.gz"):
        run(TRAFFIC / "generate.py", tmp_path / name)

    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_another_seed_makes_another_week(tmp_path: Path) -> None:
    run(TRAFFIC / "generate.py", tmp_path / "other.gz", "--seed", "7")

    assert gzip.decompress((tmp_path / "other.gz").read_bytes()) != gzip.decompress(
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


def test_no_policy_can_read_what_a_line_was_made_as(sample: list[dict[str, Any]]) -> None:
    assert {row["label"] for row in sample} == {"ordinary", "campaign"}
    assert not any({"label", "segment"} & row["facts"].keys() for row in sample)


def test_an_account_of_the_campaign_keeps_to_its_26_a_day(sample: list[dict[str, Any]]) -> None:
    days = days_of(labelled(sample, "campaign"))

    assert len({account for account, _ in days}) == 200
    assert set(days.values()) <= {25, 26}


def test_honest_accounts_pass_the_campaign_in_volume(sample: list[dict[str, Any]]) -> None:
    busy = {
        account
        for (account, _), count in days_of(labelled(sample, "ordinary")).items()
        if count > 26
    }

    assert len(busy) >= 30


def test_the_busiest_tenth_makes_its_published_share(sample: list[dict[str, Any]]) -> None:
    ordinary = labelled(sample, "ordinary")
    volumes = sorted(
        Counter(row["facts"].get("account.id") for row in ordinary).values(), reverse=True
    )

    assert 0.39 <= sum(volumes[: len(volumes) // 10]) / len(ordinary) <= 0.79


@pytest.mark.parametrize(("capability", "median"), [("chat", 1020), ("code", 1469)])
def test_prompts_are_as_long_as_the_published_ones(
    sample: list[dict[str, Any]], capability: str, median: int
) -> None:
    prompts = sorted(
        row["usage"]["input_tokens"]
        for row in sample
        if row["facts"]["request.capability"] == capability
    )

    assert prompts[len(prompts) // 2] == pytest.approx(median, rel=0.1)


def test_the_embedding_example_is_served_until_it_has_to_verify() -> None:
    said = run(ROOT / "examples" / "embed.py").splitlines()

    assert [line.split()[0] for line in said[:20]] == ["allow"] * 20
    assert said[20].split()[:3] == ["throttle", "sensitive-per-day", "daily_trial"]
    assert "Verify your identity" in said[21]
