"""What is wrong with a policy is said in its author's words, where it stands, and all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardrail.errors import PolicyError, SettingError
from guardrail.loading import CATALOGUE, load_policies, load_text
from tests.loading.error_cases import RULE, START, cases, completed, findings, shown

CASES = list(cases())
LIBRARY_WORDS = re.compile(
    r"pydantic|Input should|Field required|Extra inputs|valid (?:string|integer|dictionary)|_type\b"
    r"|\bstr\b|\bint\b|\bdict\b|None|Traceback|object at 0x|\bScalar\b|Decimal|Errno"
)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def errors_of(folder: Path) -> list[str]:
    """Return what is wrong with the policies in a folder, each on one line."""
    with pytest.raises(PolicyError) as raised:
        load_policies([folder])
    return [
        f"{found.span.file.removeprefix(f'{folder}/')}:{found.span.line}:{found.span.column}"
        f" {found.code} {found.message}"
        for found in raised.value.diagnostics
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_each_error_is_shown_where_it_stands(case):
    assert findings(case.text) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_errors_are_written_in_house_style(case):
    with pytest.raises(PolicyError) as raised:
        load_text(case.text)

    for found in raised.value.diagnostics:
        for sentence in (found.message, found.label, found.help):
            if sentence is not None:
                assert not LIBRARY_WORDS.search(re.sub("`[^`]*`", "", sentence))
                assert not sentence.endswith(".")
        assert not found.message[0].isupper()


@pytest.mark.parametrize(
    "entry", [entry for entry in CATALOGUE.values() if entry.code < "GR2"], ids=lambda e: e.code
)
def test_the_catalogue_avoids_what_is_an_error_and_prefers_what_is_none(entry, tmp_path):
    for name, example in (("avoid", entry.avoid), ("prefer", entry.prefer)):
        parts = re.split(r"^# file: (.*)\n", example, flags=re.MULTILINE)
        texts = dict(zip(parts[1::2], parts[2::2], strict=True)) or {"a.yaml": example}
        first = min(texts)
        files = {file: "guardrail: 1\n" + text for file, text in texts.items()}
        rule = "" if "rules:" in example else f"\n{RULE}"
        files[first] = f"{START}{texts[first].rstrip()}\n{rule}"
        write(tmp_path / name, files)

    with pytest.raises(PolicyError) as raised:
        load_policies([tmp_path / "avoid"])

    assert entry.code in {found.code for found in raised.value.diagnostics}
    assert load_policies([tmp_path / "prefer"]).rules


def test_every_code_has_a_page():
    found = {code for case in CASES for code in re.findall(r"^GR\d+", case.expected, re.MULTILINE)}

    assert found <= set(CATALOGUE)
    codes = [code for code in CATALOGUE if code < "GR2"]
    assert codes == [f"GR{number}" for number in range(100, 123)]
    assert list(CATALOGUE) == sorted(CATALOGUE)


def test_errors_of_all_files_come_together_in_order(tmp_path):
    files = {
        "b.yaml": "guardrail: 1\nrules:\n  - {id: two, when: {geo.contry: CU}, block: {}}\n",
        "a.yaml": START + "rules:\n  - {id: one, when: always, blokc: {}}\n"
        "  - {id: two, when: {account.id: 1}, block: {}}\n",
        "c/d.yaml": "guardrail: 1\ndefaults: {mod: shadow}\npolicy: other\n",
        "e_test.yaml": "guardrail: 1\ntests: [{name: t, expect: {block: x, by: three}}]\n",
    }

    assert errors_of(write(tmp_path, files)) == [
        "a.yaml:4:29 GR101 unknown key `blokc`",
        "a.yaml:5:34 GR102 `1` is not text",
        "b.yaml:3:10 GR104 rule `two` is there twice",
        "b.yaml:3:22 GR105 unknown fact `geo.contry`",
        "c/d.yaml:2:12 GR101 unknown key `mod`",
        "c/d.yaml:3:1 GR121 `policy` is set in two files",
        "e_test.yaml:2:42 GR107 unknown rule `three`",
    ]


def test_names_are_unique_across_files(tmp_path):
    part = (
        "facts: {account.region: {type: string}}\n"
        "lists: {embargoed: [CU]}\n"
        "conditions: {abroad: {geo.country: {not: DE}}}\n"
    )
    tests = "guardrail: 1\ntests: [{name: t, facts: {account.id: a}, expect: allow}]\n"
    files = {
        "a.yaml": START + part + RULE,
        "b.yaml": "guardrail: 1\n" + part,
        "a_test.yaml": tests,
        "b_test.yaml": tests,
    }

    assert errors_of(write(tmp_path, files)) == [
        "b.yaml:2:9 GR104 fact `account.region` is there twice",
        "b.yaml:3:9 GR104 list `embargoed` is there twice",
        "b.yaml:4:14 GR104 condition `abroad` is there twice",
        "b_test.yaml:2:16 GR104 test `t` is there twice",
    ]


def test_what_one_file_may_set_names_both_files(tmp_path):
    files = {
        "a.yaml": START + "models: {large: {}}\n" + RULE,
        "b.yaml": "guardrail: 1\nmodels: {small: {}}\n",
    }
    write(tmp_path, files)

    with pytest.raises(PolicyError) as raised:
        load_policies([tmp_path])

    assert [shown(found) for found in raised.value.diagnostics] == [
        "GR121 `models` is set in two files\n"
        "  2 | models: {small: {}}\n"
        "    | ^^^^^^ also set in a.yaml:3\n"
        "    = keep one; `policy`, `models`, `defaults`, `links` and `score` hold for all "
        "files of a set\n"
    ]


def test_a_file_that_cannot_be_read_causes_no_errors_about_what_it_would_declare(tmp_path):
    rule = (
        "guardrail: 1\nrules:\n  - id: r\n    when: {account.region: {in: $regions}, use: abroad}\n"
        "    degrade: {model: small}\n    modus: shadow\n"
        "exemptions: [{id: e, rules: [s], when: {account.id: a}, reason: x, expires: 2026-12-31}]\n"
    )
    files = {"a.yaml": START + "facts: {account.region: {type: string}\n", "b.yaml": rule}

    errors = errors_of(write(tmp_path, files))

    assert [error.partition(" ")[2][:5] for error in errors] == ["GR100", "GR101"]


def test_a_declaration_in_error_is_not_reported_where_it_is_used():
    text = completed(
        "facts: {account.region: {type: strng}}\n"
        "lists: {regions: []}\n"
        "conditions: {abroad: {account.regon: eu}}\n"
        "models: {large: {weaker: small, prise: 1}}\n"
        "rules:\n"
        "  - id: r\n"
        "    when: {account.region: {in: $regions}, use: abroad}\n"
        "    degrade: {model: small}\n"
    )

    codes = re.findall(r"^GR\d+", findings(text), re.MULTILINE)

    assert codes == ["GR106", "GR108", "GR105", "GR101"]


def test_an_error_in_a_repeated_part_is_said_once():
    text = completed(
        "rules:\n"
        "  - {id: r, when: &when {geo.contry: CU}, block: {}}\n"
        "  - {id: s, when: *when, block: {}}\n"
    )

    assert findings(text).count("GR105") == 1


def test_rules_stand_in_no_file_of_tests(tmp_path):
    files = {"a.yaml": START + RULE, "a_test.yaml": "guardrail: 1\nrules: []\n"}

    assert errors_of(write(tmp_path, files)) == [
        "a_test.yaml:2:1 GR101 `rules` cannot stand in a file of tests"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# none yet\n\n", "GR108 the list file `list.txt` holds no value"),
        (b"\xff\xfe", "GR102 the list file `list.txt` is not UTF-8 text"),
        (b"CU\nUK # London\n", "GR106 `UK` is not a country"),
    ],
)
def test_what_is_wrong_with_a_list_file_is_said(tmp_path, content, expected):
    text = "lists: {places: {file: list.txt}}\n"
    rule = "rules: [{id: r, when: {geo.country: {in: $places}}, block: {}}]\n"
    write(tmp_path, {"a.yaml": START + text + rule})
    (tmp_path / "list.txt").write_bytes(content)

    errors = errors_of(tmp_path)

    place = "list.txt:2:1" if "UK" in expected else "a.yaml:3:24"
    assert errors == [f"{place} {expected}"]


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(PolicyError):
        load_policies([tmp_path])
    with pytest.raises(PolicyError):
        load_policies([tmp_path / "nowhere"])
    with pytest.raises(SettingError):
        load_policies([])


def test_a_long_list_of_names_is_cut_short_and_says_how_many_more():
    def lacking(values):
        facts = f"facts: {{account.tier: {{type: level, values: [paid, {', '.join(values)}]}}}}\n"
        amount = "{by: account.tier, paid: 5M}"
        rule = f"{{id: r, when: always, budget: {{tokens: {amount}, per: day, key: account.id}}}}"
        return findings(completed(f"{facts}rules: [{rule}]\n")).partition("\n")[0]

    assert lacking("abcdefgh").endswith("lacks `a`, `b`, `c`, `d`, `e`, `f`, `g` and `h`")
    assert lacking("abcdefghi").endswith("`f`, `g`, `h` and 1 more")
