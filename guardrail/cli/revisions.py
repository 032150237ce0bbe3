"""Policies as a git revision has them: `main:policies/` is the folder `policies` of `main`."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from guardrail.cli.loading import load
from guardrail.errors import Diagnostic, PolicyError, SettingError, Span
from guardrail.model.policy import PolicySet

_PATIENCE = 60
"""How many seconds git may take."""


def load_version(name: str, *, expected: Sequence[str] = ()) -> PolicySet:
    """Return the policy set under a path, or in a git revision if that is what the name says.

    `expected` are more expectations of traffic, in files or written out.

    Raises:
        SettingError: there is no such path, git is not there, or it knows no such revision.
        NothingToCheckError: there is no policy file there.
        PolicyError: the files cannot be loaded.
    """
    revision, colon, path = name.partition(":")
    if Path(name).exists() or not colon or not revision:
        return load([name], expected=expected)
    archive = _archive(name, revision, path or ".")
    with tempfile.TemporaryDirectory(prefix="guardrail-diff-") as folder:
        _unpack(archive, Path(folder))
        inside = Path(folder, path)
        if not inside.exists():
            raise SettingError(f"`{name}`: there is nothing at `{path}` in `{revision}`")
        prefix = f"{PurePosixPath(folder).as_posix()}/"
        try:
            policies = load([str(inside)], expected=expected)
        except PolicyError:
            # The file of a list may stand anywhere in the repository.
            _unpack(_archive(name, revision, "."), Path(folder))
            try:
                policies = load([str(inside)], expected=expected)
            except PolicyError as error:
                told = [_told(one, prefix, f"{revision}:") for one in error.diagnostics]
                raise PolicyError(told) from None
        return _renamed(policies, prefix, f"{revision}:")


def _archive(name: str, revision: str, path: str) -> bytes:
    """Return what a path of a revision holds, as a tar archive."""
    if revision.startswith("-"):
        raise SettingError(f"`{name}`: a revision does not start with `-`")
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise SettingError(f"`{name}`: write the path as it is in the repository, from its top")
    top = _git(name, "rev-parse", "--show-toplevel").decode(errors="replace").strip()
    commit = _git(name, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", cwd=top)
    asked = ("--", path) if path != "." else ()
    return _git(name, "archive", "--format=tar", commit.decode().strip(), *asked, cwd=top)


def _git(name: str, *arguments: str, cwd: str | None = None) -> bytes:
    try:
        done = subprocess.run(
            ("git", *arguments), cwd=cwd, capture_output=True, timeout=_PATIENCE, check=False
        )
    except FileNotFoundError:
        message = f"`{name}` is no path, and git is not installed to look for a revision"
        raise SettingError(message) from None
    except subprocess.TimeoutExpired:
        raise SettingError(f"`{name}`: git did not answer within {_PATIENCE} s") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if arguments[:2] == ("rev-parse", "--show-toplevel"):
        raise SettingError(
            f"there is no `{name}`, and no git repository here that it could be a revision of"
        )
    if arguments[0] == "rev-parse":
        revision = name.partition(":")[0]
        raise SettingError(
            f"`{name}` is no path, and git knows no revision `{revision}`: "
            "write a path, or REVISION:PATH such as `main:policies/`"
        )
    raise SettingError(f"`{name}`: git says: {said[-1] if said else 'nothing'}")


def _unpack(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        for member in packed:
            parts = PurePosixPath(member.name).parts
            content = packed.extractfile(member) if member.isfile() else None
            if content is None or ".." in parts or member.name.startswith("/"):
                continue
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())


def _told(found: Diagnostic, prefix: str, revision: str) -> Diagnostic:
    help = None if found.help is None else found.help.replace(prefix, revision)
    return replace(found, span=_moved(found.span, prefix, revision), help=help)


def _moved(span: Span, prefix: str, revision: str) -> Span:
    file = span.file
    return replace(span, file=revision + file.removeprefix(prefix))


def _renamed(policies: PolicySet, prefix: str, revision: str) -> PolicySet:
    """Return policies whose places are named as they are in the revision."""

    def at(span: Span) -> Span:
        return _moved(span, prefix, revision)

    return replace(
        policies,
        rules=tuple(replace(rule, span=at(rule.span)) for rule in policies.rules),
        exemptions=tuple(replace(one, span=at(one.span)) for one in policies.exemptions),
        warnings=tuple(replace(one, span=at(one.span)) for one in policies.warnings),
        ignores=tuple(replace(one, span=at(one.span)) for one in policies.ignores),
        thresholds=tuple(replace(one, span=at(one.span)) for one in policies.thresholds),
    )
