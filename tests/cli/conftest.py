"""What command-line tests share: a folder with a policy and traffic, and a way to run commands."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from guardrail.cli import main

POLICY = """\
guardrail: 1
policy: public-api
facts:
  account.tier: {type: level, values: [email, verified], default: email}
models:
  large: {weaker: small}
  small: {}
rules:
  - id: embargo
    when: {geo.country: {in: [CU, IR]}}
    block: {reason: geo_embargo}
    unknown: match
  - id: tokens-per-day
    when: {account.tier: {below: verified}}
    budget: {tokens: 100, per: day, key: account.id}
    steps:
      - {at: 80%, degrade: {model: small}}
      - {at: 100%, throttle: {reason: daily}}
  - id: burst
    when: always
    rate: {requests: 2/minute, key: account.id}
    mode: shadow
tests:
  - name: embargo holds
    facts: {account.id: a1, geo.country: IR}
    expect: {block: geo_embargo, by: embargo}
  - name: degrade, then throttle
    facts: {account.id: a1, geo.country: DE, request.model: large}
    steps:
      - {tokens: 50, output_tokens: 0, every: 1h, expect: allow}
      - {tokens: 40, output_tokens: 0, expect: {degrade: small, by: tokens-per-day}}
      - {tokens: 40, output_tokens: 0, expect: {throttle: daily}}
"""
POLICIES = {
    "policies": POLICY,
    "failing": POLICY.replace("IR}\n    expect", "FR}\n    expect"),
    "broken": POLICY.replace("geo.country: {in", "geo.contry: {in"),
    "later": POLICY.replace("tokens: 100", "tokens: 60").replace("[CU, IR]", "[CU]"),
}
MONDAY = 1772409600


class Outcome(NamedTuple):
    """How a command ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: `policies/`, `failing/`, `broken/`, `later/`, `week.jsonl`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    """Write the policies and the traffic of the tests into a folder."""
    for name, text in POLICIES.items():
        (folder / name).mkdir()
        (folder / name / "public.yaml").write_text(text)
    write_traffic(folder / "week.jsonl", *week())


def masked(printed: str) -> str:
    """Return what was printed with what changes by itself (digests, dates, the version) as `…`."""
    out = re.sub("sha256:[0-9a-f]{8,}…?", "sha256:…", printed)
    out = out.replace(f'"version": "{metadata.version("guardrail-engine")}"', '"version": "…"')
    return re.sub(r"(guardrail-country) \S+", r"\1 …", out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line; digests and data dates in its output become `…`."""

    def run(*arguments: str, stdin: bytes | None = None) -> Outcome:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(arguments)
        written = capsys.readouterr()
        return Outcome(code, masked(written.out), written.err)

    return run


def request(at: float, account: str | None = "a1", **members: object) -> dict[str, object]:
    """Return a request `at` seconds after Monday midnight, from Germany unless it says else."""
    facts = {"geo.country": "DE", "request.model": "large", **members.pop("facts", {})}  # type: ignore[dict-item]
    if account is not None:
        facts["account.id"] = account
    return {"ts": MONDAY + at, "facts": facts, **members}


def write_traffic(path: Path, *rows: object) -> Path:
    """Write requests, or lines as they are, to a file."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def week() -> list[dict[str, object]]:
    """Return a small week of traffic in which every rule acts."""
    rows = []
    for day in range(7):
        rows += [
            request(day * 86400 + turn * 10, usage={"input_tokens": 40, "output_tokens": 5})
            for turn in range(3)
        ]
        rows.append(request(day * 86400 + 60, "a2", facts={"geo.country": "IR"}))
        rows.append(request(day * 86400 + 70, "a3", facts={"account.tier": "verified"}))
    rows.append(request(604_000, "a4", usage={"input_tokens": 4, "output_tokens": 5}))
    del rows[-1]["facts"]["geo.country"]  # type: ignore[attr-defined]
    return rows
