"""Settings as they were given: by arguments, the environment or a file; each typed on demand.

A setting knows where it stands: a file is a named one, or `pyproject.toml`. `Options` has the
arguments with their types: what editors offer, and type checkers hold.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar

from guardrail.decisionlog import DecisionSink
from guardrail.errors import Diagnostic, SettingError
from guardrail.guard import AsyncGuard, Guard
from guardrail.http.identity import CredentialSource
from guardrail.http.identity.caller import Identify
from guardrail.http.parsing import Classifier
from guardrail.loading import MapNode, nearest, plain, read_yaml
from guardrail.signals import Proxies, Signal
from guardrail.signals.directory import Directory
from guardrail.stores import AsyncStore, Store

T = TypeVar("T")

_MAY_HOLD_SECRETS = frozenset({"directory", "store"})
"""Settings whose values no message shows: addresses in them may carry passwords."""


class Given:
    """Settings from arguments and a file, arguments first.

    Paths in a file are relative to its folder, those in arguments to the working directory.
    """

    def __init__(
        self, arguments: Mapping[str, object], file: Mapping[str, object], path: Path | None
    ) -> None:
        where = f"`{path}`" if path else "the configuration"
        check_names(file, NAMES, where)
        self._arguments = arguments
        self._file = file
        self._where = where
        self._folder = path.parent if path else Path()

    def __contains__(self, name: str) -> bool:
        return name in self._arguments or name in self._file

    def raw(self, name: str) -> object:
        """Return a setting as it was given, None if it was not."""
        return self._arguments[name] if name in self._arguments else self._file.get(name)

    def place(self, name: str) -> str:
        """Return what to call a setting in a message."""
        return f"`{name}`" if name in self._arguments else f"`{name}` in {self._where}"

    def refuse(self, name: str, instead: str) -> SettingError:
        """Return the error about a setting that is not usable; `instead` says what would be."""
        if name in _MAY_HOLD_SECRETS:
            return SettingError(f"{self.place(name)} is not usable: {instead}")
        return SettingError(f"{self.place(name)} is `{self.raw(name)!s}`: {instead}")

    def _held(self, name: str, default: T, holds: Callable[[Any], bool], instead: str) -> T:
        value: Any = self.raw(name)
        if value is not None and not holds(value):
            raise self.refuse(name, instead)
        held: T = default if value is None else value
        return held

    def flag(self, name: str, default: bool) -> bool:
        """Return a setting that is true or false."""
        return self._held(name, default, lambda it: isinstance(it, bool), "give true or false")

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a setting that is text."""
        return self._held(name, default, lambda it: isinstance(it, str) and it != "", "give a text")

    def one_of(self, name: str, choices: Iterable[str], default: str) -> str:
        """Return a setting that is one of some words."""
        value = self.raw(name)
        if value is None:
            return default
        known = tuple(choices)
        if value not in known:
            near = nearest(value, known) if isinstance(value, str) else None
            meant = f"did you mean `{near}`?" if near else f"it can be {_listed(known)}"
            raise self.refuse(name, meant)
        return str(value)

    def whole(self, name: str, default: int, least: int = 1) -> int:
        """Return a setting that is a whole number, at least `least`."""

        def holds(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and value >= least

        return self._held(name, default, holds, f"give a whole number from {least}")

    def seconds(self, name: str, default: float, *, zero: bool = False) -> float:
        """Return a setting that is a span of time in seconds."""

        def holds(value: Any) -> bool:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return number and math.isfinite(value) and (value > 0 or (value == 0 and zero))

        instead = f"give seconds, {'from' if zero else 'above'} 0"
        return float(self._held(name, default, holds, instead))

    def part(self, name: str) -> Fraction | None:
        """Return a setting that is one part of a whole, such as `1/4`, None if it was not given."""
        value = self.raw(name)
        if value is None or isinstance(value, bool):
            return None
        try:
            found = Fraction(value) if isinstance(value, (str, int, Fraction)) else None
        except (ValueError, ZeroDivisionError):
            found = None
        if found is None or found.numerator != 1:
            raise self.refuse(name, "give one part of a whole, such as `1/4`")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a setting that is a list of texts; one text alone is a list of one."""
        value = self.raw(name)
        if value is None:
            return ()
        if isinstance(value, (str, Path)):
            value = [value]
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.refuse(name, "give a list of texts")
        found = [str(part) if isinstance(part, Path) else part for part in value]
        if not all(isinstance(part, str) and part for part in found):
            raise self.refuse(name, "give a list of texts")
        return tuple(found)

    def paths(self, name: str) -> tuple[Path, ...]:
        """Return a setting that names files or folders."""
        folder = Path() if name in self._arguments else self._folder
        return tuple(folder / text for text in self.texts(name))

    def table(self, name: str, known: Iterable[str]) -> dict[str, object]:
        """Return a setting that is a map with some known keys."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.refuse(name, f"give a map with {_listed(known)}")
        check_names(value, known, self.place(name))
        return dict(value)


def check_names(given: Mapping[str, object], known: Iterable[str], where: str) -> None:
    """Refuse a name that is not known.

    Raises:
        SettingError: there is one; the message says which was probably meant.
    """
    names = tuple(known)
    for name in given:
        if name not in names:
            near = nearest(str(name), names)
            meant = f"did you mean `{near}`?" if near else f"it can hold {_listed(names)}"
            raise SettingError(f"`{name}` means nothing in {where}: {meant}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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


class Options(TypedDict, total=False):
    """Every setting of a door, by the name that it has as an argument; None leaves one out.

    Those that a file can hold have the same names there (`guardrail.http.settings.read.NAMES`).
    """

    blocked_by: str | None
    body_timeout: float | None
    classifiers: Sequence[Classifier] | None
    clock: Callable[[], float] | None
    config: str | Path | None
    cors_origins: str | Sequence[str] | None
    credentials: str | Sequence[str] | CredentialSource | None
    decision_log: str | Path | None
    decision_sink: DecisionSink | None
    dialect: str | None
    directory: str | Path | Directory | Mapping[str, object] | Callable[..., Any] | None
    environ: Mapping[str, str] | None
    exempt: str | Sequence[str] | None
    geo: str | Path | None
    guard: Guard | AsyncGuard | None
    hash_key: str | bytes | Sequence[bytes] | None
    hash_key_file: str | Path | Sequence[str | Path] | None
    identify: str | Identify | None
    jitter: Callable[[], float] | None
    local_share: str | Fraction | None
    max_body: int | None
    max_delay: float | None
    max_held: int | None
    max_unknown_body: int | None
    metrics: str | None
    metrics_dir: str | Path | None
    namespace: str | None
    partition_keys: bool | None
    policies: str | Path | Sequence[str | Path] | None
    proxies: str | Sequence[str] | Proxies | Mapping[str, object] | None
    ratelimit_fields: str | None
    record: str | Path | None
    record_share: str | Fraction | None
    reload: float | None
    remedies: Mapping[str, str] | None
    reset_spread: float | None
    signals: Sequence[Signal] | None
    store: str | Store | AsyncStore | None
    stream_usage: bool | None
    threads: int | None
    unreadable: str | None
    vendor_headers: bool | None


_ARGUMENTS_ALONE = frozenset(
    "classifiers clock config decision_sink environ guard hash_key jitter signals".split()
)
NAMES = tuple(name for name in Options.__annotations__ if name not in _ARGUMENTS_ALONE)
"""The settings that a file may hold; arguments have the same names, and more."""
