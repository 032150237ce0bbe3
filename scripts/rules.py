"""Writes docs/rules.md from the pages of `guardrail rule`: `python -m scripts.rules --write`."""

from __future__ import annotations

import sys
from pathlib import Path

from guardrail.cli.pages import document

PATH = Path(__file__).resolve().parents[1] / "docs" / "rules.md"


def main(arguments: list[str]) -> int:
    """Write the document, or tell whether it is up to date; return the exit code."""
    if arguments == ["--write"]:
        PATH.write_text(document(), "utf-8")
        return 0
    same = PATH.exists() and PATH.read_text("utf-8") == document()
    print("up to date" if same else "docs/rules.md is not: python -m scripts.rules --write")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
