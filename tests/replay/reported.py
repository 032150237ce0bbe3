"""Figures of a report that tests choose, and the text of the pages made of them."""

from __future__ import annotations

import re
from html import unescape

from guardrail.replay.report.fills import BANDS

START = 1772366400
TIERS = [["email", 40, 10, 20, 10], ["paid", 20, 0, 0, 0]]
NONE = {"degrade": 0, "throttle": 0, "block": 0}


def rule(name, mode="enforce", **others):
    told = {"rule": name, "verb": "budget", "mode": mode, "matched": 50, "owner": ""}
    return {**told, "description": "", **NONE, **others}


def limit(name, bands, refused=0, **changes):
    return {
        "rule": name,
        "unit": "tokens",
        "requests": 90,
        "refused": refused,
        "keys": sum(bands),
        "every": 1,
        "bands": bands,
        "past": [(0.5, 40, 4), (0.8, 30, 3), (1.0, 20, 2), (1.25, 10, 1), (2.0, 0, 0)],
        "steps": [],
        "mode": "enforce",
        "verb": "budget",
        "key": ["account.id"],
        "limit": "5,000",
        "amount": 5000.0,
        "spread": [sum(bands)] * 51,
        "per": "per day",
        **changes,
    }


def told(**changes):
    effects = {
        name: {"requests": count, "accounts": 1}
        for name, count in (("allow", 60), ("degrade", 10), ("throttle", 20), ("block", 10))
    }
    return {
        "policy": "shop",
        "revision": "sha256:0123456789abcdef0123",
        "requests": 100,
        "accounts": 40,
        "effects": effects,
        "accounts_refused": 8,
        "bin": 3600,
        "series": [[START, 40, 5, 5, 0], [START + 3600, 20, 5, 15, 10]],
        "rules": [rule("day", throttle=20), rule("embargo", block=10), rule("quiet")],
        "by_no_rule": 0,
        "segments": [{"fact": "account.tier", "rows": TIERS}],
        "bands": list(BANDS),
        "limits": [],
        "worst": [],
        "shadow": {"requests": {}, "accounts": 0},
        "unknown": [],
        "idle": {},
        **changes,
    }  # fmt: skip


def parts_of(page):
    """Return the text of each section of a page, by its id, a space between cells."""
    found = re.findall(
        r'<section aria-labelledby="(\w+)"><h2[^>]*>.*?</h2>(.*?)</section>', page, re.DOTALL
    )
    return {name: plain(html) for name, html in found}


def plain(html):
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())
