r"""Prints how a directory file names credentials: one a line on standard input.

The hash key is the one the server has: `GUARDRAIL_HASH_KEY`, or `GUARDRAIL_HASH_KEY_FILE`::

    printf '%s\n' "$KEY" | python -m guardrail.http.identity
"""

from __future__ import annotations

import os
import sys

from guardrail.errors import SettingError
from guardrail.http.identity.directory_file import written
from guardrail.signals.directory import TRIMMED
from guardrail.stores.naming import KEY, KEY_FILE, MAKE_ONE, hash_keys


def main() -> int:
    """Read credentials and print their names; return the process's exit code."""
    try:
        keys = hash_keys(None, os.environ)
    except SettingError as problem:
        print(problem, file=sys.stderr)
        return 2
    if not keys:
        print(f"no hash key: set `{KEY}` or `{KEY_FILE}`; {MAKE_ONE}", file=sys.stderr)
        return 2
    for line in sys.stdin.buffer:
        if line.strip(TRIMMED):
            print(written(line, keys[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
