"""What is wrong with a map file is said where it stands, in its author's words."""

from __future__ import annotations

import pytest

from guardrail.errors import DataError
from guardrail.loading import load_text
from guardrail.model.policy import PolicySet
from guardrail.traffic.mapfile import MapError, load_map

POLICIES = """
guardrail: 1
policy: p
units: [images]
rules:
  - {id: r, when: always, budget: {requests: 10, per: day, key: account.id}}
"""


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_text(POLICIES)


WRONG = {
    "guardrail_map: 1\nfacts: {}": "1:1: GR102 missing `ts` (add `ts:`)",
    "ts: {column: t}\nfacts: {}": "1:1: GR102 missing `guardrail_map` (add `guardrail_map:`)",
    "guardrail_map: 2\nts: {column: t}\nfacts: {}": "1:16: GR102 this is not version 1 of a map "
    "(write `guardrail_map: 1`)",
    "guardrail_map: 1\nts: {colum: t}\nfacts: {}": "2:6: GR101 unknown key `colum` "
    "(did you mean `column`?)",
    "guardrail_map: 1\nts: {column: t, unit: mss}\nfacts: {}": "2:23: GR106 `unit` cannot be `mss`"
    " (did you mean `ms`?)",
    "guardrail_map: 1\nts: {column: t}\nfacts: {geo.contry: {column: c}}": "3:9: GR105 "
    "unknown fact `geo.contry` (did you mean `geo.country`?)",
    "guardrail_map: 1\nts: {column: t}\nfacts: {geo.country: {constant: XY}}": "3:33: GR106 "
    "`XY` is not a country (write its ISO 3166-1 code of two letters, such as `DE`)",
    "guardrail_map: 1\nts: {column: t}\nfacts: {geo.country: {}}": "3:9: GR102 `geo.country` needs "
    "either `column` or `constant` (write `geo.country: {column: NAME}`)",
    "guardrail_map: 1\nts: {column: t}\nfacts: {geo.country: {constant: DE, default: FR}}": "3:37: "
    "GR102 a constant has no `default` (leave it out)",
    "guardrail_map: 1\nts: {column: t}\nfacts: {}\nusage: {input_token: {column: i}}": "4:9: GR101 "
    "unknown unit `input_token` (did you mean `input_tokens`?)",
    "guardrail_map: 1\nts: {column: t}\nfacts: {}\nusage: {images: {constant: -1}}": "4:28: GR102 "
    "an amount is a number, 0 or more",
    "guardrail_map: 1\nts: {column: t, offset: soon}\nfacts: {}": "2:25: GR102 an offset is a time "
    "or a number of seconds (write `2026-03-02T00:00:00Z` or `3600`)",
    "guardrail_map: 1\nts: {column: t, timezone: UTC}\nfacts: {}": "2:27: GR102 only a time in "
    "text has a time zone (write `unit: rfc3339`)",
    "guardrail_map: 1\nts: {column: t, unit: rfc3339, timezone: Mars}\nfacts: {}": "2:42: GR102 "
    "unknown time zone `Mars` (write an IANA name such as `Europe/Berlin`)",
    "guardrail_map: 1\ndelimiter: ';'\nts: {column: t}\nfacts: {}": "2:12: GR102 only a csv has a "
    "delimiter (write `format: csv`)",
    "guardrail_map: 1\nformat: csv\ndelimiter: ';;'\nts: {column: t}\nfacts: {}": "3:12: GR102 "
    'a delimiter is one character (write `delimiter: ";"`)',
}


@pytest.mark.parametrize(("text", "expected"), WRONG.items(), ids=[*map(str, range(len(WRONG)))])
def test_what_is_wrong_with_a_map_is_said_where_it_stands(tmp_path, policies, text, expected):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(MapError) as raised:
        load_map(str(path), policies)
    [found] = raised.value.diagnostics
    advice = f" ({found.help})" if found.help else ""

    assert (
        f"{found.span.line}:{found.span.column}: {found.code} {found.message}{advice}" == expected
    )
    assert found.excerpt == text.splitlines()[found.span.line - 1]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"# none", MapError, "the file is empty"),
        (b"- a\n", MapError, "must be a map"),
        (b"a: [", MapError, "GR100"),
        (b"\xff\xfe", DataError, "is not UTF-8 text"),
    ],
)
def test_what_is_no_map_at_all_is_said_too(tmp_path, policies, data, error, message):
    path = tmp_path / "map.yaml"
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        load_map(str(path), policies)


def test_a_map_that_is_not_there_cannot_be_read(tmp_path, policies):
    with pytest.raises(DataError, match="no such file"):
        load_map(str(tmp_path / "absent.yaml"), policies)
