"""How the documentation site is built: `make docs`; a warning, a broken link say, is an error."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from guardrail import __version__

ROOT = Path(__file__).parents[2]

project = "guardrail"
author = copyright = "The guardrail authors"
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("docs/*.md", "examples/*.md", "guardrail/data/*.md", "benchmarks/*.md"),
]
html_theme = "furo"
html_title = f"guardrail {release}"
html_show_sourcelink = html_copy_source = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]

_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)\)")


def setup(app: Sphinx) -> None:
    """Show a link to a folder, which a site has no page for, as the folder's name."""
    app.connect("source-read", _without_folders)


def _without_folders(app: Sphinx, name: str, source: list[str]) -> None:
    here = (ROOT / name).parent

    def shown(found: re.Match[str]) -> str:
        return f"`{found[2]}`" if (here / found[2]).is_dir() else found[0]

    source[0] = _LINK.sub(shown, source[0])
    if name == root_doc:
        # A document that no section names stands among the reference, and is not lost.
        named = set(source[0].split())
        others = sorted(path.stem for path in here.glob("*.md") if path.stem not in named)
        listed = "\n".join(stem for stem in others if stem != "index")
        source[0] = source[0].replace("\nothers\n", f"\n{listed}\n")
