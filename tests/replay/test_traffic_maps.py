"""Maps: any log as traffic, and what is wrong with a map in its author's words."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from guardrail.errors import DataError
from guardrail.loading import load_text
from guardrail.model.policy import PolicySet
from guardrail.traffic.lines import LineSource
from guardrail.traffic.mapfile import load_map
from guardrail.traffic.reading import Recorded, recorded_requests
from guardrail.traffic.requests import BadLines

POLICIES = """
guardrail: 1
policy: p
units: [images]
facts:
  account.tier: {type: level, values: [none, basic, full]}
  account.seats: {type: integer}
  account.score: {type: number}
  account.born: {type: timestamp}
  account.tags: {type: list}
  account.new: {type: bool}
rules:
  - {id: r, when: always, budget: {requests: 10, per: day, key: account.id}}
"""
TIME = "ts: {column: t}\n"


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_text(POLICIES)


def mapped(
    folder: Path, policies: PolicySet, text: str, *rows: object
) -> tuple[list[Recorded], BadLines]:
    """Return what a map makes of rows: of dicts in JSON lines, of texts in a csv."""
    (folder / "map.yaml").write_text(f"guardrail_map: 1\n{text}", "utf-8")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "log").write_text("\n".join(lines), "utf-8")
    mapping = load_map(str(folder / "map.yaml"), policies)
    bad = BadLines()
    with LineSource(str(folder / "log")) as source:
        return list(recorded_requests(source, bad, mapping)), bad


def facts_of(folder: Path, policies: PolicySet, text: str, row: object) -> Mapping[str, object]:
    """Return the facts a map makes of one row."""
    [(_, _, request)], _ = mapped(folder, policies, f"{TIME}facts: {text}", row)
    return request.facts


@pytest.mark.parametrize(
    ("written", "value", "seconds"),
    [
        ("{column: t}", 12.5, 12.5),
        ("{column: t}", "12.5", 12.5),
        ("{column: t, unit: ms}", 12500, 12.5),
        ("{column: t, unit: us}", 12500000, 12.5),
        ("{column: t, unit: ns}", "12500000000", 12.5),
        ("{column: t, offset: 2026-03-01T09:00:00Z}", 5, 1772355605.0),
        ("{column: t, offset: 100}", 5, 105.0),
        ("{column: t, offset: -2.5}", 5, 2.5),
        ("{column: t, unit: rfc3339}", "2026-03-01T10:00:00+01:00", 1772355600.0),
        (
            "{column: t, unit: rfc3339, timezone: UTC}",
            "2026-03-01 09:00:00.1234567",
            1772355600.123456,
        ),
        (
            "{column: t, unit: rfc3339, timezone: Europe/Berlin}",
            "2026-03-01T10:00:00",
            1772355600.0,
        ),
    ],
)
def test_a_time_is_read_in_its_unit(tmp_path, policies, written, value, seconds):
    [(_, ts, _)], _ = mapped(tmp_path, policies, f"ts: {written}\nfacts: {{}}", {"t": value})

    assert ts == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("fact", "logged", "read"),
    [
        ("account.id", 42, "42"),
        ("account.id", 4.5, "4.5"),
        ("account.id", True, "true"),
        ("account.seats", "12", 12),
        ("account.seats", 12.0, 12),
        ("account.seats", "many", "many"),
        ("account.score", "1.5", 1.5),
        ("account.born", "1746057600", 1746057600),
        ("account.born", "2026-03-01T09:00:00Z", "2026-03-01T09:00:00Z"),
        ("account.new", "True", True),
        ("account.new", "0", False),
        ("account.new", "perhaps", "perhaps"),
        ("account.tags", "a, b,,c", ["a", "b", "c"]),
        ("account.tags", ["a"], ["a"]),
        ("geo.country", "DE", "DE"),
    ],
)
def test_a_value_takes_the_shape_of_its_fact(tmp_path, policies, fact, logged, read):
    found = facts_of(tmp_path, policies, f"{{{fact}: {{column: c}}}}", {"t": 1, "c": logged})

    assert found == {fact: read}
    assert type(found[fact]) is type(read)


@pytest.mark.parametrize("row", [{"t": 1}, {"t": 1, "c": None}, {"t": 1, "c": ""}])
def test_a_column_without_a_value_leaves_the_fact_out_or_takes_the_default(tmp_path, policies, row):
    assert facts_of(tmp_path, policies, "{account.id: {column: c}}", row) == {}
    assert facts_of(tmp_path, policies, "{account.id: {column: c, default: x}}", row) == {
        "account.id": "x"
    }


@pytest.mark.parametrize(
    ("logged", "default", "read"),
    [
        ("rag", "", "chat"),
        ("true", "", "code"),
        (True, "", "code"),
        (7, "", "image"),
        ("new", "", None),
        ("new", ", default: other", "other"),
    ],
)
def test_a_table_translates_values(tmp_path, policies, logged, default, read):
    table = f"{{column: c, values: {{rag: chat, true: code, 7: image}}{default}}}"
    found = facts_of(tmp_path, policies, f"{{request.capability: {table}}}", {"t": 1, "c": logged})

    assert found.get("request.capability") == read


def test_a_column_of_json_may_lie_deep(tmp_path, policies):
    text = (
        "{account.id: {column: user.id}, account.org: {column: a.b}, geo.country: {column: x.y.z}}"
    )
    row = {"t": 1, "user": {"id": "u1"}, "a.b": "o1", "x": {"y": 3}}

    assert facts_of(tmp_path, policies, text, row) == {"account.id": "u1", "account.org": "o1"}


def test_amounts_and_durations_come_from_columns_and_constants(tmp_path, policies):
    text = (
        TIME + "facts: {}\n"
        "estimate: {input_tokens: {column: i}, output_tokens: {constant: 100}}\n"
        "usage: {output_tokens: {column: o, default: 7}, cost_usd: {column: usd}, "
        "images: {column: n}}\n"
        "duration: {column: ms, unit: ms}\n"
    )
    row = {"t": 1, "i": "5", "usd": "0.25", "n": 2.0, "ms": 1500}
    [(_, _, request)], _ = mapped(tmp_path, policies, text, row)

    assert request.estimate == {"images": 2, "input_tokens": 5, "output_tokens": 100}
    assert request.usage == {"output_tokens": 7, "cost_usd": 0.25, "images": 2}
    assert request.duration == 1.5


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"i": 1}, "time `t` is missing"),
        ({"t": "soon", "i": 1}, "`t` is not a number"),
        ({"t": True, "i": 1}, "`t` is not a number"),
        ({"t": -1, "i": 1}, "time `t` is before 1970 or after 2200"),
        ({"t": 1, "i": -1}, "`i` is negative"),
        ({"t": 1, "i": "NaN"}, "`i` is not a number"),
        ({"t": 1, "i": "inf"}, "`i` is not a number"),
        ({"t": 1, "i": 1.5}, "`i` is not a whole number"),
        ({"t": 1, "i": 2**60}, "`i` is too large"),
        ({"t": 1, "i": True}, "`i` is not a number"),
        ({"t": 1, "i": 1, "d": 10**7}, "the duration is over a week"),
        ([1], "not a JSON object"),
        ('{"ts": 1', "not JSON"),
        ("[", "not JSON by itself: a document over several lines needs a map with `format: json`"),
    ],
)
def test_a_row_that_is_no_request_is_bad(tmp_path, policies, row, reason):
    text = TIME + "facts: {}\nusage: {input_tokens: {column: i}}\nduration: {column: d}"
    requests, bad = mapped(tmp_path, policies, text, {"t": 1, "i": 1}, row)

    assert len(requests) == 1
    assert bad.first == [(str(tmp_path / "log"), 2, reason)]


CSV = TIME + "format: csv\nfacts: {account.id: {column: who}}\n"


def test_a_csv_is_read_by_its_header(tmp_path, policies):
    rows = ("who,t", 'a1,1\n"a, 2",2', "", '"a\n3",4')
    requests, bad = mapped(tmp_path, policies, CSV, *rows)

    assert [(line, ts, request.facts) for line, ts, request in requests] == [
        (2, 1.0, {"account.id": "a1"}),
        (3, 2.0, {"account.id": "a, 2"}),
        (6, 4.0, {"account.id": "a\n3"}),
    ]
    assert bad.count == 0


def test_a_csv_may_have_another_delimiter_and_be_packed(tmp_path, policies):
    (tmp_path / "map.yaml").write_text("guardrail_map: 1\ndelimiter: ';'\n" + CSV)
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"\xef\xbb\xbft;who\r\n1;a1\r\n"))
    mapping = load_map(str(tmp_path / "map.yaml"), policies)
    with LineSource(str(tmp_path / "log.gz")) as source:
        [(_, ts, request)] = recorded_requests(source, BadLines(), mapping)

    assert (ts, request.facts) == (1.0, {"account.id": "a1"})


def test_rows_of_a_csv_that_do_not_fit_are_bad(tmp_path, policies):
    rows = ("who,t", "a1", "a2,2,3", "a3,x", "a4,4", '"' + "x" * 200_000)
    requests, bad = mapped(tmp_path, policies, CSV, *rows)

    assert [request.facts["account.id"] for _, _, request in requests] == ["a4"]
    assert [reason for _, _, reason in bad.first] == [
        "1 cells under a header of 2",
        "3 cells under a header of 2",
        "`t` is not a number",
        "not CSV",
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("who,time", "has no column `t` that the map names; it has `who`, `time`"),
        ("who,t,who", "has two columns named `who`"),
    ],
)
def test_a_csv_must_have_the_columns_of_the_map_once(tmp_path, policies, header, message):
    with pytest.raises(DataError, match=message):
        mapped(tmp_path, policies, CSV, header, "a,1")


def test_columns_that_never_had_a_value_are_known(tmp_path, policies):
    (tmp_path / "map.yaml").write_text(
        f"guardrail_map: 1\n{TIME}"
        "facts: {account.id: {column: who}, geo.country: {column: c}}"
    )
    mapping = load_map(str(tmp_path / "map.yaml"), policies)
    (tmp_path / "log").write_text('{"t":1}\n{"t":2,"c":"DE"}\n')
    with LineSource(str(tmp_path / "log")) as source:
        list(recorded_requests(source, BadLines(), mapping))

    assert mapping.notes.unseen == {"who"}
