"""Programs that tests run in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def ran(program: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a program with some arguments to its end, within so many seconds, and check its code.

    Warnings of forks among threads are left out of what it says.
    """
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=timeout,
    )
