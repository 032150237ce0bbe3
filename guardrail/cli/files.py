"""Files that commands write for people."""

from __future__ import annotations

import typer

from guardrail.errors import SettingError


def write(path: str, text: str) -> None:
    """Write a file, or to standard output for `-`.

    Raises:
        SettingError: the file cannot be written.
    """
    if path == "-":
        typer.echo(text, nl=False)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise SettingError(f"`{path}` cannot be written: {problem.strerror}") from None
