"""What a forked process does with what its parent made: let go of it, and begin anew."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def call_in_children(method: Callable[[], None]) -> None:
    """Have a method called in each process that is forked from here on, while its object lives.

    Python calls it where it forks by itself, and servers in C that run it do as well.
    Some hundred bytes stay for each call when the object is gone, as Python takes nothing back
    that it was told to call: it is for what is made a few times a process.
    """
    if hasattr(os, "register_at_fork"):  # else processes do not fork
        os.register_at_fork(after_in_child=_while_it_lives(method))


def call_around_forks(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Have methods called before each fork, and after it in both; see `call_in_children`."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_while_it_lives(before),
            after_in_parent=_while_it_lives(in_parent),
            after_in_child=_while_it_lives(in_child),
        )


def _while_it_lives(method: Callable[[], None]) -> Callable[[], None]:
    """Return what calls a method as long as its object lives, which this does not prolong."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (living := reference()) is not None:
            living()

    return call
