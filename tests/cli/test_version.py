"""`guardrail --version`."""

from __future__ import annotations

import guardrail
from guardrail.cli import main


def test_the_command_tells_the_version_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"guardrail {guardrail.__version__}\n"
