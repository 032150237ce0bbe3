"""Tables keep within the width there is, and break no word that has room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardrail.cli.figures import columns, stacked
from guardrail.cli.inert import width, wrapped

ROOT = Path(__file__).resolve().parents[2]
RIGHT = (False, True, True, True, True, True, True)
ROWS = [
    ("shock", "accounts", "asked", "denied", "refused", "asked ID", "blocked"),
    ("permitted distillation", "1", "11,120", "0.00%", "0", "0", "0"),
    ("enterprise onboarding", "1,007", "1,036", "100.00%", "1", "1", "0"),
]


@pytest.mark.parametrize("cells", [50, 60, 70, 77, 78, 120])
def test_a_table_without_room_goes_on_beneath_itself(cells):
    lines = stacked(ROWS, RIGHT, cells)
    words = " ".join(lines).split()

    assert max(map(width, lines)) <= cells
    assert sorted(set(words)) == sorted(
        {word for row in ROWS for cell in row for word in cell.split()}
    )
    parts = "\n".join(lines).split("\n\n")
    assert len(parts) == (1 if cells >= 77 else 2)
    for part in parts:
        assert [line.split("  ")[0] for line in part.splitlines()] == [row[0] for row in ROWS]


@pytest.mark.parametrize("cells", range(44, 80))
def test_texts_break_between_words_while_there_is_room(cells):
    rows = [
        ("taken through", "paid", "as one", "served", "refused most by"),
        ("new, no ID", "< $20", "2–3", "335", "linked-newcomers-together"),
        ("new, new ID", "$100+", "1", "100", "identity-while-new"),
    ]
    lines = columns(rows, (False, False, False, True, False), cells=cells)
    whole = {part for row in rows for cell in row for part in re.split("[ -]", cell)}

    assert max(map(width, lines)) <= cells
    assert {part for line in lines for part in re.split("[ -]", line)} <= whole | {""}


@pytest.mark.parametrize("cells", range(10, 30))
def test_a_name_is_broken_behind_its_hyphens(cells):
    lines = wrapped("linked-newcomers-together", cells)

    assert "".join(lines) == "linked-newcomers-together"
    assert all(line.endswith("-") for line in lines[:-1])


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_bounds_and_pages_keep_within_the_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    bound = run("bound", str(ROOT / "examples" / "bounded.yaml"))
    page = run("rule", "GR303").out.split("\n\n")[-1]

    for text in (bound.out, page):
        assert max(map(width, text.splitlines())) <= int(columns)
