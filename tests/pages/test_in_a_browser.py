"""Pages in a real browser: light and dark, narrow, by keyboard, for a screen reader, on paper."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.replay.harm import Place
from guardrail.replay.report import (
    ReportFigures,
    changes_page,
    report_divisions,
    report_page,
)
from guardrail.replay.running import Replay
from guardrail.replay.tally import Tally
from guardrail.simulate.modes import plain
from guardrail.simulate.page import page as simulation_page
from guardrail.traffic.requests import FactValue, Request
from tests.pages.browsing import browser
from tests.simulate.worlds import CARDS, TRIAL, options, policies_of

AXE = Path(sys.prefix) / "editor/node_modules/axe-core/axe.min.js"
"""Judges pages by the rules of WCAG; from npm."""
START = 1772366400.0
EFFECTS = ("allow", "degrade", "throttle", "block")
HOSTILE = "<img src=x onerror=alert(1)>\"'&‮"
POLICY = """
guardrail: 1
policy: shop
facts: {account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}}
models: {large: {weaker: small}, small: {}}
rules:
  - id: embargo
    when: {geo.country: {in: [IR]}}
    block: {message: "<script>document.title='run'</script>"}
  - id: day
    when: {account.tier: {below: verified}}
    budget: {requests: 20, per: day, key: account.id}
    steps: [{at: 80%, degrade: {model: small}}, {at: 100%, throttle: {}}]
  - {id: pace, when: always, rate: {requests: 5/minute, key: account.id}, mode: shadow}
  - {id: roomy, when: always, budget: {tokens: 1G, per: month, key: account.id}}
"""


def figures(policy):
    """Return the figures of two days of traffic with hostile names in it."""
    policies = load_text(policy)
    told, tally = ReportFigures(), Tally(policies, report_divisions((), policies))
    lines = []
    for number in range(600):
        facts: dict[str, FactValue] = {
            "account.id": HOSTILE if number % 3 else f"a{number % 7}",
            "account.tier": "email" if number % 2 else HOSTILE,
            "geo.country": ("DE", "IR", "FR")[number % 11 % 3],
            "request.model": HOSTILE if number % 5 == 0 else "large",
        }
        ts = START + 288.0 * number
        lines.append((number, ts, Request(ts=ts, facts=facts)))
    guard = Guard.from_policies(policies, store="memory://")
    for line, ts, request, decision in Replay(guard).run(iter(lines)):
        tally.add(ts, request, decision, Place(ts, "week.jsonl", line))
        told.add(ts, request, decision)
    guard.close()
    tally.finish()
    return told.fields(tally, policies, lambda account: account)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The addresses of a report and of a page on a simulation."""
    folder = tmp_path_factory.mktemp("pages")
    told = figures(POLICY)
    told["findings"] = [HOSTILE]
    told["traffic"] = [HOSTILE]
    found = plain(policies_of(TRIAL + CARDS), options(accounts=60, shocks=True), 0)
    simulation = {
        "policy": HOSTILE,
        "revision": "sha256:0",
        "mode": "plain",
        "baseline": None,
        "seeds": [found],
    }
    before = figures(POLICY.replace("requests: 20", "requests: 40"))
    kind = {"before": "allow", "after": "throttle", "rule": HOSTILE, "requests": 9}
    changes = {
        "looser": [],
        "stricter": [{**kind, "accounts": 2, "first": START, "where": HOSTILE}],
        "matrix": {was: dict.fromkeys(EFFECTS, 1000) for was in EFFECTS},
        "otherwise": 0,
        "renamed": 0,
        "first_refused": [
            {"account": HOSTILE, "requests": 9, "refused": 2, "signs": [HOSTILE]}
            | {"first": START, "rule": HOSTILE}
        ],
        "no_longer": 0,
        "proved": {
            "looser": [{"rule": HOSTILE, "was": HOSTILE, "is": HOSTILE, "example": HOSTILE}],
            "stricter": [],
            "unjudged": [],
        },
    }
    texts = {
        "report": report_page(told),
        "changes": changes_page(changes, before, told),
        "simulation": simulation_page(simulation),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(params=["report", "changes", "simulation"])
def address(request, pages):
    return pages[request.param]


def opened(chromium, address, width=1100, scheme="light", bypass_csp=False):
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        offline=True,
        bypass_csp=bypass_csp,
    )
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.on("request", lambda asked: page.complaints.append(asked.url))
    page.goto(address)
    page.complaints = [text for text in page.complaints if text != address]
    return page


CONTRASTS = """() => {
  const light = value => {
    const [r, g, b] = value.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const page = light(getComputedStyle(document.body).backgroundColor);
  const of = (selector, name) => [...document.querySelectorAll(selector)]
    .map(found => ratio(light(getComputedStyle(found)[name]), page));
  return {
    text: Math.min(...of("p, li, td, th, caption, figcaption, summary, h1, h2, h3, a", "color"),
                   ...of("svg text", "fill")),
    strokes: Math.min(...of("svg .mark-line path", "stroke"),
                      ...of("svg .mark-rect + .mark-rect path", "fill")),
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_plots_stand_out(chromium, address, scheme):
    page = opened(chromium, address, scheme=scheme)
    found = page.evaluate(CONTRASTS)

    assert found["text"] >= 4.5
    assert found["strokes"] >= 3


def test_light_and_dark_differ(chromium, pages):
    colours = [
        opened(chromium, pages["report"], scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    ]

    assert colours[0] != colours[1]


def test_nothing_is_run_asked_for_or_complained_about(chromium, address):
    page = opened(chromium, address)

    assert page.complaints == []
    assert page.locator("img, script, iframe, link").count() == 0
    assert "run" not in page.title()
    assert r"onerror=alert(1)>" in page.locator("body").inner_text()
    assert "‮" not in page.content()


@pytest.mark.parametrize("width", [320, 480, 1400])
def test_no_width_scrolls_the_page_sideways(chromium, address, width):
    page = opened(chromium, address, width=width)

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_plot_has_a_name_a_description_and_a_table(chromium, address):
    page = opened(chromium, address)
    for plot in page.locator("figure").all():
        image = plot.locator("svg[role=img]")
        assert image.get_attribute("aria-label")
        assert image.locator("desc").text_content()
        assert plot.locator("table").count() == 1
        rows = plot.locator("tbody tr").count()
        assert plot.locator("tbody th[scope=row]").count() == rows >= 1
    assert page.locator("figure.bars").count() >= 2
    assert page.locator("svg:not([role=img])").count() == 0


def test_series_differ_in_more_than_colour(chromium, address):
    page = opened(chromium, address)
    for plot in page.locator("figure:not(.bars)").all():
        strokes = plot.locator(".mark-line path").evaluate_all(
            "lines => lines.map(line => getComputedStyle(line).strokeDasharray)"
        )
        assert len(set(strokes)) == len(strokes) >= 1


@pytest.mark.parametrize("name", ["report", "changes"])
def test_a_reader_without_a_mouse_reaches_every_part(chromium, pages, name):
    page = opened(chromium, pages[name])
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        told = page.evaluate(
            "() => { const at = document.activeElement; "
            "return [at.tagName, at.textContent.slice(0, 30)] }"
        )
        if told[0] == "BODY":
            break
        reached.append(told)
        if told[0] == "SUMMARY" and len([one for one in reached if one[0] == "SUMMARY"]) == 1:
            page.keyboard.press("Enter")
    tags = [tag for tag, _ in reached]

    assert reached[0] == ["A", "Skip to the figures"]
    assert tags.count("SUMMARY") == page.locator("summary").count()
    assert tags.count("SUMMARY") == page.locator("figure").count()
    assert tags.count("DIV") >= page.locator(".plot").count()
    assert page.locator("details[open]").count() == 1
    headings = page.locator("h1, h2, h3").evaluate_all(
        "every => every.map(one => Number(one.tagName[1]))"
    )
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))
    for link in page.locator("nav a").all():
        target = str(link.get_attribute("href"))
        assert page.locator(f"[id={target[1:]}]").count() == 1


BROKEN_WORDS = """() => [...document.querySelectorAll("thead th")].flatMap(head => {
  const text = head.textContent;
  return [...text.matchAll(/(?<!\\S)\\p{L}+(?!\\S)/gu)].filter(word => {
    const walker = document.createTreeWalker(head, NodeFilter.SHOW_TEXT);
    let node, start = word.index;
    while ((node = walker.nextNode()) && start >= node.length) start -= node.length;
    if (!node || start + word[0].length > node.length) return false;
    const range = document.createRange();
    range.setStart(node, start);
    range.setEnd(node, start + word[0].length);
    return range.getClientRects().length > 1;
  }).map(word => word[0]);
})"""


@pytest.mark.parametrize(("media", "width"), [("print", 672), ("screen", 320), ("screen", 1100)])
def test_no_word_of_a_heading_is_broken(chromium, address, media, width):
    page = opened(chromium, address, width=width)
    page.emulate_media(media=media)
    page.set_viewport_size({"width": width, "height": 900})

    assert [word for word in page.evaluate(BROKEN_WORDS) if word not in HOSTILE] == []


def test_a_page_prints(chromium, address):
    page = opened(chromium, address, scheme="dark")
    page.emulate_media(media="print")
    # As wide as what is printed on A4.
    page.set_viewport_size({"width": 672, "height": 900})

    assert page.evaluate("document.documentElement.scrollWidth") <= 672
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2


@pytest.mark.parametrize(("width", "scheme"), [(340, "light"), (1100, "dark")])
def test_a_page_keeps_the_rules_of_accessible_content(chromium, address, width, scheme):
    if not AXE.exists():
        pytest.skip("no axe-core here: `make test` installs it where there is npm")
    page = opened(chromium, address, width, scheme, bypass_csp=True)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run()")

    assert len(found["passes"]) > 30
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


def test_labels_of_axes_do_not_lie_on_each_other(chromium, address):
    page = opened(chromium, address)
    overlaps = page.evaluate("""() => [...document.querySelectorAll("svg[role=img]")].map(plot => {
      const boxes = [...plot.querySelectorAll("text")].map(text => text.getBoundingClientRect());
      return boxes.some((a, n) => boxes.some((b, m) => n < m && a.left < b.right
        && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
    })""")

    assert overlaps
    assert not any(overlaps)


def test_what_changed_is_read_before_anything_else(chromium, pages):
    page = opened(chromium, pages["changes"])
    headings = page.locator("h2").all_inner_texts()
    text = page.locator("section[aria-labelledby=rules]").inner_text()

    assert headings[1:3] == ["What became looser", "What became stricter"]
    assert "none" in page.locator("section[aria-labelledby=looser]").inner_text()
    assert re.search(r"day\s+\d+\s+\d+\s+\+\d+", text)
    assert "roomy" not in text
    assert page.locator("section[aria-labelledby=changed] .mark-rule.role-mark").count() == 2
