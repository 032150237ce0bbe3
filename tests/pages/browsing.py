"""A real browser for tests of pages: the one that is installed, or the one `make test` unpacked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from scripts.browser import PROGRAM

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def program() -> tuple[str, str] | None:
    """Return the browser's program and where its libraries are; None if there is no browser."""
    own = Path(sys.prefix) / "browser"
    if (own / PROGRAM).exists():
        folders = {path.parent for path in (own / "usr/lib").rglob("*.so*")}
        return str(own / PROGRAM), os.pathsep.join(sorted(map(str, folders)))
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return None if found is None else (found, "")


@contextmanager
def browser() -> Iterator[Browser]:
    """Open a browser, or skip the test that asks for one."""
    found = program()
    if found is None:
        pytest.skip("no Chromium here: `make test` unpacks one where there is apt")
    path, libraries = found
    environment: dict[str, str | float | bool] = {
        **os.environ,
        **({"LD_LIBRARY_PATH": libraries} if libraries else {}),
    }
    # What the browser leaves behind goes with this folder.
    with TemporaryDirectory() as scratch, sync_playwright() as driver:
        environment["TMPDIR"] = scratch
        try:
            opened = driver.chromium.launch(
                executable_path=path, args=SWITCHES, env=environment, timeout=60_000
            )
        except Error as error:
            pytest.skip(f"the browser does not start: {str(error).splitlines()[0]}")
        yield opened
        opened.close()
