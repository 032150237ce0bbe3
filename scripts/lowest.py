"""Prints the lowest versions that the project says it works with, as constraints for pip.

`make test-lowest` installs these and runs the tests of what stands on them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

LOWEST = re.compile(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)")
NOT_BESIDE = frozenset({"all", "litellm"})
"""Extras that are tested elsewhere, or consist of the others."""


def constraints(requirements: Iterable[str]) -> Iterator[str]:
    """Yield each requirement as its lowest version.

    Raises:
        ValueError: one of them states no lowest version.
    """
    for requirement in requirements:
        found = LOWEST.match(requirement)
        if found is None:
            raise ValueError(f"`{requirement}` states no lowest version: write `>=`")
        yield f"{found[1]}=={found[2]}"


def main() -> int:
    """Print the constraints of `pyproject.toml` beside this folder."""
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = [line for name in sorted(extras.keys() - NOT_BESIDE) for line in extras[name]]
    print(*constraints([*project["dependencies"], *chosen]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
