"""Which files make up a policy set, and how their bytes become text."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guardrail.errors import Diagnostic, finding
from guardrail.loading.suggest import suggestion
from guardrail.loading.text import Source, quoted, visible
from guardrail.loading.yaml import MAX_BYTES, too_large

_SUFFIXES: Final = (".yaml", ".yml")
_TEST_SUFFIXES: Final = ("_test.yaml", "_test.yml")
# What editors and systems keep beside a file: `.x.yaml.swp`, `._x.yaml`, `#x.yaml`, `~$x.yaml`.
# Kubernetes mounts files as links through `..data`, which is hidden as well.
_LEFTOVERS: Final = (".", "#", "~")
_NEARLY: Final = re.compile(r"(.+?)\.(?:ya?ml|ymal|ylm)(?:[.~_-].*)?", re.IGNORECASE | re.DOTALL)
_JSON: Final = re.compile(r"(.+)\.json", re.IGNORECASE | re.DOTALL)
_BYTE_ORDER_MARK: Final = "\ufeff"
_WHITE_SPACE: Final = str.maketrans("\t\n\r", "\u2409\u240a\u240d")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """One file of a policy set.

    `name` is the path as the caller's paths lead to it, for findings; `relative` is the path
    below the folder that was given, by which files are ordered; both with slashes. `path` opens
    it. `data` is what it holds, `text` the same without a byte order mark. `is_test` tells a
    `*_test.yaml`, which holds tests and fixtures only, and `is_aside` a file of expectations, which
    is no part of the set that a server loads.
    """

    name: str
    relative: str
    path: Path
    data: bytes
    text: str
    is_test: bool
    is_aside: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    relative: Path
    path: Path

    @property
    def order(self) -> tuple[bytes, int, bytes]:
        name = os.fsencode(self.path.as_posix())
        return os.fsencode(self.relative.as_posix()), len(name), name


def policy_files(paths: Sequence[Path], findings: list[Diagnostic]) -> list[PolicyFile]:
    """Return the policy and test files under some files and folders, by relative path, bytewise.

    Folders are searched to their depth for `*.yaml` and `*.yml` that are not hidden; links are
    followed, and a file or folder that is reached twice counts once. What cannot be read is left
    out and appended to `findings` as GR100, and so is a path under which there is nothing.
    """
    found = [one for path in paths for one in _under(path, findings)]
    known: set[str] = set()
    files: list[PolicyFile] = []
    for one in sorted(found, key=lambda one: one.order):
        real = os.path.realpath(one.path)
        if real in known:
            continue
        known.add(real)
        name = _name(one.path)
        data = _data(one.path, name, findings)
        text = None if data is None else _text(data, name, findings)
        if data is not None and text is not None:
            files.append(
                PolicyFile(
                    name=name,
                    relative=_name(one.relative),
                    path=one.path,
                    data=data,
                    text=text,
                    is_test=name.endswith(_TEST_SUFFIXES),
                )
            )
    if found and all(one.path.name.endswith(_TEST_SUFFIXES) for one in found):
        message = "there are only tests here, and no policy for them to test"
        _report(findings, _name(paths[0]), message, "name the policy's folder as well")
    return files


def kept_out(paths: Sequence[Path]) -> list[Diagnostic]:
    """Return a warning for each file under some folders that its ending keeps out of the set.

    Such are `api.YAML`, `api.yaml.bak` and a JSON file that states a version of the language.
    """
    found: dict[str, Diagnostic] = {}
    for folder in paths:
        if folder.is_dir():
            for path in _every_file(folder, []):
                diagnostic = _kept_out(path)
                if diagnostic is not None:
                    found.setdefault(os.path.realpath(path), diagnostic)
    return list(found.values())


def _kept_out(path: Path) -> Diagnostic | None:
    name = path.name
    if name.endswith(_SUFFIXES):
        return None
    spelt = _NEARLY.fullmatch(name) or _JSON.fullmatch(name)
    if spelt is None or (spelt.re is _JSON and not _states_version(path)):
        return None
    message = f"the ending of {quoted(name)} keeps this file out of the set"
    help = f"name it {quoted(f'{spelt[1]}.yaml')} if it is meant, or move it out of the folder"
    at = Source(_name(path), "").span(1, 1)
    return finding("GR228", message, at, help)


def _states_version(path: Path) -> bool:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and bool(
                re.match(rb'\s*\{\s*"guardrail"', file.read(200))
            )
    except OSError:
        return False


def read_text(path: Path, name: str, findings: list[Diagnostic]) -> str | None:
    """Return the text of one file of at most 1 MiB, None if it cannot be read as that.

    `name` is what the findings call the file. A byte order mark is left out.
    """
    data = _data(path, name, findings)
    return None if data is None else _text(data, name, findings)


def _under(path: Path, findings: list[Diagnostic]) -> list[_Found]:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        _missing(path, error, findings)
        return []
    if not stat.S_ISDIR(mode):
        return [_Found(Path(path.name), path)]
    # A folder that cannot be listed is reported for that, not for being empty.
    before = len(findings)
    found = list(_walk(path, findings))
    if not found and len(findings) == before:
        message = "there is no policy file in this folder"
        advice = "policy files end in `.yaml` or `.yml`; `guardrail init` writes a first one"
        _report(findings, _name(path), message, advice)
    return found


def _walk(folder: Path, findings: list[Diagnostic]) -> Iterator[_Found]:
    for path in _every_file(folder, findings):
        if path.name.endswith(_SUFFIXES):
            yield _Found(path.relative_to(folder), path)


def _every_file(folder: Path, findings: list[Diagnostic]) -> Iterator[Path]:
    """Yield what is in a folder and its folders, but for what is hidden."""
    waiting = [folder]
    entered: set[str] = set()
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in entered:
            continue
        entered.add(real)
        try:
            names = sorted(os.listdir(current), key=os.fsencode)
        except OSError as error:
            _refused(error, _name(current), findings)
            continue
        for name in names:
            path = current / name
            if name.startswith(_LEFTOVERS):
                continue
            if path.is_dir():
                waiting.append(path)
            else:
                yield path


def _data(path: Path, name: str, findings: list[Diagnostic]) -> bytes | None:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                _report(findings, name, "this is not a regular file", "name a file or a folder")
                return None
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        _refused(error, name, findings)
        return None
    if len(data) > MAX_BYTES:
        findings.append(too_large(Source(name, "")))
        return None
    return data


def _without_waiting(path: str, flags: int) -> int:
    # A named pipe would keep us waiting for its writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _text(data: bytes, name: str, findings: list[Diagnostic]) -> str | None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        message = "the file is not UTF-8 text; it looks like UTF-16 or UTF-32"
        _report(findings, name, message, "save it as UTF-8")
    elif b"\0" in data:
        message = "the file is not text: it holds zero bytes"
        _report(findings, name, message, "name a text file, saved as UTF-8")
    else:
        try:
            return data.decode().removeprefix(_BYTE_ORDER_MARK)
        except UnicodeDecodeError as error:
            findings.append(_not_utf8(data, error.start, name))
    return None


def _not_utf8(data: bytes, index: int, name: str) -> Diagnostic:
    source = Source(name, data.decode(errors="replace").removeprefix(_BYTE_ORDER_MARK))
    before = data[:index].decode().removeprefix(_BYTE_ORDER_MARK)
    return source.error(
        "GR100",
        f"the byte 0x{data[index]:02x} here is not UTF-8",
        source.span(*source.place(len(before))),
        help="save the file as UTF-8",
    )


def _missing(path: Path, error: OSError | ValueError, findings: list[Diagnostic]) -> None:
    if not isinstance(error, FileNotFoundError) or path.is_symlink():
        _refused(error, _name(path), findings)
        return
    try:
        beside = os.listdir(path.parent)
    except OSError:
        beside = []
    advice = suggestion(path.name, beside, "check the path")
    _report(findings, _name(path), "there is no such file or folder", advice)


def _refused(error: OSError | ValueError, name: str, findings: list[Diagnostic]) -> None:
    if isinstance(error, FileNotFoundError):
        message, advice = "the link leads to a file that is not there", "mend or remove the link"
    elif isinstance(error, PermissionError):
        message, advice = "this may not be read", "let the user who runs guardrail read it"
    else:
        reason = error.strerror if isinstance(error, OSError) else None
        message = f"this cannot be read: {(reason or str(error)).lower()}"
        advice = "check the path and the disk it is on"
    _report(findings, name, message, advice)


def _report(findings: list[Diagnostic], name: str, message: str, advice: str | None) -> None:
    source = Source(name, "")
    findings.append(source.error("GR100", message, source.span(1, 1), help=advice))


def _name(path: Path) -> str:
    name = os.fsencode(path.as_posix()).decode(errors="replace")
    return visible(name).translate(_WHITE_SPACE)
