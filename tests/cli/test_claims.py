"""Claims of a set that has no tests: proved all the same, and enough to be checked by."""

from __future__ import annotations

import pytest

POLICY = """\
guardrail: 1
policy: claimed
rules:
  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, block: {reason: geo_embargo}}
prove:
  - {id: held, when: {geo.country: CU}, never: EFFECT}
"""


@pytest.mark.parametrize("command", ["test", "check"])
def test_claims_are_proved_where_there_are_no_tests(run, folder, command):
    (folder / "claimed.yaml").write_text(POLICY.replace("EFFECT", "allow"))
    outcome = run(command, "claimed.yaml")

    assert outcome.code == 0, outcome.out
    assert "1 claim proved of all requests" in outcome.out


@pytest.mark.parametrize("command", ["test", "check"])
def test_a_claim_that_does_not_hold_fails_where_there_are_no_tests(run, folder, command):
    (folder / "claimed.yaml").write_text(POLICY.replace("EFFECT", "block"))
    outcome = run(command, "claimed.yaml")

    assert outcome.code == 1
    assert "GR501 claim `held` does not hold" in outcome.out
    assert "look at such a request with:" in outcome.out
