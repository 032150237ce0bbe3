"""A headless browser for the tests of pages, unpacked into a folder without root: where it can.

`python -m scripts.browser FOLDER` asks Debian's own packages for `chromium-headless-shell` and the
libraries that are not installed, and unpacks them under the folder. Where there is no apt, or no
network, it says so and ends well: the tests that need a browser are then skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "chromium-headless-shell"
PROGRAM = Path("usr/lib/chromium/chromium-headless-shell")
TIMEOUT = 240
"""How many seconds apt may take for each step."""


class NoBrowserError(Exception):
    """No browser can be had here; the message says why."""


def unpack(folder: Path) -> Path:
    """Unpack the browser under a folder, unless it is there, and return its program.

    Raises:
        NoBrowserError: the packages cannot be had.
    """
    program = folder / PROGRAM
    if program.exists():
        return program
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise NoBrowserError("no apt-get here")
    told = _told("apt-get", "--simulate", "--no-install-recommends", "install", PACKAGE)
    packages = re.findall(r"^Inst (\S+)", told, re.MULTILINE)
    if PACKAGE not in packages:
        raise NoBrowserError(f"`{PACKAGE}` is installed already, or not to be had")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _told("apt-get", "download", *packages, at=Path(scratch))
        for package in sorted(Path(scratch).glob("*.deb"), key=lambda path: path.name):
            _told("dpkg", "--extract", str(package), str(folder))
    return program


def _told(*command: str, at: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=at, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoBrowserError(f"`{command[0]}` took more than {TIMEOUT} s") from None
    if done.returncode:
        last = (done.stderr.strip() or "it failed").splitlines()[-1]
        raise NoBrowserError(f"`{' '.join(command[:2])}`: {last}")
    return done.stdout


def main() -> int:
    """Unpack the browser, or say why not; both end well."""
    try:
        print(unpack(Path(sys.argv[1])))
    except NoBrowserError as error:
        print(f"no browser for the tests of pages, which are skipped: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
