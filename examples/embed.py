"""Asks guardrail about one request, serves it, and reports what it used."""

from __future__ import annotations

from pathlib import Path

import guardrail

POLICIES = Path(__file__).resolve().parent.parent / "policies"


def main() -> None:
    """Serve an account's requests to use tools, one upon the other, until one is refused."""
    guard = guardrail.Guard.load(POLICIES, store="memory://")
    facts = {
        "account.id": "acct-1",
        "account.tier": "email",
        "geo.country": "DE",
        "request.capability": "agentic",
        "request.model": "large",
        "request.tools": 3,
    }
    while True:
        decision = guard.decide(facts, estimate={"input_tokens": 1200, "output_tokens": 800})
        print(decision.effect, decision.rule, decision.reason, dict(decision.obligations))
        if not decision.allowed:
            break
        answer = "…"  # call the model here, within decision.obligations
        guard.settle(decision, usage={"input_tokens": 1190, "output_tokens": len(answer)})
    print(f"refused: {decision.message} (retry after {decision.retry_after} seconds)")
    guard.close()


if __name__ == "__main__":
    main()
