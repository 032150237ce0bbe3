"""Starts the command line: as `guardrail`, and as `python -m guardrail`."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> int:
    """Run the command line and return its exit code.

    What commands need takes most of a second to import. An interrupt ends the process at once
    until then, as it does a program without Python's handler: there is nothing to tell of yet.
    """
    former = signal.getsignal(signal.SIGINT)
    ends_at_once = former is signal.default_int_handler  # else whoever started it ignores it, say
    if ends_at_once:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What is imported stays: no search for garbage goes through it, now or later.
    gc.disable()
    from guardrail.cli import main as run

    gc.freeze()
    gc.enable()
    if ends_at_once:
        signal.signal(signal.SIGINT, former)
    return run()


if __name__ == "__main__":
    sys.exit(main())
