"""Where settings stand besides arguments: in a named file, or in `pyproject.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from guardrail.errors import Diagnostic, SettingError
from guardrail.loading import MapNode, plain, read_yaml

CONFIG = "GUARDRAIL_CONFIG"
PROJECT = "pyproject.toml"


class SettingsFile(NamedTuple):
    """What a file says, and where it is; no path, where there is no file."""

    values: Mapping[str, object]
    path: Path | None


def settings_file(
    named: str | Path | None, environ: Mapping[str, str], folder: Path
) -> SettingsFile:
    """Return the settings of the file that is named, by an argument or by `GUARDRAIL_CONFIG`.

    Where none is, the table `[tool.guardrail]` of the nearest `pyproject.toml`, from `folder`
    upwards, holds them.

    Raises:
        SettingError: the file cannot be read, or is not what its name says.
    """
    path = named or environ.get(CONFIG)
    if path:
        return SettingsFile(_read(Path(path), CONFIG if not named else "config"), Path(path))
    for parent in (folder, *folder.parents):
        project = parent / PROJECT
        if project.is_file():
            table = _tool_table(_toml(project))
            return SettingsFile(table or {}, project if table is not None else None)
    return SettingsFile({}, None)


def _read(path: Path, named_by: str) -> Mapping[str, object]:
    if path.suffix in (".yaml", ".yml"):
        return _yaml(path, named_by)
    if path.suffix != ".toml":
        raise SettingError(f"`{named_by}` names `{path}`: give a file that ends in .toml or .yaml")
    document = _toml(path, named_by)
    table = _tool_table(document)
    return document if table is None else table


def _text(path: Path, named_by: str) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as problem:
        reason = problem.strerror or "it is not readable"
        raise SettingError(f"`{named_by}` names `{path}`: {reason.lower()}") from problem
    except UnicodeDecodeError as problem:
        raise SettingError(f"`{path}` is not text in UTF-8") from problem


def _toml(path: Path, named_by: str = PROJECT) -> dict[str, object]:
    try:
        return tomllib.loads(_text(path, named_by))
    except tomllib.TOMLDecodeError as problem:
        raise SettingError(f"`{path}` is not TOML: {problem}") from problem


def _tool_table(document: Mapping[str, object]) -> Mapping[str, object] | None:
    tools = document.get("tool")
    table = tools.get("guardrail") if isinstance(tools, dict) else None
    return table if isinstance(table, dict) else None


def _yaml(path: Path, named_by: str) -> Mapping[str, object]:
    findings: list[Diagnostic] = []
    node = read_yaml(_text(path, named_by), str(path), findings)
    if findings:
        first = findings[0]
        raise SettingError(f"{first.span}: {first.message}")
    if not isinstance(node, MapNode):
        raise SettingError(f"`{path}` holds no settings: write `policies: policies/`")
    values = _without_decimals(plain(node))
    assert isinstance(values, dict)
    return values


def _without_decimals(value: object) -> object:
    """Policies keep decimals exact; settings count seconds."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _without_decimals(inner) for key, inner in value.items()}
    return [_without_decimals(inner) for inner in value] if isinstance(value, list) else value
