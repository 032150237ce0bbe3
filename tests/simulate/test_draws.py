"""Draws have the distributions that their names state."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from guardrail.simulate.draws import (
    Zipf,
    log_normal,
    pareto,
    poisson,
    stream,
    whole_counts,
)


def test_a_stream_repeats_itself_and_no_other():
    first = [stream(1, "day", 2).random() for _ in range(3)]

    assert len(set(first)) == 1
    assert stream(1, "day", 3).random() != first[0]
    assert stream(2, "day", 2).random() != first[0]


@pytest.mark.parametrize("mean", [0.3, 7.0, 39.0, 41.0, 900.0])
def test_poisson_numbers_have_the_mean_and_the_variance_they_should(mean):
    random = Random(1)
    drawn = [poisson(random, mean) for _ in range(4000)]

    assert statistics.mean(drawn) == pytest.approx(mean, rel=0.05)
    assert statistics.variance(drawn) == pytest.approx(mean, rel=0.12)


def test_nothing_is_wanted_where_the_mean_is_nothing():
    assert poisson(Random(1), 0.0) == 0


def test_log_normal_numbers_have_their_median_and_no_tails():
    random = Random(3)
    drawn = [log_normal(random, 45, 1.2, 2.0) for _ in range(4000)]

    assert statistics.median(drawn) == pytest.approx(45, rel=0.08)
    assert max(drawn) <= 45 * 2.718281828 ** (1.2 * 2.0) * 1.0001


def test_pareto_numbers_stay_between_the_least_and_the_most():
    random = Random(4)
    drawn = [pareto(random, 1.1, 8, 8000) for _ in range(2000)]

    assert min(drawn) >= 8
    assert max(drawn) <= 8000
    assert statistics.median(drawn) == pytest.approx(8 * 2 ** (1 / 1.1), rel=0.1)


def test_the_first_rank_is_drawn_most():
    ranks, random = Zipf(4000, 1.6), Random(5)
    drawn = [ranks.draw(random) for _ in range(5000)]

    total = sum(1 / rank**1.6 for rank in range(1, 4001))
    assert drawn.count(0) / 5000 == pytest.approx(1 / total, abs=0.02)
    assert drawn.count(1) / 5000 == pytest.approx(2**-1.6 / total, abs=0.02)
    assert max(drawn) < 4000


@pytest.mark.parametrize("total", [1, 20, 3000])
def test_whole_counts_add_up_and_keep_the_shares(total):
    shares = [0.6, 0.3, 0.0999, 0.0001]
    counts = whole_counts(Random(6), total, shares)

    assert sum(counts) == total
    assert (
        all(abs(count - total * share) < 1 for count, share in zip(counts, shares, strict=True))
        or total == 1
    )
