"""Commands that are interrupted, as by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def started(*words: str, cwd: Path, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a command of guardrail that an interrupt reaches.

    What a shell runs beside itself (`make test &`) ignores interrupts, and so would all that it
    starts: the command sets that right for itself.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "guardrail", *words],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=cwd,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def interrupted(*words: str, folder: Path) -> tuple[int, str, str]:
    """Return how a command ended that was interrupted while it read `pipe.jsonl`, and what it told.

    What it reads is one line of `week.jsonl`, again and again.
    """
    os.mkfifo(folder / "pipe.jsonl")
    process = started(*words, cwd=folder)
    line = (folder / "week.jsonl").read_bytes().splitlines(keepends=True)[0]
    # More than a pipe holds and a reader takes at once: when it is written, replaying has begun.
    with open(folder / "pipe.jsonl", "wb", buffering=0) as pipe:
        pipe.write(line * 20_000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err
