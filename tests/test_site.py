"""The documentation site: every page is in it, and no link in it leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.reference import pages

ROOT = Path(__file__).parent.parent


def built(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout, its warnings errors, as `make docs` does."""
    program = [sys.executable, "-W", "ignore", "-m", "sphinx", "--quiet", "--fail-on-warning"]
    return subprocess.run(
        [*program, "--keep-going", "-c", "docs/site", ".", str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = built(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_document_is_a_page_that_others_lead_to(site):
    index = (site / "docs/index.html").read_text("utf-8")
    for document in sorted((ROOT / "docs").glob("*.md")):
        assert (site / f"docs/{document.stem}.html").exists()
        assert document.stem == "index" or f'href="{document.stem}.html"' in index


@pytest.mark.parametrize("name", ["commands.md", "facts.md"])
def test_reference_is_what_the_code_says(name):
    assert (ROOT / "docs" / name).read_text("utf-8") == pages()[name], (
        "python -m scripts.reference --write"
    )


def test_a_page_asks_the_network_for_nothing(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert re.findall(r'<(?:script|img|iframe)[^>]*src="https?:', text) == []
        assert re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="https?:', text) == []


def test_a_link_that_leads_nowhere_is_an_error(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "docs").mkdir()
    shutil.copytree(ROOT / "docs/site", checkout / "docs/site")
    (checkout / "docs/index.md").write_text(
        "# a\n\n[one](gone.md) [two](#gone) [three](other.md#gone)\n\n```{toctree}\nother\n```\n"
    )
    (checkout / "docs/other.md").write_text("# b\n\n[back](index.md#a)\n")
    done = built(checkout, tmp_path / "out")

    assert done.returncode != 0
    assert done.stderr.count("WARNING") == 3, done.stderr
