"""Policy files in a folder of their own, and which of them are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardrail.errors import Diagnostic
from guardrail.loading.files import PolicyFile, policy_files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    """Write files that hold their own names."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n", "utf-8")


def found(*paths: str) -> list[PolicyFile]:
    """Return the files under some paths, with which nothing must be wrong."""
    findings: list[Diagnostic] = []
    files = policy_files([Path(path) for path in paths], findings)
    assert findings == []
    return files
