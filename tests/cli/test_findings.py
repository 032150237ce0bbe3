"""What `check` and `test` find fault with, though nothing fails: each kind ends in exit code 1."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import Severity
from guardrail.loading import CATALOGUE
from tests.cli.conftest import MONDAY, POLICY, request, write_traffic

START = """\
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
models:
  large: {weaker: small, max_output: 8192}
  small: {max_output: 8192}
"""
RULES = """\
rules:
  - {id: banned, when: {enforcement.status: banned}, unknown: skip, block: {reason: closed}}
  - id: day
    when: always
    budget: {tokens: 50k, per: day, key: account.id}
    steps:
      - {at: 80%, degrade: {model: small}}
"""
TESTS = """\
tests:
  - {name: closed, facts: {account.id: a, enforcement.status: banned}, expect: {block: closed}}
"""
FACTS = '{"account.id": "a", "request.model": "large"}'


@pytest.fixture
def policy(folder):
    """Writes a policy set to `p.yaml`."""

    def write(rules: str = RULES, tests: str = TESTS, start: str = START) -> None:
        (folder / "p.yaml").write_text(start + rules + tests)

    write()
    return write


def codes(out: str) -> set[str]:
    """Return the codes of the findings in an output."""
    told = out.partition("\n\n")[2]
    if "--format" not in told:
        told = re.sub(r"^notes, which are no faults.*?\n\n", "", told, flags=re.S | re.M)
    return set(re.findall(r"GR\d+", told))


def test_a_policy_without_faults_is_fine(run, policy):
    for command in ("check", "test"):
        outcome = run(command, "p.yaml")

        assert (outcome.code, codes(outcome.out)) == (0, set())


KEY = "rules:\n  - {id: r, when: always, rate: {requests: 9/minute, key: %s}}\n"


@pytest.mark.parametrize(
    ("key", "often"),
    [
        ("[account.id, client.agent]", "with every value it makes up"),
        ("[request.capability, account.id]", "up to 8 times"),
        ("[account.id, request.stream, request.capability]", "up to 16 times"),
        ("[account.id, request.model]", "with every value it makes up"),
    ],
)
def test_what_a_client_chooses_in_a_key_is_a_finding(run, policy, key, often):
    policy(KEY % key, "tests: [{name: t, facts: {account.id: a}, expect: allow}]\n")
    outcome = run("check", "p.yaml")

    assert outcome.code == 1
    assert codes(outcome.out) == {"GR203"}
    assert often in outcome.out


@pytest.mark.parametrize(
    ("comment", "code"),
    [
        ("# guardrail: ignore GR203 as agents are few here", 0),
        ("# guardrail: ignore GR203, GR307", 0),  # traffic may show the other
        ("# guardrail: ignore GR203, GR206", 1),  # and this is not found here
        ("# guardrail: ignore GR203 until 2026-06-01 as agents are few", 0),
        ("# guardrail: ignore GR203 until 2026-02-28 as agents are few", 1),
        ("# guardrail: ignore GR206 something else", 1),
        ("# says nothing", 1),
    ],
)
@pytest.mark.parametrize("above", [True, False])
def test_a_comment_accepts_a_finding_until_its_date(run, policy, comment, code, above):
    line = (KEY % "[account.id, client.agent]").splitlines()[1]
    written = f"  {comment}\n{line}\n" if above else f"{line} {comment}\n"
    policy(f"rules:\n{written}", "tests: [{name: t, facts: {account.id: a}, expect: allow}]\n")
    outcome = run("check", "p.yaml", "--as-of", "2026-03-01")

    assert outcome.code == code
    accepted = "1 finding accepted by a comment (GR203)" in outcome.out
    assert accepted is (code == 0 or "GR203, GR206" in comment)


EXEMPTION = """\
exemptions:
  - {id: pilot, rules: [banned], when: {account.id: a}, reason: agreed, expires: 2026-02-01}
"""
RESTING = """\
tests:
  - name: the pilot is served
    facts: {account.id: a, enforcement.status: banned}
    expect: allow
"""


def test_an_exemption_that_has_ended_and_a_test_that_rests_on_it_are_findings(run, policy):
    policy(RULES + EXEMPTION, RESTING)
    before = run("check", "p.yaml", "--as-of", "2026-01-10")
    soon = run("check", "p.yaml", "--as-of", "2026-01-25")
    after = run("check", "p.yaml", "--as-of", "2026-02-02")
    tested = run("test", "p.yaml", "--as-of", "2026-02-02")

    assert (before.code, codes(before.out)) == (0, set())
    assert (soon.code, "exemption `pilot` ends 2026-02-01 (p.yaml:" in soon.out) == (0, True)
    assert (after.code, codes(after.out)) == (1, {"GR206", "GR404"})
    assert (tested.code, codes(tested.out)) == (1, {"GR404"})
    assert "`the pilot is served` rests on what has ended: exemption `pilot`" in tested.out


def test_a_test_rests_on_that_alone_which_it_needs(run, policy):
    pilot = EXEMPTION.partition("\n")[2]
    other = pilot.replace("pilot", "other").replace("account.id: a", "account.id: b")
    twin = pilot.replace("pilot", "twin")
    policy(RULES + EXEMPTION + other, RESTING)
    one = run("test", "p.yaml", "--as-of", "2026-02-02").out
    policy(RULES + EXEMPTION + other + twin, RESTING)
    either = run("test", "p.yaml", "--as-of", "2026-02-02").out

    assert "rests on what has ended: exemption `pilot`\n" in one
    assert "exemption `pilot`, exemption `other`, exemption `twin`" in " ".join(either.split())


def test_a_test_that_needs_no_exemption_rests_on_none(run, policy):
    policy(RULES + EXEMPTION, TESTS.replace("account.id: a,", "account.id: b,"))

    assert run("test", "p.yaml", "--as-of", "2026-02-02").code == 0
    assert codes(run("check", "p.yaml", "--as-of", "2026-02-02").out) == {"GR206"}


def test_a_rule_that_has_ended_is_a_finding(run, policy):
    policy(RULES.replace("unknown: skip", "unknown: skip, until: 2026-02-01"))

    assert run("check", "p.yaml", "--as-of", "2026-02-01").code == 0
    # Its test stands at a day when it was in force.
    assert codes(run("check", "p.yaml", "--as-of", "2026-02-02").out) == {"GR206", "GR404"}


def test_a_test_that_expects_nothing_is_a_finding_and_shows_nothing(run, policy):
    policy(tests="tests:\n  - {name: idle, facts: {account.id: a}, steps: [{repeat: 9}]}\n")
    for command in ("check", "test"):
        outcome = run(command, "p.yaml")

        assert (outcome.code, codes(outcome.out)) == (1, {"GR403"})
        assert "test `idle` expects nothing" in outcome.out
    assert "they decided 0 of 2 rules" in outcome.out
    assert "rules that decided no test\n  banned, day\n" in outcome.out


def test_requests_between_others_need_no_expectation(run, policy):
    steps = "[{tokens: 39k, output_tokens: 0}, {tokens: 2k, output_tokens: 0, expect: degrade}]"
    facts = "{account.id: a, request.model: large}"
    policy(tests=f"tests:\n  - {{name: t, facts: {facts}, steps: {steps}}}\n")

    assert run("test", "p.yaml").code == 0


def test_a_failing_test_shows_every_rule_that_could_have_had_the_effect(run, policy):
    tests = """\
tests:
  - {name: one, facts: {account.id: a}, expect: block}
  - {name: two, facts: {account.id: a}, expect: {block: closed}}
  - {name: three, facts: {account.id: a}, expect: throttle}
  - {name: four, facts: {account.id: a, enforcement.status: banned}, expect: allow}
  - {name: five, facts: {account.id: a}, expect: {block: other, by: banned}}
"""
    policy(tests=tests)
    for command in ("check", "test"):
        outcome = run(command, "p.yaml")

        assert (outcome.code, outcome.err) == (1, "")
        assert outcome.out.count("FAIL") == 5
        blocks = outcome.out.split("FAIL")[1:]
        assert "banned   no match   enforcement.status = banned   missing: unknown" in blocks[0]
        assert "day" not in blocks[0]
        assert "banned" in blocks[1]
        assert re.search(r"day +MATCH", blocks[2])
        assert "banned" not in blocks[2]
        assert re.search(r"banned +MATCH", blocks[3])
    for form in ("concise", "json"):
        assert run("test", "p.yaml", "--format", form).code == 1


@pytest.mark.parametrize(
    ("expect", "facts"),
    [
        ("block", "{account.id: a}"),
        ("degrade", "{account.id: a}"),
        ("throttle", "{account.id: a}"),
        ("{degrade: small}", "{account.id: a}"),
        ("allow", "{}"),
        ("block", "{account.id: a, request.channel: x}"),
    ],
)
def test_no_failing_test_is_a_fault_of_ours(run, policy, expect, facts):
    start = START.replace("facts:\n", "facts:\n  request.channel: {type: string, required: true}\n")
    rules = "rules:\n  - {id: open, when: {account.id: b}, unknown: skip, block: {}}\n"
    policy(rules, f"tests:\n  - {{name: t, facts: {facts}, expect: {expect}}}\n", start)
    outcome = run("test", "p.yaml")

    assert outcome.code in (0, 1)
    assert outcome.err == ""


def test_a_refusal_that_no_rule_stands_behind_says_why(run, policy):
    start = START.replace("facts:\n", "facts:\n  request.channel: {type: string, required: true}\n")
    policy(tests="tests:\n  - {name: t, facts: {account.id: a}, expect: allow}\n", start=start)

    assert "fact-missing: the request lacks `request.channel`" in run("test", "p.yaml").out


def test_one_request_is_reserved_the_same_in_a_test_and_when_explained(run, policy, folder):
    facts = "{account.id: a, request.model: large}"
    step = "{tokens: 40000, expect: {degrade: small, by: day}}"
    policy(tests=f"tests:\n  - {{name: t, facts: {facts}, steps: [{step}]}}\n")
    line = {"account.id": "a", "request.model": "large"}
    traffic = [
        {"ts": MONDAY, "facts": line, "estimate": {"input_tokens": 40_000}},
        {
            "ts": MONDAY + 86400,
            "facts": line,
            "usage": {"input_tokens": 40_000, "output_tokens": 5},
        },
        {"ts": MONDAY + 2 * 86400, "facts": line, "usage": {"tokens": 40_005, "output_tokens": 5}},
    ]
    write_traffic(folder / "t.jsonl", *traffic)
    explained = run("explain", "p.yaml", "--request", FACTS, "--tokens", "40000")
    replayed = run("check", "p.yaml", "--traffic", "t.jsonl", "--format", "json")

    assert run("test", "p.yaml").code == 0
    assert explained.out.startswith("DEGRADE to small   by day")
    assert "48,192 of 50,000 tokens" in explained.out
    assert json.loads(replayed.out)["traffic"]["decisions"]["degrade"]["requests"] == 3


def traffic(folder, *rows: object) -> tuple[str, ...]:
    """Return a command line that checks the policies of this module against some traffic."""
    write_traffic(folder / "t.jsonl", *rows)
    return ("check", "p.yaml", "--traffic", "t.jsonl")


def plain(number: int = 0, /, **facts: Any) -> dict[str, Any]:
    """Return a request without anything odd."""
    return request(number, facts={"geo.country": "DE", **facts}, usage={"input_tokens": 1})


@pytest.mark.parametrize(
    ("share", "bad", "code"),
    [
        (None, 0, 0), (None, 1, 0), (None, 2, 1), ("2%", 2, 0), ("0.5%", 1, 1), ("0%", 1, 1),
        ("0%", 0, 0), ("100%", 99, 0),
    ],
)  # fmt: skip
def test_bad_lines_past_a_share_are_a_finding(run, policy, folder, share, bad, code):
    rows = [*(plain(n) for n in range(100 - bad)), *["nonsense"] * bad]
    option = () if share is None else ("--bad-lines", share)
    outcome = run(*traffic(folder, *rows), *option)

    assert outcome.code == code
    assert codes(outcome.out) == ({"GR305"} if code else set())


def test_half_of_the_lines_unreadable_is_told_in_numbers(run, policy, folder):
    rows = [*(plain(n) for n in range(1551)), *["{}"] * 1449]
    outcome = run(*traffic(folder, *rows))

    assert outcome.code == 1
    assert "GR305 1,449 of 3,000 lines could not be read (48.30%)" in outcome.out


@pytest.mark.parametrize("share", ["1", "1 %", "%", "-1%", "101%", "nan%", "1e2%"])
def test_a_share_is_a_percentage(run, policy, folder, share):
    assert run(*traffic(folder, plain()), f"--bad-lines={share}").code == 2


def test_a_fact_that_no_policy_knows_is_a_finding(run, policy, folder):
    outcome = run(*traffic(folder, plain(**{"acount.tier": "verified", "my.own": 1})))

    assert outcome.code == 1
    assert "GR309 fact `acount.tier` is in no policy (1 request); did you mean `account.tier`?" in (
        outcome.out
    )
    assert "GR309 fact `my.own` is in no policy (1 request); declare it" in outcome.out


def test_a_value_that_is_not_of_its_fact_s_type_is_a_finding(run, policy, folder):
    rules = RULES + "  - {id: low, when: {account.tier: anonymous}, block: {}, mode: shadow}\n"
    policy(rules)
    outcome = run(*traffic(folder, plain(**{"account.tier": "Verified"})))

    assert (outcome.code, codes(outcome.out)) == (1, {"GR311"})
    assert 'fact `account.tier` is `"Verified"`, none of its values' in outcome.out


def test_a_model_that_is_not_listed_is_a_finding_unless_it_counts_as_another(run, policy, folder):
    rows = [plain(**{"request.model": "large-2026-03-01"})] * 3
    unsaid = run(*traffic(folder, *rows))
    policy(start=START + "defaults: {unlisted_model: large}\n")
    said = run(*traffic(folder, *rows))

    assert (unsaid.code, codes(unsaid.out)) == (1, {"GR306"})
    assert "GR306 model `large-2026-03-01` is not in `models` (3 requests)" in unsaid.out
    assert said.code == 0
    assert "3 requests for models not listed count as `large`: `large-2026-03-01`" in said.out


def test_a_degrade_without_effect_is_in_the_table_and_a_finding(run, policy, folder):
    policy(start=START + "  other: {max_output: 8192}\n")
    rows = [plain(n, **{"request.model": "other"}) for n in range(2)]
    for row in rows:
        row["estimate"] = {"input_tokens": 21_000, "output_tokens": 0}
    rows[1]["facts"]["request.model"] = "small"
    outcome = run(*traffic(folder, *rows))
    idle = [{**rows[0], "estimate": {"input_tokens": 41_000, "output_tokens": 0}}]
    told = run(*traffic(folder, *idle))

    assert (outcome.code, codes(outcome.out)) == (0, set())  # who asks for `small` has it
    assert (told.code, codes(told.out)) == (1, {"GR307"})
    assert "rule `day` asked for a weaker model without effect (1 request)" in told.out
    assert re.search(r"  day +1 +– +1 without effect\n", told.out)


MAP = """\
guardrail_map: 1
ts: {column: t}
facts:
  account.id: {column: who}
  geo.country: {column: where}
  account.tier: {column: plan, values: {free: email, pro: verified}%s}
usage: {input_tokens: {column: in}}
"""


def test_a_log_that_is_read_by_no_map_or_by_another_is_told_where_to_look(run, policy, folder):
    (folder / "m.yaml").write_text(MAP % "")
    (folder / "log").write_text('203.0.113.9 - - [01/Mar/2026:10:00:00 +0100] "GET / HTTP/1.1"\n')
    arguments = ("check", "policies", "--traffic", "log")
    bare, wrong = run(*arguments), run(*arguments, "--map", "m.yaml")

    for outcome, said in ((bare, "not guardrail's own form"), (wrong, "the map does not fit")):
        told = " ".join(outcome.out.split())
        assert outcome.code == 1
        assert said in told
        assert "`guardrail map guess`" in told


def test_a_column_that_is_always_empty_is_a_finding(run, policy, folder):
    (folder / "m.yaml").write_text(MAP % "")
    rows = [
        {"t": MONDAY, "who": "a", "where": "", "plan": "free", "in": 40},
        {"t": MONDAY, "who": "b", "plan": "pro", "in": 40},
    ]
    outcome = run(*traffic(folder, *rows), "--map", "m.yaml")

    assert (outcome.code, codes(outcome.out)) == (1, {"GR308"})
    assert "GR308 column `where`, which the map names, has no value in any line" in outcome.out


def test_a_value_that_a_map_does_not_know_is_counted_and_shown(run, policy, folder):
    row = {"t": MONDAY, "who": "a", "where": "DE", "in": 40}
    rows = [{**row, "plan": plan} for plan in ("Free", "free", "Free")]
    (folder / "m.yaml").write_text(MAP % "")
    outcome = run(*traffic(folder, *rows), "--map", "m.yaml")
    (folder / "m.yaml").write_text(MAP % ", default: email")
    defaulted = run(*traffic(folder, *rows), "--map", "m.yaml")

    assert (outcome.code, codes(outcome.out)) == (1, {"GR310"})
    assert (
        "GR310 `Free` is no value of `account.tier` that the map knows (2 requests)" in outcome.out
    )
    assert defaulted.code == 0


BLIND = {
    "  - {id: r, when: {request.model: large}, block: {}}": "`request.model`",
    "  - {id: r, when: {request.tools: {gt: 0}}, block: {}}": "`request.tools`",
    "  - {id: r, when: {not: {request.capability: chat}}, block: {}}": "`request.capability`",
    "  - {id: r, when: always, budget: {tokens: 9k, per: day, key: account.id}}": "`tokens`",
    "  - {id: r, when: always, rate: {cost_usd: 1/day, key: account.id}}": "`cost_usd`",
    "  - {id: r, when: always, concurrency: {max: 1, key: account.id}}": "in flight",
    "  - {id: r, when: always, rate: {requests: {by: request.model, large: 9/day, else: 99/day}, "
    "key: account.id}}": "`request.model`",
}
PRICED = START.replace("large: {", "large: {price: {input: 1, output: 1}, ").replace(
    "small: {", "small: {price: {input: 1, output: 1}, "
)


@pytest.mark.parametrize("rule", BLIND)
def test_a_rule_that_no_declared_door_can_feed_is_a_finding(run, policy, rule):
    tests = "tests: [{name: t, facts: {account.id: a}, steps: [{expect: allow}]}]\n"
    tests = tests.replace("expect: allow", "tokens: 0, output_tokens: 0, expect: {%s: true}")
    effect = "block" if "block" in rule else "allow"
    policy(f"rules:\n{rule}\n", tests % effect, PRICED)
    found = run("check", "p.yaml", "--door", "authorizer")

    assert run("check", "p.yaml").code == 0
    assert run("check", "p.yaml", "--door", "asgi").code == 0
    assert run("check", "p.yaml", "--door", "authorizer", "--door", "wsgi").code == 0
    assert (found.code, codes(found.out)) == (1, {"GR205"})
    assert BLIND[rule] in found.out


def test_an_authorizer_knows_no_body_and_litellm_knows_all(run, policy):
    when = "{geo.country: CU, request.tools: {gt: 3}}"
    rules = f"rules:\n  - {{id: r, when: {when}, unknown: skip, block: {{}}}}\n"
    facts = "{account.id: a, geo.country: CU, request.tools: 4}"
    policy(rules, f"tests: [{{name: t, facts: {facts}, expect: block}}]\n")
    assert codes(run("check", "p.yaml", "--door", "litellm").out) == set()
    outcome = run("check", "p.yaml", "--door", "authorizer")

    assert codes(outcome.out) == {"GR205"}
    told = " ".join(outcome.out.split())
    assert "cannot be enforced by the door `authorizer`: it rests on `request.tools`, which" in told


def test_an_unknown_door_is_a_wrong_use(run, policy):
    outcome = run("check", "p.yaml", "--door", "authoriser")

    assert outcome.code == 2
    assert "did you mean `authorizer`?" in outcome.err


ROWS = """\
rules:
  - id: day
    when: {any: [{request.tools: {gt: 0}}, {request.capability: {in: [agentic, code]}}]}
    unknown: skip
    budget:
      # guardrail: ignore GR210, GR212 few tokens make a short test
      tokens: {by: account.tier, anonymous: 1k, email: 10k, verified: unlimited}
      per: day
      key: account.id
    steps:
      - {at: 50%, notify: {x-half: used}}
      - {at: 80%, degrade: {model: small}}
"""
FULL = """\
tests:
  - name: t
    facts: {account.id: a, account.tier: email, request.model: large, request.tools: 1}
    steps:
      - {tokens: 5001, output_tokens: 0, expect: {allow: true, obligations: {x-half: used}}}
      - {tokens: 4000, output_tokens: 0, expect: degrade}
      - {tokens: 4000, output_tokens: 0, expect: throttle}
"""


def test_what_no_test_can_go_through_is_no_branch(run, policy):
    night = "any: [{time.hour: {gte: 22}}, {time.hour: {lt: 6}}]"
    policy(
        f"""\
rules:
  - {{id: days, when: {{not: {{{night}}}}}, block: {{}}}}
  - {{id: nights, when: {{not: {{not: {{{night}}}}}}}, block: {{}}}}
""",
        """\
tests:
  - {name: noon, now: 2026-01-05T12:00:00Z, expect: {block: days}}
  - {name: eleven, now: 2026-01-05T23:00:00Z, expect: {block: nights}}
""",
    )
    outcome = run("check", "p.yaml")

    assert "they decided 2 of 2 rules, 1 of 2 branches\n" in outcome.out
    assert "nights (time.hour lt 6)" in outcome.out


def test_coverage_is_told_by_row_step_and_branch(run, policy):
    policy(ROWS, FULL)
    outcome = run("check", "p.yaml")
    found = json.loads(run("test", "p.yaml", "--format", "json").out)

    assert outcome.code == 0
    told = "they decided 1 of 1 rules, 1 of 3 rows, 3 of 3 steps, 1 of 2 branches\n"
    assert told in outcome.out
    never = "  day (anonymous; verified; request.capability in [agentic, code])\n"
    assert never in outcome.out
    assert [row["text"] for row in found["rows_without_test"]] == ["anonymous", "verified"]
    assert found["steps_without_test"] == []
    assert len(found["branches_without_test"]) == 1


def test_a_row_that_no_test_ran_into_is_not_covered(run, policy):
    served = FULL.replace("expect: throttle", "expect: degrade").replace("4000", "3000", 1)
    policy(ROWS, served[: served.index("      - {tokens: 4000")])

    assert "1 of 3 rows, 2 of 3 steps" in run("check", "p.yaml").out


def test_a_row_without_a_limit_is_covered_by_being_served(run, policy):
    test = "  - {name: u, facts: {account.id: b, account.tier: verified, request.tools: 1}, %s}\n"
    policy(ROWS, FULL + test % "expect: allow")

    assert "2 of 3 rows" in run("check", "p.yaml").out


def test_what_is_found_is_in_the_json_too(run, policy, folder):
    policy(KEY % "[account.id, client.agent]", TESTS.replace("{block: closed}", "allow"))
    found = json.loads(run(*traffic(folder, "nonsense", plain()), "--format", "json").out)

    assert [one["code"] for one in found["warnings"]] == ["GR203", "GR303"]
    assert [line[:5] for line in found["findings"]] == ["GR203", "GR305"]


def test_the_shipped_policies_have_nothing_wrong_at_any_time_they_hold(run, policy):
    root = Path(__file__).resolve().parents[2]
    for path in (root / "policies", root / "examples" / "server" / "policies"):
        outcome = run("check", str(path), "--as-of", "2026-12-01")

        assert (outcome.code, codes(outcome.out)) == (0, set()), outcome.out


def test_an_exemption_that_does_not_apply_is_explained(run, policy):
    policy(RULES + EXEMPTION, RESTING)
    asked = ("explain", "p.yaml", "--request")
    banned = '{"account.id": "%s", "enforcement.status": "banned"}'
    other = run(*asked, banned % "b", "--at", "2026-01-10")
    ended = run(*asked, banned % "a", "--at", "2026-02-10")
    nobody = run(*asked, '{"enforcement.status": "banned"}', "--at", "2026-01-10")
    lifted = run(*asked, banned % "a", "--at", "2026-01-10")

    assert re.search(r"exemption +pilot does not apply\n +account.id = a +\"b\": no\n", other.out)
    assert "pilot does not apply: it has ended (2026-02-01T" in ended.out
    assert "pilot does not apply: it hinges on a missing fact" in nobody.out
    assert "exempt by pilot" in lifted.out
    assert "does not apply" not in lifted.out


def test_a_degrade_without_effect_is_explained(run, policy):
    request = '{"account.id": "a", "request.model": "large-2026-03-01"}'
    outcome = run("explain", "p.yaml", "--request", request, "--tokens", "35000")
    policy(start=START + "defaults: {unlisted_model: large}\n")
    counted = run("explain", "p.yaml", "--request", request, "--tokens", "35000")

    assert outcome.out.startswith("ALLOW")
    assert re.search(
        r"asks for +degrade \(asks for the model `small`, without effect: "
        r"`large-2026-03-01` is not in `models`\)",
        outcome.out,
    )
    assert "note        model `large-2026-03-01` is not in `models`" in outcome.out
    assert counted.out.startswith("DEGRADE to small")


def catalogued(run, folder, code: str, example: str) -> tuple[int, set[str]]:
    """Return how `check` ends over an example of the catalogue, and which codes it tells."""
    parts = re.split(r"^# file: (.*)\n", example, flags=re.MULTILINE)
    rules = "" if "rules:" in parts[0] else "rules: [{id: r, when: {account.id: z}, block: {}}]\n"
    tests = "" if "tests:" in parts[0] else "tests: [{name: t, facts: {account.id: a}, expect: %s}]"
    files = dict(zip(parts[1::2], parts[2::2], strict=True))
    base = f"guardrail: 1\npolicy: p\n{parts[0].rstrip()}\n{rules}{tests}\n"
    shutil.rmtree(folder / "sets", ignore_errors=True)
    (folder / "sets").mkdir()
    for name, text in files.items():
        beside = folder / "sets" if name.lower() == "embargo.yaml" else folder
        (beside / name).write_text(text.rstrip() + "\n")
    traffic = ("--traffic", "traffic.jsonl") if "traffic.jsonl" in files else ()
    mapped = ("--map", "map.yaml") if "map.yaml" in files else ()
    door = ("--door", "authorizer") if code == "GR205" else ()
    store = ("--store", "memory://") if code == "GR211" else ()
    options = (*traffic, *mapped, *door, *store, "--as-of", "2026-06-01")
    command: tuple[str, ...] = ("check",)
    if code.startswith(("GR3", "GR5")):
        options = (*options, "--fail-on", "warn" if code > "GR304" else "note")
    elif CATALOGUE[code].severity is not Severity.WARNING:
        command = ("lint", "--fail-on", "note")
    for effect in ("allow", "block", "degrade"):
        (folder / "sets" / "q.yaml").write_text(base.replace("expect: %s", f"expect: {effect}"))
        outcome = run(*command, "sets", *options)
        if "FAIL" not in outcome.out and ("GR401" not in outcome.out or code == "GR401"):
            break
    return outcome.code, codes(outcome.out)


@pytest.mark.parametrize("code", [code for code in CATALOGUE if code > "GR2" and code != "GR304"])
def test_the_catalogue_avoids_what_is_found_and_prefers_what_is_not(run, folder, code):
    avoided = catalogued(run, folder, code, CATALOGUE[code].avoid)

    assert avoided[0] == 1
    also = {"GR203"} if code == "GR230" else set()  # the comment names what it accepted
    assert code in avoided[1] <= {code, "GR206", "GR402", *also}
    preferred = catalogued(run, folder, code, CATALOGUE[code].prefer)
    assert preferred in ((0, set()), (1, {"GR402"} - {code}))


def test_every_code_that_is_told_has_a_page():
    root = Path(__file__).resolve().parents[2] / "guardrail"
    told = {
        code
        for path in root.rglob("*.py")
        if not path.name.startswith("catalogue")
        for code in re.findall(r"\bGR[2-9]\d\d\b", path.read_text("utf-8"))
    }

    assert told == {code for code in CATALOGUE if code > "GR2"}


def test_the_small_policy_of_the_other_tests_is_fine(run):
    assert POLICY
    assert run("check", "policies").code == 0


def test_the_page_of_a_finding_is_printed(run):
    outcome = run("rule", "GR203")

    assert outcome.code == 0
    assert outcome.out.startswith("GR203  a client's fact in a key\n\navoid\n\n  rules:\n")
    assert CATALOGUE["GR203"].why.split()[0] in outcome.out
    assert run("rule", "gr203").out == outcome.out
    for code in CATALOGUE:
        assert run("rule", code).code == 0
    unknown = run("rule", "GR9999")
    assert unknown.code == 2
    assert "there is no finding `GR9999`" in unknown.err


def test_refusals_that_no_rule_stands_behind_are_told_of_as_made(run, policy, folder):
    start = START.replace("facts:\n", "facts:\n  request.channel: {type: string, required: true}\n")
    policy(start=start)
    write_traffic(folder / "t.jsonl", *(request(at) for at in range(3)))
    out = run("check", "p.yaml", "--traffic", "t.jsonl").out

    assert re.search(r"\(no rule\) +– +– +3 blocked\n", out), out


@pytest.mark.parametrize(
    ("at", "help"),
    [
        ("17.5", "say with `offset` when the first line was"),
        ("1752738859", "in s that is 2025-07-17: say so with `unit`, or with `numbers`"),
        ("1752738859000", "in ms that is 2025-07-17: say so with `unit`, or with `numbers`"),
    ],
)
def test_a_time_of_our_days_in_another_unit_is_told_as_such(run, policy, folder, at, help):
    policy(RULES, TESTS)
    (folder / "m.yaml").write_text(
        "guardrail_map: 1\nts: {column: at, unit: ns}\nfacts: {account.id: {column: who}}\n"
    )
    if at == "17.5":
        text = (folder / "m.yaml").read_text()
        (folder / "m.yaml").write_text(text.replace("unit: ns", "unit: s"))
    write_traffic(folder / "log.jsonl", f'{{"at": {at}, "who": "a"}}')
    outcome = run("check", "p.yaml", "--traffic", "log.jsonl", "--map", "m.yaml")

    assert outcome.code == 1
    assert f"GR314 1 time lay before 1980, such as `{at}`; {help}\n" in outcome.out


def test_limits_of_what_runs_at_once_over_requests_without_a_duration_are_remarked(
    run, policy, folder
):
    policy(RULES.replace("rules:\n", "rules:\n" + FLYING), TESTS)
    timed = [{**plain(), "duration": 2.5}, {**plain(), "duration": 2.5}]
    none = run(*traffic(folder, plain(), plain()))
    most = run(*traffic(folder, plain(), plain(), timed[0]))
    half = run(*traffic(folder, plain(), timed[0]))

    remark = "counts as over at once: what `flying` would refuse is not shown"
    assert f"no request says how long it took (`duration`), and {remark}" in none.out
    assert "66.67% of the requests do not say how long they took (`duration`)" in most.out
    assert "over at once" not in half.out


FLYING = "  - {id: flying, when: always, concurrency: {max: 1, key: account.id}}\n"
