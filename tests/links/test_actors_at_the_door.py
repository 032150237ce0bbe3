"""The shipped policies at the real middleware: whom an account acts as is read off its requests.

Keys, a directory in a file, addresses and bodies make the facts: nothing is handed over.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardrail.asgi import GuardrailMiddleware
from guardrail.http.identity.directory_file import written
from guardrail.testing import MovableClock

POLICIES = Path(__file__).parent.parent.parent / "policies"
HASH_KEY = b"k" * 32
MONDAY = 1_780_272_000.0
CHAT = "/v1/chat/completions"


def directory(folder: Path) -> Path:
    """Write who owns which key: forty accounts on one card, ten of their own, one trusted."""
    rows = ["guardrail_directory: 1", "accounts:"]
    for number in range(51):
        farm = number < 40
        card = "card-of-many" if farm else f"card-{number}"
        rows += [
            f"  - credential: {written(f'sk-{number}', HASH_KEY)}",
            f"    account.id: acct-{number}",
            f"    account.created: {'2026-05-25' if number < 50 else '2026-01-01'}",
            f"    payment.fingerprint: {card}",
            f"    account.tier: {'email' if number < 50 else 'verified'}",
        ]
        if number == 50:
            rows += ["    account.verified_at: 2026-01-02", "    kyc.subject: person-50"]
    path = folder / "accounts.yaml"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


async def host(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with a short completion."""
    body = b'{"choices": [], "usage": {"prompt_tokens": 60, "completion_tokens": 9}}'
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def an_hour(app: Any, clock: MovableClock) -> dict[int, list[int]]:
    """Send an hour of requests by forty-one accounts and one trusted; return their statuses."""
    statuses: dict[int, list[int]] = {}
    transport = httpx.ASGITransport(app=app, client=("81.2.69.160", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        for turn in range(12):
            for number in [*range(42), 50]:
                clock.advance(6.9)
                answer = await client.post(
                    CHAT,
                    headers={"authorization": f"Bearer sk-{number}"},
                    json={
                        "model": "small",
                        "max_tokens": 20,
                        "messages": [{"role": "user", "content": f"question {turn} of {number}"}],
                    },
                )
                statuses.setdefault(number, []).append(answer.status_code)
                if answer.status_code != 200:
                    # What strangers share is not told to each of them.
                    assert answer.json()["error"]["code"] == "abnormal_usage_detected"
    return statuses


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_forty_accounts_on_one_card_share_one_allowance_at_the_door(
    tmp_path: Path, kind: str
) -> None:
    clock = MovableClock(MONDAY)
    (tmp_path / "counters").mkdir()
    store = "memory://" if kind == "memory" else f"lmdb://{tmp_path / 'counters'}"
    app = GuardrailMiddleware(
        host,
        policies=POLICIES,
        directory=directory(tmp_path),
        hash_key=HASH_KEY,
        store=store,
        clock=clock,
        environ={},
    )
    statuses = asyncio.run(an_hour(app, clock))
    farm = [status for number in range(40) for status in statuses[number]]
    # Three of each count before a fourth is there; from then on they share four hundred.
    assert 400 <= farm.count(200) <= 406, (farm.count(200), farm.count(429))
    assert farm.count(200) + farm.count(429) == len(farm)
    assert statuses[40] == statuses[41] == [200] * 12
    assert statuses[50] == [200] * 12
