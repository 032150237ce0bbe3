"""Loads policy files and text: the two ways in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardrail.errors import SettingError
from guardrail.loading.compiling import compile_set
from guardrail.loading.files import PolicyFile, policy_files
from guardrail.loading.findings import Findings
from guardrail.model.policy import PolicySet


def load_policies(paths: Sequence[Path | str]) -> PolicySet:
    """Load every policy file under the given files and folders as one set.

    Raises:
        PolicyError: anything is wrong in any file; it lists everything that is, in order.
        SettingError: no path is given.
    """
    if not paths:
        raise SettingError("no policy is named: give a folder or a file")
    findings = Findings()
    files = policy_files([Path(path) for path in paths], findings.diagnostics)
    return compile_set(files, findings)


def load_text(text: str, file: str = "policy.yaml") -> PolicySet:
    """Load a policy set that is one text; list files are looked for beside `file`.

    Raises:
        PolicyError: anything is wrong in it; it lists everything that is, in order.
    """
    path = Path(file)
    source = PolicyFile(
        name=file,
        relative=path.name,
        path=path,
        data=text.encode(errors="surrogatepass"),
        text=text.removeprefix("\ufeff"),
        is_test=file.endswith(("_test.yaml", "_test.yml")),
    )
    return compile_set([source], Findings())
