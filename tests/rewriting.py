"""Rewrites the tests' assertions before any worker does: each would do so for all of them."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.abc import Loader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


def rewrite_ahead(config: pytest.Config, processes: int) -> None:
    """Have so many processes rewrite and compile what is asked for; what they did before is kept.

    The workers of one run start to collect at the same time, so that in a fresh checkout none of
    them finds what another has compiled.
    """
    hook = config.pluginmanager.rewrite_hook
    if sys.dont_write_bytecode or not isinstance(hook, Loader):
        return
    files = sorted(_files(config))
    started = []
    for part in range(processes):
        child = os.fork()
        if not child:
            try:
                for file in files[part::processes]:
                    _rewrite(file, hook)
            finally:
                os._exit(0)
        started.append(child)
    for child in started:
        os.waitpid(child, 0)


def _files(config: pytest.Config) -> set[Path]:
    """Return the files with the tests that a run is asked for."""
    found: set[Path] = set()
    for asked in config.args:
        path = (config.invocation_params.dir / asked.partition("::")[0]).resolve()
        found.update(path.rglob("test_*.py") if path.is_dir() else [path])
    return found


def _rewrite(file: Path, hook: Loader) -> None:
    """Have pytest compile a file as if it were imported, with nothing built in: it ends at once."""
    spec = spec_from_file_location(file.stem, file, loader=hook)
    if spec is not None:
        module = module_from_spec(spec)
        module.__dict__["__builtins__"] = {}
        # What is wrong with it, its import tells.
        with contextlib.suppress(Exception):
            hook.exec_module(module)
